//! What every request passes on its way in and out, whichever face it is for: one layer, since each of its own would
//! copy all that lie within it for every request.

mod bearer;
mod headers;
mod known;
mod panics;
mod peer;
mod request_id;
mod told;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;
use tracing::Instrument;

use crate::domain::ids::IdSource;
use crate::observe::request_span;

pub use known::Known;
pub use peer::{Peer, TrustedProxies};
pub use told::Teller;

/// What the way in and out depends on.
pub struct Edge {
    /// Where the names of requests come from.
    pub ids: IdSource,
    /// Whether clients come over TLS: then browsers are told to never come otherwise.
    pub only_tls: bool,
    /// Whose word on where a request came from is believed.
    pub proxies: TrustedProxies,
    /// Tells the operator of answers.
    pub teller: Arc<Teller>,
}

/// Names the request, notes where it came from, lets it be served, and tells the operator of its answer, which
/// carries the name and what browsers must know. A panic within is an answer too.
pub async fn pass(State(edge): State<Arc<Edge>>, mut request: Request, next: Next) -> Response {
    let name = request_id::name(&edge.ids, &mut request);
    let span = request_span(&name);
    let peer = edge.proxies.note(&mut request);
    let begun = Instant::now();
    let served = async {
        let response = panics::caught(next.run(request), &name).await;
        edge.teller.tell(&response, begun.elapsed(), peer);
        response
    };
    let mut response = served.instrument(span).await;
    headers::secure(response.headers_mut(), edge.only_tls);
    request_id::carry(&name, response.headers_mut());
    response
}
