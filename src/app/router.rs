//! What is served over HTTP: MCP, the pages, the question whether we live, and what all answers have in common.

use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use http::uri::Authority;

use super::operator;
use super::state::AppState;
use crate::config::ServerConfig;
use crate::domain::ids::IdSource;
use crate::middleware::{Edge, TrustedProxies, pass};
use crate::protocol::http::{HttpConfig, Refused, ends_connection, refusal};
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::{self, Server};
use crate::service::access::Principal;
use crate::web::{self, Web};

/// Everything that is served, behind the layer that every request passes.
pub(super) fn router<P>(
    state: AppState,
    server: Arc<P>,
    web: Web,
    config: &ServerConfig,
    ids: IdSource,
) -> Router
where
    P: Server<Caller = Principal>,
{
    let proxies = TrustedProxies::new(&config.trusted_proxies);
    let only_tls = config.only_tls();
    let edge = Arc::new(Edge { ids, only_tls, proxies, teller: Arc::clone(&state.teller) });
    protocol::http::router(server, http_config(config))
        .route("/healthz", get(operator::alive))
        .merge(web::router(web, config.body_timeout))
        .fallback(not_found)
        .with_state(state)
        .layer(from_fn_with_state(edge, pass))
}

async fn not_found(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let error = RpcError::new(404, "Not found: MCP is served at /mcp.");
    let mut response = refusal(StatusCode::NOT_FOUND, &error);
    response.extensions_mut().insert(Refused::because("path"));
    // A body that nobody reads ends its connection, and a client that is told so begins another.
    if !body.is_end_stream() {
        ends_connection(&parts, &mut response);
    }
    response
}

/// The protocol's own settings.
fn http_config(config: &ServerConfig) -> HttpConfig {
    HttpConfig {
        allowed_hosts: allowed_hosts(config),
        allowed_origins: config.allowed_origins.clone(),
        body_timeout: config.body_timeout,
        call_timeout: config.call_timeout,
        ..HttpConfig::default()
    }
}

/// The names this server answers to: what the operator listed, that of the public address, and, where only
/// this machine can call, those of this machine.
fn allowed_hosts(config: &ServerConfig) -> Vec<Authority> {
    let local = config.listen.ip().is_loopback().then(|| Authority::from_static("localhost"));
    let public = config.public_url.as_ref().and_then(|url| url.authority()).cloned();
    config.allowed_hosts.iter().cloned().chain(public).chain(local).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn hosts(pairs: &[(&str, &str)]) -> Vec<Authority> {
        let flags = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let environment = vec![("HOME".to_owned(), "/home/ana".to_owned())];
        let config = Config::load(&Sources { file: None, environment, flags }).unwrap();
        allowed_hosts(&config.server)
    }

    #[test]
    fn hosts_are_those_listed_the_public_one_and_ours() {
        assert_eq!(hosts(&[]), ["localhost"]);
        assert!(hosts(&[("server.listen", "0.0.0.0:80")]).is_empty());
        let proxied = [
            ("server.listen", "0.0.0.0:80"),
            ("server.public_url", "https://mcp.example.com"),
            ("server.allowed_hosts", "mcp.internal:8080"),
        ];
        assert_eq!(hosts(&proxied), ["mcp.internal:8080", "mcp.example.com"]);
    }
}
