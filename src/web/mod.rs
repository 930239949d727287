//! The pages: where a person signs in, makes tokens and connects a client. Written on the server; they work without a
//! script, and nothing is loaded from elsewhere.

mod ask;
mod assets;
mod audit;
mod chart;
mod connect;
mod connectors;
mod flows;
mod forms;
mod guard;
mod new_token;
mod overview;
mod runs;
mod sign_in;
mod tokens;
mod trouble;
mod try_it;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use chrono::{DateTime, Utc};
use http::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};
use metrics::Gauge;
use tokio_util::sync::CancellationToken;
use tower_http::csrf::CsrfLayer;

use crate::config::ServerConfig;
use crate::protocol::http::Refused;
use crate::service::Serving;
use crate::service::access::Access;
use crate::service::people::People;
use crate::service::watch::Waits;
use crate::store::Store;
use crate::store::people::Member;
use crate::tools::ToolServer;
use crate::view::text;
use guard::{FoundAt, Here, SignedIn};
use trouble::Trouble;

/// What the pages may load and do: our style and script, our own forms, nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'",
);

/// What the pages reach.
#[derive(Clone)]
pub struct Web(Arc<Shared>);

struct Shared {
    store: Store,
    people: People,
    access: Access,
    /// Streams that pages listen to.
    streams: Waits,
    tools: Arc<ToolServer>,
    /// Fires when the server stops.
    stopping: CancellationToken,
    /// Where clients find `/mcp`; the pages' own address stands in its place when nobody said.
    public_base: Option<String>,
    /// Whether browsers come over TLS.
    only_tls: bool,
    costs: Vec<new_token::ToolCost>,
}

impl Web {
    /// The pages over what all calls share and `tools`, on a server as `config` says.
    pub fn new(serving: &Serving, access: Access, tools: Arc<ToolServer>, config: &ServerConfig) -> Self {
        let store = serving.store.clone();
        Self(Arc::new(Shared {
            access,
            streams: Waits::new(Gauge::noop()),
            costs: new_token::costs(tools.catalog()),
            tools,
            stopping: serving.stopping.clone(),
            people: People::new(store.clone()),
            store,
            public_base: serving.public_base.clone(),
            only_tls: config.only_tls(),
        }))
    }

    /// Where clients find the server: what the operator said, or where this page was found.
    fn mcp_url(&self, found_at: &FoundAt) -> String {
        let found = || format!("http://{}", found_at.0);
        format!("{}/mcp", self.0.public_base.clone().unwrap_or_else(found))
    }
}

/// Every page; what it is sent has `body_timeout` to arrive.
pub fn router<S>(web: Web, body_timeout: Duration) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/", get(home))
        .route("/sign-in", get(sign_in::form).post(sign_in::sign_in))
        .route("/enter/{link}", get(sign_in::door).post(sign_in::come_in))
        .route("/password/{link}", get(sign_in::password_form).post(sign_in::choose_password))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/w/{workspace}", get(overview::overview))
        .route("/w/{workspace}/flows", get(flows::list))
        .route("/w/{workspace}/flows/{flow}", get(flows::one).post(flows::decide))
        .route("/w/{workspace}/runs/{run}", get(runs::one))
        .route("/w/{workspace}/runs/{run}/cancel", post(runs::cancel))
        .route("/w/{workspace}/runs/{run}/events", get(runs::events))
        .route("/w/{workspace}/connectors", get(connectors::list))
        .route("/w/{workspace}/usage", get(usage::page_of))
        .route("/w/{workspace}/audit", get(audit::list))
        .route("/w/{workspace}/try", get(try_it::form).post(try_it::call))
        .route("/w/{workspace}/settings/mcp", get(tokens::list).post(new_token::create))
        .route("/w/{workspace}/settings/mcp/new", get(new_token::form))
        .route("/w/{workspace}/settings/mcp/{token}/revoke", get(tokens::confirm).post(tokens::revoke))
        .route("/w/{workspace}/settings/mcp/{token}/seen", get(tokens::seen))
        .route("/w/{workspace}/settings/connect", get(connect::page_of))
        .layer(from_fn_with_state(body_timeout, forms::whole))
        .layer(CsrfLayer::new().with_rejection_response(|_| Trouble::Stranger.into_response()))
        .layer(map_response(guarded))
        .route("/assets/{version}/{name}", get(assets::serve))
        .with_state(web)
}

/// What a page's answer carries beside what every answer does. Refusals that are not ours (of a form, a query, a method)
/// are told in our words, and each has its cause for the log.
async fn guarded(mut response: Response) -> Response {
    if response.status().is_client_error() && response.extensions().get::<Refused>().is_none() {
        let is_page = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        if is_page {
            response.extensions_mut().insert(Refused::because("form"));
        } else {
            let mut page = Trouble::Unreadable.into_response();
            *page.status_mut() = response.status();
            page.headers_mut().extend(response.headers_mut().remove(ALLOW).map(|allowed| (ALLOW, allowed)));
            response = page;
        }
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    // Not `no-referrer`: a form would then be sent from nowhere (Origin: null), which is what strangers' forms are.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// What the head of every page of a workspace shows.
struct Frame {
    /// Which page this is.
    at: &'static str,
    member: Member,
    others: Vec<(String, String)>,
    now: DateTime<Utc>,
}

impl Frame {
    fn new(here: &Here, at: &'static str) -> Self {
        Self { at, member: here.member.clone(), others: here.others().cloned().collect(), now: here.now }
    }

    /// A moment as people of the workspace read it, with its age.
    fn moment(&self, at: &DateTime<Utc>) -> String {
        text::moment_and_age(*at, self.now, self.member.workspace.zone)
    }

    /// A count with separators.
    fn count(&self, number: &i64) -> String {
        text::count(*number)
    }

    fn slug(&self) -> &str {
        &self.member.workspace.slug
    }

    fn workspace(&self) -> &str {
        &self.member.workspace.name
    }

    fn name(&self) -> &str {
        &self.member.name
    }

    fn email(&self) -> &str {
        &self.member.email
    }

    fn role(&self) -> &'static str {
        self.member.role.as_str()
    }
}

/// To the first workspace.
async fn home(signed_in: SignedIn) -> Response {
    match signed_in.person.workspaces.first() {
        Some((slug, _)) => Redirect::to(&format!("/w/{slug}")).into_response(),
        None => Trouble::NotFound.into_response(),
    }
}

/// A page as an answer.
fn page(template: &impl Template) -> Result<Response, Trouble> {
    with_status(StatusCode::OK, template)
}

fn with_status(status: StatusCode, template: &impl Template) -> Result<Response, Trouble> {
    let text = template.render().map_err(|error| {
        tracing::error!(?error, "a page cannot be written");
        Trouble::Ours
    })?;
    Ok((status, Html(text)).into_response())
}
