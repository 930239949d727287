//! What the handlers of a serving process reach.

use std::sync::Arc;

use axum::extract::FromRef;

use crate::middleware::Teller;
use crate::service::access::Access;

/// What the handlers of a serving process reach.
#[derive(Clone)]
pub(super) struct AppState {
    /// Recognises callers.
    pub access: Access,
    /// Tells the operator of answers.
    pub teller: Arc<Teller>,
}

impl FromRef<AppState> for Access {
    fn from_ref(state: &AppState) -> Self {
        state.access.clone()
    }
}
