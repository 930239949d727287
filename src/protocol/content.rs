//! What a tool answers: content blocks, and their JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What a tool answers, in no revision's words yet.
#[derive(Clone, Debug, Default)]
pub struct ToolAnswer {
    /// The blocks a model reads. The text must be complete without `structured`: 2025-03-26 never shows that.
    pub content: Vec<Content>,
    /// The same answer as JSON. Anything but an object is left out for 2025-06-18 and 2025-11-25, which know
    /// objects only.
    pub structured: Option<Box<RawValue>>,
    /// Whether the call failed in a way the model can read and act on.
    pub is_error: bool,
    /// `_meta` of the result.
    pub meta: Option<Map<String, Value>>,
}

impl ToolAnswer {
    /// A success of one text block.
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![Content::Text(text.into())], ..Self::default() }
    }

    /// A failure the model can read and act on.
    pub fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::text(text) }
    }
}

/// One block of a tool's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// A picture.
    Image {
        /// Its bytes, sent as Base64.
        data: Bytes,
        /// What they are, as `image/png`.
        mime_type: String,
    },
    /// A sound.
    Audio {
        /// Its bytes, sent as Base64.
        data: Bytes,
        /// What they are, as `audio/wav`.
        mime_type: String,
    },
    /// A resource, whole.
    Resource {
        /// What names it.
        uri: String,
        /// What it holds, as `text/plain`.
        mime_type: Option<String>,
        /// Its contents.
        body: ResourceBody,
    },
}

/// The contents of an embedded resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceBody {
    /// Text.
    Text(String),
    /// Bytes, sent as Base64.
    Blob(Bytes),
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Text(text) => {
                map.serialize_entry("type", "text")?;
                map.serialize_entry("text", text)?;
            }
            Self::Image { data, mime_type } => {
                map.serialize_entry("type", "image")?;
                map.serialize_entry("data", &STANDARD.encode(data))?;
                map.serialize_entry("mimeType", mime_type)?;
            }
            Self::Audio { data, mime_type } => {
                map.serialize_entry("type", "audio")?;
                map.serialize_entry("data", &STANDARD.encode(data))?;
                map.serialize_entry("mimeType", mime_type)?;
            }
            Self::Resource { uri, mime_type, body } => {
                map.serialize_entry("type", "resource")?;
                map.serialize_entry(
                    "resource",
                    &EmbeddedResource { uri, mime_type: mime_type.as_deref(), body },
                )?;
            }
        }
        map.end()
    }
}

struct EmbeddedResource<'a> {
    uri: &'a str,
    mime_type: Option<&'a str>,
    body: &'a ResourceBody,
}

impl Serialize for EmbeddedResource<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("uri", self.uri)?;
        if let Some(mime_type) = self.mime_type {
            map.serialize_entry("mimeType", mime_type)?;
        }
        match self.body {
            ResourceBody::Text(text) => map.serialize_entry("text", text)?,
            ResourceBody::Blob(bytes) => map.serialize_entry("blob", &STANDARD.encode(bytes))?,
        }
        map.end()
    }
}
