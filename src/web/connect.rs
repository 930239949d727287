//! How a client is connected, with or without a token just made.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::guard::{FoundAt, Here};
use super::trouble::Trouble;
use super::{Frame, Web, page};
use crate::domain::token::PlainToken;
use crate::view::clients::{Client, clients};

/// What stands where a token goes.
const A_TOKEN: &str = "mcp_…";

#[derive(Template)]
#[template(path = "connect.html", config = "src/web/askama.toml")]
struct ConnectPage {
    here: Frame,
    manages: bool,
    made: Option<Made>,
    token: String,
    url: String,
    clients: Vec<Client>,
}

/// A token just made.
pub(super) struct Made {
    pub(super) id: String,
    pub(super) name: String,
}

pub(super) async fn page_of(
    State(web): State<Web>,
    here: Here,
    found_at: FoundAt,
) -> Result<Response, Trouble> {
    show(&web, &here, &found_at, None)
}

/// The page, filled in with a token if one was just made: the only time that it is shown.
pub(super) fn show(
    web: &Web,
    here: &Here,
    found_at: &FoundAt,
    made: Option<(Made, &PlainToken)>,
) -> Result<Response, Trouble> {
    let url = web.mcp_url(found_at);
    let token = made.as_ref().map_or(A_TOKEN, |(_, token)| token.reveal());
    page(&ConnectPage {
        here: Frame::new(here, "connect"),
        manages: here.member.role.manages_tokens(),
        clients: clients(&url, token),
        token: token.to_owned(),
        url,
        made: made.map(|(made, _)| made),
    })
}
