//! Who asks for a page: the session's cookie, its person, and as whom they stand in the workspace of the address.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::{FromRequestParts, RawPathParams};
use chrono::{DateTime, Utc};
use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method};

use super::Web;
use super::sign_in::ours;
use super::trouble::Trouble;
use crate::domain::person::Role;
use crate::domain::scope::Scopes;
use crate::domain::token::Secret;
use crate::middleware::{Known, Peer};
use crate::protocol::http::RequestId;
use crate::service::access::{Principal, UnderWay};
use crate::service::people::LONGEST;
use crate::store::customers::Actor;
use crate::store::people::{Member, Person};

/// The cookie's name where browsers come over TLS: they take it from nobody but this host then
/// (RFC 6265bis, section 4.1.3.2).
const SAFE: &str = "__Host-apixx";

/// Elsewhere, that is on this machine.
const PLAIN: &str = "apixx";

impl Web {
    fn cookie_name(&self) -> &'static str {
        if self.0.only_tls { SAFE } else { PLAIN }
    }

    /// What makes a browser keep a session.
    pub(super) fn keep(&self, session: &Secret) -> HeaderValue {
        self.cookie(session.reveal(), LONGEST.num_seconds())
    }

    /// What makes it forget the session.
    pub(super) fn forget(&self) -> HeaderValue {
        self.cookie("", 0)
    }

    fn cookie(&self, value: &str, seconds: i64) -> HeaderValue {
        let (name, secure) = (self.cookie_name(), if self.0.only_tls { "; Secure" } else { "" });
        let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}");
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }

    /// The session that a browser holds.
    pub(super) fn session(&self, headers: &HeaderMap) -> Option<Secret> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
        cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .find(|(name, _)| *name == self.cookie_name())
            .and_then(|(_, value)| Secret::parse(value))
    }
}

/// Somebody who is signed in.
pub(super) struct SignedIn {
    pub(super) session: Secret,
    pub(super) person: Person,
}

impl FromRequestParts<Web> for SignedIn {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Trouble> {
        // A form that was sent is not sent again by coming back.
        let path = parts.uri.path();
        let wanted = parts.uri.path_and_query().filter(|_| parts.method == Method::GET);
        let nobody = || {
            let wanted = wanted.and_then(|wanted| ours(wanted.as_str()));
            Trouble::SignIn(wanted.unwrap_or_default().to_owned())
        };
        let session = web.session(&parts.headers).ok_or_else(nobody)?;
        // What a page asks by itself is no use that somebody makes of it.
        let lives_on = !(path.ends_with("/seen") || path.ends_with("/events"));
        let person = web.0.people.person(&session, lives_on).await?.ok_or_else(nobody)?;
        Known::note(&parts.extensions);
        Ok(Self { session, person })
    }
}

/// Somebody who is signed in, in the workspace that the address names.
pub(super) struct Here {
    pub(super) person: Person,
    pub(super) member: Member,
    address: Option<IpAddr>,
    pub(super) now: DateTime<Utc>,
    /// The request's name in the log.
    pub(super) request: String,
    /// Counts among the requests that the workspace may have at the same time.
    _under_way: UnderWay,
}

impl Here {
    /// For the audit log.
    pub(super) fn actor(&self) -> Actor {
        Actor::User { id: self.member.user.clone(), name: self.member.name.clone() }
    }

    /// As what they call tools: with the rights of their role, and `scopes` at most.
    pub(super) fn caller(&self, scopes: Scopes) -> Principal {
        Principal::person(&self.member, scopes, self.address)
    }

    /// Nothing, if their role allows it.
    pub(super) fn must(&self, allowed: fn(Role) -> bool) -> Result<(), Trouble> {
        if allowed(self.member.role) { Ok(()) } else { Err(Trouble::Forbidden) }
    }

    /// Their other workspaces.
    pub(super) fn others(&self) -> impl Iterator<Item = &(String, String)> {
        self.person.workspaces.iter().filter(|(slug, _)| *slug != self.member.workspace.slug)
    }
}

impl FromRequestParts<Web> for Here {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Trouble> {
        let SignedIn { session, person } = SignedIn::from_request_parts(parts, web).await?;
        let path = RawPathParams::from_request_parts(parts, web).await.map_err(|_| Trouble::NotFound)?;
        let slug = path.iter().find(|(name, _)| *name == "workspace").map(|(_, slug)| slug);
        let slug = slug.filter(|slug| slug.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        let member = web.0.store.session_member(session.digest(), slug.ok_or(Trouble::NotFound)?).await?;
        let member = member.ok_or(Trouble::NotFound)?;
        let under_way = web.0.access.enter(&member.tenancy).ok_or(Trouble::Busy(1))?;
        let request = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        let address = parts.extensions.get::<Peer>().map(|peer| peer.0);
        let now = web.0.store.now();
        Ok(Self { person, member, address, now, request, _under_way: under_way })
    }
}

/// By which name and port this page was asked for.
pub(super) struct FoundAt(pub(super) String);

impl<S: Sync> FromRequestParts<S> for FoundAt {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        // HTTP/2 may leave `Host` to the URI.
        let host = host.or_else(|| parts.uri.authority().map(Authority::as_str));
        Ok(Self(host.unwrap_or("localhost").to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[tokio::test]
    async fn a_page_is_found_by_its_host_or_by_the_authority_of_http_2() {
        for (uri, host, expected) in [
            ("/", Some("mcp.example:8080"), "mcp.example:8080"),
            ("http://mcp.internal:8080/", None, "mcp.internal:8080"),
            ("http://other/", Some("mcp.example"), "mcp.example"),
            ("/", None, "localhost"),
        ] {
            let request =
                host.into_iter().fold(Request::get(uri), |request, host| request.header(HOST, host));
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            let Ok(FoundAt(found)) = FoundAt::from_request_parts(&mut parts, &()).await;
            assert_eq!(found, expected, "{uri} {host:?}");
        }
    }
}
