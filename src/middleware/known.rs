//! Whether somebody whom we know asks over a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Extensions;

/// Whether a live token or session was ever recognised over a connection; who holds it makes room last. Among the
/// extensions of its requests, and not of their answers: one that waits for a run is known long before it is answered.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<AtomicBool>);

impl Known {
    /// Whether one was.
    pub fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// One is, by a request with these extensions.
    pub fn note(extensions: &Extensions) {
        if let Some(Self(known)) = extensions.get() {
            known.store(true, Ordering::Relaxed);
        }
    }
}
