//! Whether somebody whom we know asks over a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Extensions;

/// Whether a live token or session was recognised: by a request, and by any of its connection. Among the extensions of the
/// request, and not of its answer: one that waits for a run is known long before it is answered.
#[derive(Clone, Debug, Default)]
pub struct Known {
    connection: Arc<AtomicBool>,
    request: Arc<AtomicBool>,
}

impl Known {
    /// Of one more request over the same connection.
    pub fn one_more(&self) -> Self {
        Self { connection: Arc::clone(&self.connection), request: Arc::default() }
    }

    /// Whether one was, by any request of the connection; such a connection makes room last while it is idle.
    pub fn ever(&self) -> bool {
        self.connection.load(Ordering::Relaxed)
    }

    /// Whether one was by this request, which is not cut off then.
    pub fn now(&self) -> bool {
        self.request.load(Ordering::Relaxed)
    }

    /// One is, by a request with these extensions.
    pub fn note(extensions: &Extensions) {
        if let Some(Self { connection, request }) = extensions.get() {
            connection.store(true, Ordering::Relaxed);
            request.store(true, Ordering::Relaxed);
        }
    }
}
