//! What the operator hears of every answer: a count, a time, and for a refusal one line that says why.

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use metrics::{Counter, Histogram, counter, histogram};

use super::peer::Peer;
use crate::observe::Refusals;
use crate::protocol::http::Refused;
use crate::service::access::network;

/// The statuses that are counted each; all others together.
const STATUSES: [u16; 17] =
    [200, 202, 204, 303, 400, 401, 403, 404, 405, 406, 408, 413, 415, 422, 429, 500, 503];

/// Tells the operator of answers.
pub struct Teller {
    refusals: Refusals,
    answers: Vec<(u16, Counter)>,
    others: Counter,
    seconds: Histogram,
}

impl Teller {
    /// One that counts refusals along with `refusals`.
    pub fn new(refusals: Refusals) -> Self {
        let counter = |status: String| counter!("apixx_http_requests_total", "status" => status);
        Self {
            refusals,
            answers: STATUSES.iter().map(|status| (*status, counter(status.to_string()))).collect(),
            others: counter("other".to_owned()),
            seconds: histogram!("apixx_http_request_seconds"),
        }
    }

    fn answered(&self, status: StatusCode) {
        let known = self.answers.iter().find(|(known, _)| *known == status.as_u16());
        known.map_or(&self.others, |(_, counter)| counter).increment(1);
    }

    /// Tells the operator of an answer to a request of `peer` that took so long.
    pub(super) fn tell(&self, response: &Response, took: Duration, peer: Option<Peer>) {
        let status = response.status();
        self.seconds.record(took);
        self.answered(status);
        if let Some(Refused { cause, detail }) = response.extensions().get::<Refused>() {
            let who = peer.map(|peer| network(peer.0).to_string()).unwrap_or_default();
            self.refusals.refused(cause, &who, || {
                let peer = peer.map(|peer| tracing::field::display(peer.0));
                tracing::info!(status = status.as_u16(), cause, detail = detail.as_deref(), peer, "refused");
            });
        }
    }
}
