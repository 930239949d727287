//! A tool as it is listed, and a caller's list of tools, serialised once.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::revision::Revision;

/// A tool as it is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolDefinition {
    /// 1 to 64 of `[A-Za-z0-9_.-]`, unique in the list.
    pub name: String,
    /// The name people read; left out for 2025-03-26.
    pub title: String,
    /// What it does and when to call it.
    pub description: String,
    /// A JSON Schema whose root is an object; published as it stands.
    pub input_schema: Value,
    /// The schema of `structuredContent`, an object at the root; left out for 2025-03-26.
    pub output_schema: Option<Value>,
    /// What a client may expect of a call.
    pub annotations: Annotations,
}

/// What a client may expect of a call. All four hints are always sent: two of their defaults are `true`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Annotations {
    /// The title for 2025-03-26, which has it only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// It changes nothing.
    #[serde(rename = "readOnlyHint")]
    pub read_only: bool,
    /// It may destroy something.
    #[serde(rename = "destructiveHint")]
    pub destructive: bool,
    /// Calling it twice is calling it once.
    #[serde(rename = "idempotentHint")]
    pub idempotent: bool,
    /// It reaches beyond this server's own data.
    #[serde(rename = "openWorldHint")]
    pub open_world: bool,
}

/// The tools of one kind of caller, serialised once for each family of revisions. Make it once, keep it in an `Arc`.
#[derive(Debug)]
pub struct ToolList {
    header_arguments: BTreeMap<String, Vec<HeaderArgument>>,
    /// The `tools` array for 2025-03-26: no `title`, no `outputSchema`.
    first: Box<RawValue>,
    /// The `tools` array for every later revision.
    later: Box<RawValue>,
}

/// An argument that a modern client repeats in an `Mcp-Param-…` header (server/tools, "x-mcp-header").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderArgument {
    /// The header, in lower case.
    pub header: String,
    /// Where the argument stands: the names of properties, from the root.
    pub path: Vec<String>,
}

impl ToolList {
    /// The list in the order given.
    ///
    /// # Panics
    /// Two tools of one name.
    pub fn new(definitions: Vec<ToolDefinition>) -> Self {
        let first = serialised(definitions.iter().map(|tool| Wire::new(tool, Revision::V2025_03_26)));
        let later = serialised(definitions.iter().map(|tool| Wire::new(tool, Revision::MODERN)));
        let mut header_arguments = BTreeMap::new();
        for tool in definitions {
            let arguments = repeated(&tool.input_schema);
            let earlier = header_arguments.insert(tool.name.clone(), arguments);
            assert!(earlier.is_none(), "two tools are named `{}`", tool.name);
        }
        Self { header_arguments, first, later }
    }

    /// The arguments of that tool that a modern client repeats in headers.
    pub fn header_arguments(&self, name: &str) -> &[HeaderArgument] {
        self.header_arguments.get(name).map_or(&[], Vec::as_slice)
    }

    /// The `tools` array, in the words of that revision.
    pub fn json(&self, revision: Revision) -> &RawValue {
        if revision == Revision::V2025_03_26 { &self.first } else { &self.later }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    description: &'a str,
    input_schema: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_schema: Option<&'a Value>,
    annotations: &'a Annotations,
}

impl<'a> Wire<'a> {
    fn new(tool: &'a ToolDefinition, revision: Revision) -> Self {
        let later = revision > Revision::V2025_03_26;
        Self {
            name: &tool.name,
            title: later.then_some(tool.title.as_str()),
            description: &tool.description,
            input_schema: &tool.input_schema,
            output_schema: tool.output_schema.as_ref().filter(|_| later),
            annotations: &tool.annotations,
        }
    }
}

#[expect(clippy::expect_used, reason = "text, booleans and JSON values always serialise")]
fn serialised<'a>(tools: impl Iterator<Item = Wire<'a>>) -> Box<RawValue> {
    to_raw_value(&tools.collect::<Vec<_>>()).expect("a list of tools serialises")
}

/// Every usable `x-mcp-header` of a schema. One that breaks the rules (no token, on anything but a string, an integer
/// or a boolean, the same name twice) is ignored here: clients drop such a tool from their list.
fn repeated(schema: &Value) -> Vec<HeaderArgument> {
    let mut found: Vec<HeaderArgument> = Vec::new();
    let mut open = vec![(Vec::new(), schema)];
    while let Some((path, schema)) = open.pop() {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { continue };
        for (name, property) in properties {
            let mut path = path.clone();
            path.push(name.clone());
            if let Some(header) = header_name(property)
                && found.iter().all(|earlier| earlier.header != header)
            {
                found.push(HeaderArgument { header, path: path.clone() });
            }
            open.push((path, property));
        }
    }
    found
}

fn header_name(property: &Value) -> Option<String> {
    let name = property.get("x-mcp-header")?.as_str()?;
    let kind = property.get("type")?.as_str()?;
    let header = format!("mcp-param-{}", name.to_ascii_lowercase());
    let usable = !name.is_empty()
        && matches!(kind, "string" | "integer" | "boolean")
        && http::HeaderName::from_bytes(header.as_bytes()).is_ok();
    usable.then_some(header)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(name: &str, input_schema: Value) -> ToolDefinition {
        ToolDefinition {
            name: name.into(),
            title: "A tool".into(),
            description: "Does a thing.".into(),
            input_schema,
            output_schema: Some(json!({"type": "object"})),
            annotations: Annotations {
                title: None,
                read_only: true,
                destructive: false,
                idempotent: true,
                open_world: false,
            },
        }
    }

    #[test]
    fn the_first_revision_hears_of_no_title_and_no_output_schema() {
        let list = ToolList::new(vec![tool("a", json!({"type": "object"}))]);
        let first: Value = serde_json::from_str(list.json(Revision::V2025_03_26).get()).unwrap();
        let later: Value = serde_json::from_str(list.json(Revision::V2025_06_18).get()).unwrap();
        assert_eq!(
            first,
            json!([{
                "name": "a",
                "description": "Does a thing.",
                "inputSchema": {"type": "object"},
                "annotations": {
                    "readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false,
                },
            }])
        );
        assert_eq!(later[0]["title"], "A tool");
        assert_eq!(later[0]["outputSchema"], json!({"type": "object"}));
        assert_eq!(list.json(Revision::MODERN).get(), list.json(Revision::V2025_11_25).get());
    }

    #[test]
    #[should_panic(expected = "two tools are named `a`")]
    fn a_name_stands_once() {
        ToolList::new(vec![tool("a", json!({})), tool("a", json!({}))]);
    }

    #[test]
    fn header_arguments_are_found_at_any_depth_of_properties() {
        let schema = json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "plain": {"type": "string"},
            "nested": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "Depth"}}},
            "ratio": {"type": "number", "x-mcp-header": "Ratio"},
            "bad": {"type": "string", "x-mcp-header": "not a token"},
            "empty": {"type": "string", "x-mcp-header": ""},
            "again": {"type": "string", "x-mcp-header": "REGION"},
        }});
        let found = repeated(&schema);
        assert_eq!(
            found,
            vec![
                HeaderArgument { header: "mcp-param-region".into(), path: vec!["region".into()] },
                HeaderArgument { header: "mcp-param-depth".into(), path: vec!["nested".into(), "n".into()] },
            ]
        );
    }
}
