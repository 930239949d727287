//! The product the official conformance suite asks for: no database, no customers, its tools word for word.

use std::sync::{Arc, LazyLock};

use apixx_mcp::protocol::{
    Annotations, CallError, CallTool, Content, Exchange, Implementation, LogLevel, ResourceBody, Server,
    ToolAnswer, ToolDefinition, ToolList,
};
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{StatusCode, request::Parts};
use serde_json::{Value, json};

/// Who may call: anyone, or who holds one of these bearer tokens.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    pub tokens: Vec<String>,
}

/// Who calls: their token, or nobody in particular.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub String);

impl FromRequestParts<Gate> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, gate: &Gate) -> Result<Self, Response> {
        let bearer =
            parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        match bearer {
            _ if gate.tokens.is_empty() => Ok(Self("anyone".into())),
            Some(token) if gate.tokens.iter().any(|known| known == token) => Ok(Self(token.into())),
            _ => Err((StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")]).into_response()),
        }
    }
}

/// The tools of the conformance suite that need nothing kept between two requests.
pub struct Fixture {
    implementation: Implementation,
    tools: Arc<ToolList>,
}

impl Fixture {
    /// These, and more after them.
    pub fn with(more: Vec<ToolDefinition>) -> Self {
        let mut tools = definitions();
        tools.extend(more);
        Self {
            implementation: Implementation {
                name: "fixture".into(),
                title: "Conformance fixture".into(),
                version: "1.0.0".into(),
            },
            tools: Arc::new(ToolList::new(tools)),
        }
    }
}

impl Server for Fixture {
    type Caller = Caller;

    fn implementation(&self) -> &Implementation {
        &self.implementation
    }

    fn instructions(&self) -> &str {
        "Tools for the conformance suite."
    }

    fn tools(&self, _caller: &Caller) -> Arc<ToolList> {
        Arc::clone(&self.tools)
    }

    fn caller_key(&self, caller: &Caller) -> String {
        caller.0.clone()
    }

    async fn call_tool(
        &self,
        _caller: &Caller,
        call: CallTool,
        exchange: &Exchange,
    ) -> Result<ToolAnswer, CallError> {
        match call.name.as_str() {
            "test_simple_text" => Ok(ToolAnswer::text("This is a simple text response for testing.")),
            "test_image_content" => Ok(answer(vec![image()])),
            "test_audio_content" => {
                Ok(answer(vec![Content::Audio { data: SILENCE.clone(), mime_type: "audio/wav".into() }]))
            }
            "test_embedded_resource" => Ok(answer(vec![Content::Resource {
                uri: "test://embedded-resource".into(),
                mime_type: Some("text/plain".into()),
                body: ResourceBody::Text("This is an embedded resource content.".into()),
            }])),
            "test_multiple_content_types" => Ok(answer(vec![
                Content::Text("Multiple content types test:".into()),
                image(),
                Content::Resource {
                    uri: "test://mixed-content-resource".into(),
                    mime_type: Some("application/octet-stream".into()),
                    body: ResourceBody::Blob(PIXEL.clone()),
                },
            ])),
            "test_error_handling" => {
                Ok(ToolAnswer::error("This tool intentionally returns an error for testing"))
            }
            "test_tool_with_progress" => {
                for step in [0.0, 50.0, 100.0] {
                    exchange.progress(step, Some(100.0), Some(format!("Completed step {step} of 100"))).await;
                }
                Ok(ToolAnswer::text("Tool with progress executed successfully"))
            }
            "test_tool_with_logging" => {
                for line in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                    exchange.log(LogLevel::Info, "conformance", json!(line)).await;
                }
                Ok(ToolAnswer::text("Tool with logging executed successfully"))
            }
            "test_logging_tool" => {
                exchange.log(LogLevel::Info, "conformance", json!("A line for who asked for it")).await;
                Ok(ToolAnswer::text("Logged"))
            }
            "test_missing_capability" => {
                if exchange.capabilities.as_ref().is_some_and(|declared| declared.has("sampling")) {
                    Ok(ToolAnswer::text("The client can sample"))
                } else {
                    Err(CallError::MissingCapability(json!({"sampling": {}})))
                }
            }
            "test_streaming_elicitation" => Ok(ToolAnswer::text("Answered without asking")),
            "json_schema_2020_12_tool" | "test_header_arguments" => {
                Ok(ToolAnswer::text(Value::Object(call.arguments).to_string()))
            }
            _ => Err(CallError::UnknownTool),
        }
    }
}

fn answer(content: Vec<Content>) -> ToolAnswer {
    ToolAnswer { content, ..ToolAnswer::default() }
}

/// A tool that reads only and takes `input_schema`.
pub fn definition(name: &str, description: &str, input_schema: Value) -> ToolDefinition {
    ToolDefinition {
        name: name.into(),
        title: name.replace('_', " "),
        description: description.into(),
        input_schema,
        output_schema: None,
        annotations: Annotations {
            title: None,
            read_only: true,
            destructive: false,
            idempotent: true,
            open_world: false,
        },
    }
}

fn definitions() -> Vec<ToolDefinition> {
    let nothing = || json!({"type": "object", "additionalProperties": false});
    vec![
        definition("test_simple_text", "Answers with text.", nothing()),
        definition("test_image_content", "Answers with a picture.", nothing()),
        definition("test_audio_content", "Answers with a sound.", nothing()),
        definition("test_embedded_resource", "Answers with a resource.", nothing()),
        definition("test_multiple_content_types", "Answers with text, a picture and a resource.", nothing()),
        definition("test_error_handling", "Always fails.", nothing()),
        definition("test_tool_with_progress", "Reports progress.", nothing()),
        definition("test_tool_with_logging", "Logs three lines.", nothing()),
        definition("test_logging_tool", "Logs one line.", nothing()),
        definition("test_missing_capability", "Needs a client that can sample.", nothing()),
        definition("test_streaming_elicitation", "Answers without asking anything.", nothing()),
        definition(
            "json_schema_2020_12_tool",
            "Publishes a schema that uses the full vocabulary.",
            json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "$defs": {
                    "address": {
                        "$anchor": "addressDef",
                        "type": "object",
                        "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
                    },
                },
                "properties": {
                    "name": {"type": "string"},
                    "address": {"$ref": "#/$defs/address"},
                    "contactMethod": {"type": "string", "enum": ["phone", "email"]},
                    "phone": {"type": "string"},
                    "email": {"type": "string"},
                },
                "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
                "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
                "then": {"required": ["phone"]},
                "else": {"required": ["email"]},
                "additionalProperties": false,
            }),
        ),
        definition(
            "test_header_arguments",
            "Takes arguments that headers repeat.",
            json!({
                "type": "object",
                "properties": {
                    "region": {"type": "string", "x-mcp-header": "Region"},
                    "limit": {"type": "integer", "x-mcp-header": "Limit"},
                    "dry": {"type": "boolean", "x-mcp-header": "Dry"},
                    "where": {
                        "type": "object",
                        "properties": {"zone": {"type": "string", "x-mcp-header": "Zone"}},
                    },
                },
                "additionalProperties": false,
            }),
        ),
    ]
}

fn image() -> Content {
    Content::Image { data: PIXEL.clone(), mime_type: "image/png".into() }
}

/// A PNG of one pixel.
static PIXEL: LazyLock<Bytes> = LazyLock::new(|| {
    decoded(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==",
    )
});

/// A WAV of no samples.
static SILENCE: LazyLock<Bytes> =
    LazyLock::new(|| decoded("UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="));

fn decoded(base64: &str) -> Bytes {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(base64).expect("our own constants are Base64").into()
}
