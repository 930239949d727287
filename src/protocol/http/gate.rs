//! Which hosts and which pages may talk to this server (basic/transports, "Security Warning"), and CORS for the
//! pages that may.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, Version};

use super::{HttpConfig, Problem};

/// The request headers a page may send, besides `Mcp-Param-…`.
const REQUEST_HEADERS: &[&str] = &[
    "authorization",
    "content-type",
    "accept",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "mcp-session-id",
    "last-event-id",
];

/// The response headers a page may read.
const RESPONSE_HEADERS: &str = "WWW-Authenticate, Retry-After, RateLimit, RateLimit-Policy";

/// Lets a request pass, with the origin of its page if it has one.
///
/// # Errors
/// 400 where it does not say which host it is for, 403 where its host or its page is none of ours.
pub(super) fn pass(config: &HttpConfig, parts: &Parts) -> Result<Option<HeaderValue>, Problem> {
    let Some(host) = host(parts) else {
        let message = "Bad request: send one Host, as `name` or `name:port`, the same as in the target.";
        let said = parts.headers.get(HOST).map(HeaderValue::as_bytes);
        return Err(Problem::new(StatusCode::BAD_REQUEST, "host", message).about(said));
    };
    if !host_allowed(config, &host) {
        let message = "Forbidden: this server does not answer to that Host; see its list of allowed hosts.";
        let problem = Problem::new(StatusCode::FORBIDDEN, "host", message);
        return Err(problem.about(Some(host.as_str().as_bytes())));
    }
    let mut origins = parts.headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => Ok(None),
        (Some(origin), None) if origin_allowed(config, origin) => Ok(Some(origin.clone())),
        _ => {
            let message =
                "Forbidden: pages of that Origin may not call; see the server's list of allowed origins.";
            let said = parts.headers.get(ORIGIN).map(HeaderValue::as_bytes);
            Err(Problem::new(StatusCode::FORBIDDEN, "origin", message).about(said))
        }
    }
}

/// Whether an OPTIONS request is a browser's question before the real one.
pub(super) fn is_preflight(parts: &Parts) -> bool {
    parts.headers.contains_key(ORIGIN) && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers a browser's question: yes, for POST with our headers.
///
/// # Errors
/// As of [`pass`].
pub(super) fn preflight(config: &HttpConfig, parts: &Parts) -> Result<(StatusCode, HeaderMap), Problem> {
    let mut headers = HeaderMap::new();
    if let Some(origin) = pass(config, parts)? {
        share_with(origin, &mut headers);
    }
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Ok(names) = HeaderValue::from_str(&request_headers(&parts.headers)) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    Ok((StatusCode::NO_CONTENT, headers))
}

/// Lets a page of `origin` read the response.
pub(super) fn share_with(origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

/// The headers we know, and each `Mcp-Param-…` the page asks for: with credentials there is no wildcard.
fn request_headers(headers: &HeaderMap) -> String {
    let asked = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS);
    let asked = asked.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let params = asked.map(|name| name.trim().to_ascii_lowercase()).filter(|name| {
        name.starts_with("mcp-param-") && http::HeaderName::from_bytes(name.as_bytes()).is_ok()
    });
    REQUEST_HEADERS.iter().map(|name| (*name).to_owned()).chain(params).collect::<Vec<_>>().join(", ")
}

/// The one host that a request is for. Where its target names one too, that counts (RFC 9112, section 3.2.2), so
/// `Host` must not say another.
fn host(parts: &Parts) -> Option<Authority> {
    let target = parts.uri.authority();
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let host = host.to_str().ok().and_then(authority)?;
            target.is_none_or(|target| *target == host).then_some(host)
        }
        // HTTP/2 may leave `Host` to the target; HTTP/1.1 may not.
        (None, _) if parts.version != Version::HTTP_11 => authority(target?.as_str()),
        _ => None,
    }
}

fn host_allowed(config: &HttpConfig, host: &Authority) -> bool {
    (is_loopback(host) && loopback_allowed(config))
        || config.allowed_hosts.iter().any(|allowed| {
            allowed.host().eq_ignore_ascii_case(host.host())
                && (allowed.port().is_none() || allowed.port_u16() == host.port_u16())
        })
}

fn origin_allowed(config: &HttpConfig, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let host = origin.split_once("://").and_then(|(scheme, host)| match scheme {
        "http" | "https" => authority(host),
        _ => None,
    });
    host.is_some_and(|host| is_loopback(&host) && loopback_allowed(config))
        || origin.parse().is_ok_and(|origin: Uri| config.allowed_origins.contains(&origin))
}

fn loopback_allowed(config: &HttpConfig) -> bool {
    config.allowed_hosts.iter().any(is_loopback)
}

