//! What the handlers of a serving process reach.

use axum::extract::FromRef;

use crate::service::access::Access;
use crate::store::Store;

/// What the handlers of a serving process reach.
#[derive(Clone, Debug)]
pub(super) struct AppState {
    /// Recognises callers.
    pub access: Access,
    /// The database.
    pub store: Store,
}

impl FromRef<AppState> for Access {
    fn from_ref(state: &AppState) -> Self {
        state.access.clone()
    }
}
