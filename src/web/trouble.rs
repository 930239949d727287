//! What goes wrong on a page, and what its reader is told.

use askama::Template;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::protocol::http::Refused;
use crate::service::people::NotSignedIn;
use crate::service::rate_limit::seconds;
use crate::store::StoreError;

/// Why a page is not shown.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nobody is signed in; where they wanted to go.
    SignIn(String),
    /// There is no such page, or not for this person.
    NotFound,
    /// The form is not one of our pages'.
    Stranger,
    /// Their role does not allow it.
    Forbidden,
    /// The database is away.
    Later,
    /// The workspace or its reader asks too much; seconds to wait.
    Busy(u64),
    /// There is more to do than can be done now.
    Overloaded,
    /// What was sent is nothing that a page of ours sends.
    Unreadable,
    /// What was sent is more than any page of ours sends.
    TooLarge,
    /// What was sent did not arrive in time.
    TooSlow,
    /// A mistake of ours; it stands in the log.
    Ours,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotLive => Self::SignIn(String::new()),
            error if error.is_transient() => {
                tracing::warn!("a page is not shown: {error}");
                Self::Later
            }
            error => {
                tracing::error!(?error, "a page is not shown");
                Self::Ours
            }
        }
    }
}

impl From<NotSignedIn> for Trouble {
    fn from(refused: NotSignedIn) -> Self {
        match refused {
            NotSignedIn::Failed(error) => error.into(),
            NotSignedIn::Busy => Self::Overloaded,
            NotSignedIn::TooMany(wait) => Self::Busy(seconds(wait)),
            NotSignedIn::Wrong => Self::NotFound,
        }
    }
}

#[derive(Template)]
#[template(path = "trouble.html", config = "src/web/askama.toml")]
struct Page {
    title: &'static str,
    advice: &'static str,
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let wait = if let Self::Busy(wait) = self { wait } else { 1 };
        let (status, cause, title, advice) = match self {
            Self::SignIn(next) if next.is_empty() => return Redirect::to("/sign-in").into_response(),
            Self::SignIn(next) => {
                let next = utf8_percent_encode(&next, NON_ALPHANUMERIC);
                return Redirect::to(&format!("/sign-in?next={next}")).into_response();
            }
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "path",
                "There is nothing here",
                "The page does not exist, or not for you. Somebody of the workspace may have to invite you.",
            ),
            Self::Stranger => (
                StatusCode::FORBIDDEN,
                "cross_site",
                "That did not come from here",
                "Another site sent this form, or a proxy on the way changes Host and Origin. Nothing was done.",
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "role",
                "That is not yours to do",
                "Your role in this workspace does not allow it. Ask an owner or admin.",
            ),
            Self::Later => (
                StatusCode::SERVICE_UNAVAILABLE,
                "database",
                "Not now",
                "The database does not answer. Load the page again in a moment; what you sent may have been done or not.",
            ),
            Self::Busy(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "pages_limit",
                "Too much at once",
                "You, or others of the workspace, ask for more than can be done now. Wait a moment, then try again.",
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "Too much at once",
                "More people ask than can be answered just now. Wait a moment, then try again.",
            ),
            Self::Unreadable => (
                StatusCode::BAD_REQUEST,
                "form",
                "That could not be read",
                "The address or the form is not as our pages send it. Nothing was done; go back, load the page again and send it anew.",
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "That is too much",
                "No form of our pages is that long. Nothing was done; go back and send less.",
            ),
            Self::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "body_too_slow",
                "That took too long",
                "What you sent did not arrive in time. Nothing was done; go back and send it again.",
            ),
            Self::Ours => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something broke on our side",
                "It was written down with the id in the header X-Request-Id. Try again, and tell the operator if it stays.",
            ),
        };
        let text = Page { title, advice }.render().unwrap_or_else(|_| title.to_owned());
        let mut response = (status, Html(text)).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(RETRY_AFTER, wait.into());
        }
        response.extensions_mut().insert(Refused::because(cause));
        response
    }
}