fn is_loopback(host: &Authority) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| host.host().eq_ignore_ascii_case(name))
}

/// A host with or without a port, which is a number; nothing before an `@`.
fn authority(text: &str) -> Option<Authority> {
    text.parse().ok().filter(|authority: &Authority| {
        !text.contains('@') && (authority.port_u16().is_some() || text == authority.host())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(host: Option<&str>, origin: Option<&str>) -> Parts {
        let mut request = http::Request::builder().uri("/mcp");
        for (name, value) in [(HOST, host), (ORIGIN, origin)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn hosts_and_origins_are_judged_by_the_lists() {
        let config = |hosts: &[&str], origins: &[&str]| HttpConfig {
            allowed_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            allowed_origins: origins.iter().map(|origin| origin.parse().unwrap()).collect(),
            ..HttpConfig::default()
        };
        let local = config(&["127.0.0.1"], &[]);
        let public = config(&["mcp.example.com", "other.example.com:8443"], &["https://app.example.com"]);
        let table = [
            (&local, Some("localhost:8080"), None, true),
            (&local, Some("LOCALHOST"), Some("http://127.0.0.1:3000"), true),
            (&local, Some("[::1]:1"), Some("https://[::1]"), true),
            (&local, Some("evil.example.com"), None, false),
            (&local, Some("localhost.evil.example.com"), None, false),
            (&local, Some("localhost"), Some("http://evil.example.com"), false),
            (&local, Some("localhost"), Some("null"), false),
            (&local, Some("localhost"), Some("ftp://localhost"), false),
            (&public, Some("mcp.example.com"), None, true),
            (&public, Some("mcp.example.com:443"), None, true),
            (&public, Some("other.example.com:8443"), None, true),
            (&public, Some("other.example.com"), None, false),
            (&public, Some("localhost"), None, false),
            (&public, Some("mcp.example.com"), Some("https://APP.example.com"), true),
            (&public, Some("mcp.example.com"), Some("https://app.example.com:444"), false),
            (&public, Some("mcp.example.com"), Some("http://app.example.com"), false),
            (&public, Some("mcp.example.com"), Some("http://localhost"), false),
        ];
        for (config, host, origin, passes) in table {
            let status = pass(config, &parts(host, origin)).map(drop).map_err(|problem| problem.status);
            let wanted = if passes { Ok(()) } else { Err(StatusCode::FORBIDDEN) };
            assert_eq!(status, wanted, "{host:?} {origin:?}");
        }
    }

    #[test]
    fn a_request_is_for_the_host_that_it_names_once_and_for_no_other() {
        let asked = |target: &str, hosts: &[&str], version| {
            let mut request = http::Request::builder().uri(target).version(version);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            pass(&HttpConfig::default(), &parts).map(drop).map_err(|problem| problem.status.as_u16())
        };
        let table = [
            ("/mcp", &["localhost"][..], Version::HTTP_11, Ok(())),
            ("http://localhost:8080/mcp", &["LOCALHOST:8080"], Version::HTTP_11, Ok(())),
            ("http://localhost/mcp", &["localhost"], Version::HTTP_2, Ok(())),
            ("http://localhost/mcp", &[], Version::HTTP_2, Ok(())),
            ("http://evil.example.com/mcp", &[], Version::HTTP_2, Err(403)),
            ("http://evil.example.com/mcp", &["evil.example.com"], Version::HTTP_11, Err(403)),
            ("http://evil.example.com/mcp", &["localhost"], Version::HTTP_11, Err(400)),
            ("http://localhost/mcp", &["evil.example.com"], Version::HTTP_11, Err(400)),
            ("http://localhost/mcp", &["evil.example.com"], Version::HTTP_2, Err(400)),
            ("http://localhost:1/mcp", &["localhost:2"], Version::HTTP_11, Err(400)),
            ("http://a@localhost/mcp", &[], Version::HTTP_2, Err(400)),
            ("http://localhost/mcp", &[], Version::HTTP_11, Err(400)),
            ("/mcp", &[], Version::HTTP_11, Err(400)),
            ("/mcp", &[], Version::HTTP_2, Err(400)),
            ("/mcp", &["localhost", "localhost"], Version::HTTP_11, Err(400)),
            ("/mcp", &["localhost@evil.example.com"], Version::HTTP_11, Err(400)),
            ("/mcp", &["localhost:x"], Version::HTTP_11, Err(400)),
            ("/mcp", &[""], Version::HTTP_11, Err(400)),
        ];
        for (target, hosts, version, wanted) in table {
            assert_eq!(asked(target, hosts, version), wanted, "{target} {hosts:?} {version:?}");
        }
    }
}
