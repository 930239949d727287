//! The Model Context Protocol over HTTP, both eras, free of the product.
//!
//! A product implements [`Server`]; [`http::router`] serves it at `/mcp`. A POST goes through these
//! files, in this order:
//!
//! * [`http`]: method, `Host` and `Origin`, size, who is calling, media types, the body;
//! * [`jsonrpc`]: bytes become messages;
//! * [`classify`]: one decision, which era answers;
//! * [`wire`]: an era's own checks and method table; a message becomes a [`dispatch::Request`];
//! * [`dispatch`]: a request and the [`Server`] become an answer;
//! * [`wire`] again: the answer becomes bytes in the words of the client's revision.
//!
//! Nothing here is kept between two requests, except which calls are under way ([`inflight`]).

pub mod classify;
pub mod content;
pub mod dispatch;
pub mod exchange;
pub mod header;
pub mod http;
pub mod inflight;
pub mod jsonrpc;
pub mod model;
pub mod revision;
pub mod server;
pub mod tool;
pub mod wire;

pub use content::{Content, ResourceBody, ToolAnswer};
pub use exchange::Exchange;
pub use model::{ClientInfo, Implementation, LogLevel};
pub use revision::{Era, Revision};
pub use server::{CallError, CallTool, Server};
pub use tool::{Annotations, ToolDefinition, ToolList};
