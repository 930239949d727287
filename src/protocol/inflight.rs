//! Which legacy calls are under way in this process, so that `notifications/cancelled` can end them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::jsonrpc::Id;

/// The calls under way, by who called (`Server::caller_key`) and the id of their request.
///
/// The id is the client's to choose, and two clients of one caller may choose alike: then a cancellation reaches
/// both, which the caller can only do to itself.
#[derive(Clone, Debug, Default)]
pub struct Inflight {
    calls: Arc<Mutex<HashMap<Key, Vec<Arc<CancellationToken>>>>>,
}

type Key = (String, Id);

/// A call under way; dropping it takes it off the list.
#[derive(Debug)]
pub struct Underway {
    inflight: Inflight,
    key: Key,
    token: Arc<CancellationToken>,
}

impl Inflight {
    /// Puts a call on the list.
    pub fn begin(&self, caller: String, id: Id) -> Underway {
        let key = (caller, id);
        let token = Arc::new(CancellationToken::new());
        self.lock().entry(key.clone()).or_default().push(Arc::clone(&token));
        Underway { inflight: self.clone(), key, token }
    }

    /// Cancels that caller's call of that id; one that is unknown or over is nothing to worry about.
    pub fn cancel(&self, caller: String, id: Id) {
        for token in self.lock().get(&(caller, id)).into_iter().flatten() {
            token.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Arc<CancellationToken>>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Underway {
    /// Ends when the call is cancelled.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut calls = self.inflight.lock();
        if let Some(tokens) = calls.get_mut(&self.key) {
            tokens.retain(|token| !Arc::ptr_eq(token, &self.token));
            if tokens.is_empty() {
                calls.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Id {
        Id::Signed(1)
    }

    #[test]
    fn a_caller_cancels_only_its_own_call() {
        let inflight = Inflight::default();
        let ours = inflight.begin("a".into(), id());
        let theirs = inflight.begin("b".into(), id());
        inflight.cancel("a".into(), id());
        inflight.cancel("a".into(), Id::Text("1".into()));
        assert!(ours.token.is_cancelled());
        assert!(!theirs.token.is_cancelled());
    }

    #[test]
    fn a_call_that_is_over_leaves_nothing() {
        let inflight = Inflight::default();
        let first = inflight.begin("a".into(), id());
        let second = inflight.begin("a".into(), id());
        drop(first);
        inflight.cancel("a".into(), id());
        assert!(second.token.is_cancelled());
        drop(second);
        assert!(inflight.lock().is_empty());
    }
}
