//! MCP's Streamable HTTP, at `/mcp`.

use std::time::Duration;

/// What the HTTP edge allows. The defaults suit a server on loopback.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The hosts this server answers to (`Host`), with a port or for any port; IPv6 in brackets. Anything else is 403,
    /// which keeps a page that rebinds its own name to our address out. While any of them is a loopback name, all
    /// loopback names are allowed.
    pub allowed_hosts: Vec<String>,
    /// The origins whose pages may call (`Origin`, as `https://app.example.com`). A request without `Origin` comes
    /// from no page and is fine. Loopback origins are allowed as loopback hosts are.
    pub allowed_origins: Vec<String>,
    /// The largest body, in bytes; 413 beyond.
    pub max_body_bytes: usize,
    /// How long a body may take to arrive whole; 408 beyond.
    pub body_timeout: Duration,
    /// How deep a body may nest; at most 100, since the parser's own limit is 128.
    pub max_depth: usize,
    /// How many messages a batch may hold (2025-03-26 only).
    pub max_batch: usize,
    /// How long the calls of one POST may take together, progress or not.
    pub call_timeout: Duration,
    /// How often a silent event stream carries a comment, so that nobody on the way closes it.
    pub keep_alive: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            allowed_hosts: vec!["localhost".into()],
            allowed_origins: Vec::new(),
            max_body_bytes: 1024 * 1024,
            body_timeout: Duration::from_secs(10),
            max_depth: 64,
            max_batch: 50,
            call_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// The id of an HTTP request, put among its extensions by the product's middleware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);
