//! Says things to the router and reads what it answers.

use std::net::SocketAddr;
use std::sync::Arc;

use apixx_mcp::protocol::http::{HttpConfig, RequestId, router};
use axum::body::Body;
use axum::{Extension, Router};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use crate::fixture::Gate;
use crate::probe::Probe;

/// The revision of the modern era.
pub const MODERN: &str = "2026-07-28";

/// The probe behind an open gate, with the usual configuration.
pub fn app() -> Router {
    app_of(Probe::new().0, HttpConfig::default(), &[])
}

/// A probe behind a gate for these tokens, or for anyone.
pub fn app_of(probe: Arc<Probe>, config: HttpConfig, tokens: &[&str]) -> Router {
    let gate = Gate { tokens: tokens.iter().map(|token| (*token).to_owned()).collect() };
    router(probe, config).with_state(gate).layer(Extension(RequestId("req_1".into())))
}

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Post {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Post {
    /// A POST of these bytes with all headers that every client sends.
    pub fn bytes(body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("localhost"));
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("accept", HeaderValue::from_static("application/json, text/event-stream"));
        Self { method: Method::POST, headers, body: body.into() }
    }

    /// A POST of this JSON.
    pub fn json(body: &Value) -> Self {
        Self::bytes(body.to_string())
    }

    /// A request of this legacy revision, or of a client that names none.
    pub fn legacy(revision: Option<&str>, method: &str, params: Value) -> Self {
        let post = Self::json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        match revision {
            Some(revision) => post.header("mcp-protocol-version", revision),
            None => post,
        }
    }

    /// A modern request, with its envelope and the headers that repeat it.
    pub fn modern(method: &str, params: Value) -> Self {
        Self::modern_message(json!({"id": 1, "method": method, "params": params}))
    }

    /// The same of a whole message, to which only what is missing is added.
    pub fn modern_message(mut message: Value) -> Self {
        message["jsonrpc"] = json!("2.0");
        let meta = &mut message["params"]["_meta"];
        for (key, value) in [("protocolVersion", json!(MODERN)), ("clientCapabilities", json!({}))] {
            let key = format!("io.modelcontextprotocol/{key}");
            if meta.get(&key).is_none() {
                meta[key] = value;
            }
        }
        let mut post = Self::json(&message)
            .header("mcp-protocol-version", MODERN)
            .header("mcp-method", message["method"].as_str().unwrap_or_default());
        if let Some(name) = message["params"]["name"].as_str() {
            post = post.header("mcp-name", name);
        }
        post
    }

    /// Sets a header; several of one name with [`Post::also`].
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a test's header value");
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }

    /// Adds a header beside those of its name.
    pub fn also(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a test's header value");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// Leaves a header out.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Makes it another method than POST.
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The request itself, with another body.
    pub fn request(self, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = "/mcp".parse().expect("a path");
        *request.headers_mut() = self.headers;
        request
    }

    /// The request itself.
    pub fn whole(self) -> Request<Body> {
        let body = Body::from(self.body.clone());
        self.request(body)
    }

    /// Sends it in process and reads the whole answer.
    pub async fn send(self, app: &Router) -> Reply {
        sent(app, self.whole()).await
    }

    /// What goes over a socket, closing the connection after the answer.
    pub fn on_the_wire(self) -> Vec<u8> {
        let mut text = format!("{} /mcp HTTP/1.1\r\ncontent-length: {}\r\n", self.method, self.body.len());
        for (name, value) in &self.headers {
            text += &format!("{name}: {}\r\n", value.to_str().expect("a test's header value"));
        }
        [text.as_bytes(), b"\r\n", &self.body].concat()
    }
}

/// Sends a request in process and reads the whole answer.
pub async fn sent(app: &Router, request: Request<Body>) -> Reply {
    let response = app.clone().oneshot(request).await.expect("a router never fails");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("the body is whole").to_bytes();
    Reply { status: parts.status, headers: parts.headers, body }
}

/// An answer, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// The one JSON value it is.
    pub fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The messages of the event stream it is.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream", "{self:?}");
        events(&self.body)
    }

    /// The status and the code of the JSON-RPC error in it.
    pub fn error(&self) -> (u16, i64) {
        (self.status.as_u16(), self.json()["error"]["code"].as_i64().unwrap_or_default())
    }
}

/// The messages of an event stream, read as strictly as we write it.
pub fn events(stream: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stream).expect("an event stream is UTF-8");
    let mut events = Vec::new();
    for event in text.split_terminator("\n\n") {
        match event.strip_prefix("event: message\ndata: ") {
            Some(data) => events.push(serde_json::from_str(data).expect("an event is JSON")),
            None => assert_eq!(event, ":", "an event or a comment"),
        }
    }
    events
}

/// A server of this router on a socket of its own; it ends with the test's runtime.
pub async fn serving(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Reads from a connection until its bytes fit, and returns them.
pub async fn read_until(connection: &mut TcpStream, fits: impl Fn(&str) -> bool) -> String {
    let mut read = Vec::new();
    loop {
        if let Ok(text) = std::str::from_utf8(&read)
            && fits(text)
        {
            return text.to_owned();
        }
        let count = connection.read_buf(&mut read).await.expect("the connection is whole");
        assert!(count > 0, "the server hung up after {:?}", String::from_utf8_lossy(&read));
    }
}
