//! Signing in and out, and the links that an operator prints.

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::trouble::Trouble;
use super::{Web, page, with_status};
use crate::domain::token::Secret;
use crate::middleware::Peer;
use crate::protocol::http::Refused;
use crate::service::people::{NotSignedIn, PASSWORD_CHARS};
use crate::service::rate_limit::seconds;

/// Bytes of what a form brings that its page says again, at most: where to go on, and an address.
const LONGEST: usize = 500;

#[derive(Template)]
#[template(path = "sign_in.html", config = "src/web/askama.toml")]
struct SignInPage<'a> {
    problem: Option<String>,
    email: &'a str,
    next: &'a str,
}

#[derive(Template)]
#[template(path = "door.html", config = "src/web/askama.toml")]
struct DoorPage<'a> {
    link: &'a str,
}

#[derive(Template)]
#[template(path = "password.html", config = "src/web/askama.toml")]
struct PasswordPage<'a> {
    problem: Option<String>,
    email: &'a str,
    link: &'a str,
    least: usize,
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct Credentials {
    email: String,
    password: String,
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct NewPassword {
    password: String,
    again: String,
}

#[derive(Deserialize)]
pub(super) struct Leaving {
    everywhere: Option<String>,
}

pub(super) async fn form(Query(wanted): Query<Wanted>) -> Result<Response, Trouble> {
    page(&SignInPage { problem: None, email: "", next: ours(&wanted.next).unwrap_or_default() })
}

pub(super) async fn sign_in(
    State(web): State<Web>,
    peer: Option<axum::Extension<Peer>>,
    headers: HeaderMap,
    Form(credentials): Form<Credentials>,
) -> Result<Response, Trouble> {
    let address = peer.map(|axum::Extension(Peer(address))| address);
    let Credentials { email, password, next } = credentials;
    let refused = match web.0.people.sign_in(&email, &password, address).await {
        Ok(session) => return enter(&web, &headers, &session, ours(&next).unwrap_or("/")).await,
        Err(NotSignedIn::Failed(error)) => return Err(error.into()),
        Err(refused) => refused,
    };
    let (status, cause, problem) = match &refused {
        NotSignedIn::TooMany(wait) => (
            StatusCode::TOO_MANY_REQUESTS,
            "sign_in_limit",
            format!("Too many attempts. Try again in {} s.", seconds(*wait)),
        ),
        NotSignedIn::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "Too many people sign in just now. Try again in a moment.".to_owned(),
        ),
        _ => (
            StatusCode::UNAUTHORIZED,
            "sign_in",
            "The address or the password is wrong. An operator can print a new link for you.".to_owned(),
        ),
    };
    // What no page of ours would take is not said again.
    let email = if email.len() <= LONGEST { &email } else { "" };
    let shown = SignInPage { problem: Some(problem), email, next: ours(&next).unwrap_or_default() };
    let mut response = with_status(status, &shown)?;
    let wait = match refused {
        NotSignedIn::TooMany(wait) => Some(seconds(wait)),
        NotSignedIn::Busy => Some(1),
        _ => None,
    };
    if let Some(wait) = wait {
        response.headers_mut().insert(RETRY_AFTER, wait.into());
    }
    response.extensions_mut().insert(Refused::because(cause));
    Ok(response)
}

/// A link is used by a click, not by whatever looks at it in advance.
pub(super) async fn door(Path(link): Path<String>) -> Result<Response, Trouble> {
    // What is no link of ours would lead the form elsewhere.
    let link = Secret::parse(&link).ok_or(Trouble::NotFound)?;
    page(&DoorPage { link: link.reveal() })
}

pub(super) async fn come_in(
    State(web): State<Web>,
    headers: HeaderMap,
    Path(link): Path<String>,
) -> Result<Response, Trouble> {
    let link = Secret::parse(&link).ok_or(Trouble::NotFound)?;
    let session = web.0.people.come_in(&link).await?;
    enter(&web, &headers, &session, "/").await
}

pub(super) async fn password_form(
    State(web): State<Web>,
    Path(link): Path<String>,
) -> Result<Response, Trouble> {
    choose(&web, &link, None).await
}

pub(super) async fn choose_password(
    State(web): State<Web>,
    headers: HeaderMap,
    Path(link): Path<String>,
    Form(new): Form<NewPassword>,
) -> Result<Response, Trouble> {
    if new.password != new.again {
        return choose(&web, &link, Some("The two are not the same.".to_owned())).await;
    }
    if !PASSWORD_CHARS.contains(&new.password.chars().count()) {
        let (least, most) = (PASSWORD_CHARS.start(), PASSWORD_CHARS.end());
        return choose(&web, &link, Some(format!("A password has {least} to {most} characters."))).await;
    }
    let link = Secret::parse(&link).ok_or(Trouble::NotFound)?;
    let session = web.0.people.choose_password(&link, &new.password).await?;
    enter(&web, &headers, &session, "/").await
}

async fn choose(web: &Web, link: &str, problem: Option<String>) -> Result<Response, Trouble> {
    let secret = Secret::parse(link).ok_or(Trouble::NotFound)?;
    let email = web.0.people.invited(&secret).await?.ok_or(Trouble::NotFound)?;
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    with_status(
        status,
        &PasswordPage { problem, email: email.as_str(), link, least: *PASSWORD_CHARS.start() },
    )
}

pub(super) async fn sign_out(
    State(web): State<Web>,
    headers: HeaderMap,
    Form(leaving): Form<Leaving>,
) -> Result<Response, Trouble> {
    if let Some(session) = web.session(&headers) {
        web.0.people.sign_out(&session, leaving.everywhere.is_some()).await?;
    }
    Ok(([(SET_COOKIE, web.forget())], Redirect::to("/sign-in")).into_response())
}

/// A session begins: what the browser held before ends, whoever gave it that. Should that fail, the new one is not lost
/// over it: its link is used up.
async fn enter(web: &Web, headers: &HeaderMap, session: &Secret, to: &str) -> Result<Response, Trouble> {
    if let Some(before) = web.session(headers)
        && let Err(error) = web.0.people.sign_out(&before, false).await
    {
        tracing::warn!(?error, "the session before is not ended");
    }
    Ok(([(SET_COOKIE, web.keep(session))], Redirect::to(to)).into_response())
}

/// Where to go on, if that is a page of ours: nobody is sent elsewhere by a link to us. Nor is what anybody says kept
/// for long: it is told to them again, some bytes as five.
pub(super) fn ours(next: &str) -> Option<&str> {
    let path = next.starts_with("/w/") && next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    Some(next).filter(|next| path && next.len() <= LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        assert_eq!(ours("/w/acme/settings/mcp"), Some("/w/acme/settings/mcp"));
        let long = format!("/w/{}", "x".repeat(LONGEST));
        for bad in [
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/w/\r\nx",
            "javascript:1",
            "",
            &long,
        ] {
            assert_eq!(ours(bad), None, "{bad}");
        }
    }
}
