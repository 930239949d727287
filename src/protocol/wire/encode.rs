//! An answer becomes bytes, in the words of the client's revision.
//!
//! Fields of the modern era (`resultType`, caching, the server's name in `_meta`) never reach a legacy client: the
//! empty results of older SDKs are strict.

use bytes::Bytes;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::protocol::content::{Content, ToolAnswer};
use crate::protocol::dispatch::Answer;
use crate::protocol::jsonrpc::{Id, success};
use crate::protocol::model::Implementation;
use crate::protocol::revision::{Era, Revision};

use super::modern::SERVER_KEY;

/// How long a client may keep a list, in milliseconds. What a caller sees follows its token, hence `private`.
const TTL_MS: u32 = 60_000;

/// The response to request `id`, in the words of `revision`.
pub fn encode(
    revision: Revision,
    id: &Id,
    answer: &Answer,
    server: &Implementation,
    instructions: &str,
) -> Bytes {
    let instructions = Some(instructions).filter(|text| !text.is_empty());
    let common = Common::new(revision, server, None);
    let caching =
        (revision.era() == Era::Modern).then_some(Caching { ttl_ms: TTL_MS, cache_scope: "private" });
    match answer {
        Answer::Initialized(agreed) => success(
            id,
            Initialized {
                protocol_version: agreed.date(),
                capabilities: Capabilities { tools: Empty {}, logging: Some(Empty {}) },
                server_info: Introduction::new(*agreed, server),
                instructions,
            },
            0,
        ),
        Answer::Discovered => success(
            id,
            Discovered {
                supported_versions: [Revision::MODERN.date()],
                capabilities: Capabilities { tools: Empty {}, logging: None },
                instructions,
                caching,
                common,
            },
            0,
        ),
        Answer::Empty => success(id, common, 0),
        Answer::Tools(list) => {
            let tools = list.json(revision);
            success(id, Tools { tools, caching, common }, tools.get().len())
        }
        Answer::Tool(answer) => success(
            id,
            Tool {
                content: &answer.content,
                structured_content: structured(revision, answer),
                is_error: answer.is_error,
                common: Common::new(revision, server, answer.meta.as_ref()),
            },
            about(answer),
        ),
    }
}

/// Bytes that an answer takes, escapes included.
fn about(answer: &ToolAnswer) -> usize {
    let text = |content: &Content| if let Content::Text(text) = content { text.len() * 9 / 8 } else { 0 };
    answer.content.iter().map(text).sum::<usize>()
        + answer.structured.as_ref().map_or(0, |raw| raw.get().len())
}

/// 2025-03-26 has no `structuredContent`; until 2025-11-25 it is an object; later any value.
fn structured(revision: Revision, answer: &ToolAnswer) -> Option<&RawValue> {
    let value = answer.structured.as_deref()?;
    let fits = match revision {
        Revision::V2025_03_26 => false,
        Revision::V2025_06_18 | Revision::V2025_11_25 => value.get().starts_with('{'),
        Revision::V2026_07_28 => true,
    };
    fits.then_some(value)
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Capabilities {
    tools: Empty,
    /// Deprecated in 2026-07-28, where a request asks for log lines itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    logging: Option<Empty>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Initialized<'a> {
    protocol_version: &'static str,
    capabilities: Capabilities,
    server_info: Introduction<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Discovered<'a> {
    supported_versions: [&'static str; 1],
    capabilities: Capabilities,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
    #[serde(flatten)]
    caching: Option<Caching>,
    #[serde(flatten)]
    common: Common<'a>,
}

#[derive(Serialize)]
struct Tools<'a> {
    tools: &'a RawValue,
    #[serde(flatten)]
    caching: Option<Caching>,
    #[serde(flatten)]
    common: Common<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tool<'a> {
    content: &'a [Content],
    #[serde(skip_serializing_if = "Option::is_none")]
    structured_content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_error: bool,
    #[serde(flatten)]
    common: Common<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Caching {
    ttl_ms: u32,
    cache_scope: &'static str,
}

/// What every result carries.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Common<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    result_type: Option<&'static str>,
    #[serde(rename = "_meta", skip_serializing_if = "Meta::is_empty")]
    meta: Meta<'a>,
}

impl<'a> Common<'a> {
    fn new(revision: Revision, server: &'a Implementation, own: Option<&'a Map<String, Value>>) -> Self {
        let modern = revision.era() == Era::Modern;
        Self {
            result_type: modern.then_some("complete"),
            meta: Meta { own, server: modern.then_some(Introduction::new(revision, server)) },
        }
    }
}

struct Meta<'a> {
    own: Option<&'a Map<String, Value>>,
    server: Option<Introduction<'a>>,
}

impl Meta<'_> {
    fn is_empty(&self) -> bool {
        self.own.is_none() && self.server.is_none()
    }
}

impl Serialize for Meta<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.own.into_iter().flatten() {
            map.serialize_entry(key, value)?;
        }
        if let Some(server) = &self.server {
            map.serialize_entry(SERVER_KEY, server)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Introduction<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    version: &'a str,
}

impl<'a> Introduction<'a> {
    fn new(revision: Revision, server: &'a Implementation) -> Self {
        let title = (revision > Revision::V2025_03_26).then_some(server.title.as_str());
        Self { name: &server.name, title, version: &server.version }
    }
}
