//! Whose runs are claimed next: the customers of the queue take turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The customer that this process last claimed a run of; its next claim begins with the one after. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimTurn(Arc<Mutex<String>>);

impl ClaimTurn {
    /// After whom the next claim begins; nobody at first.
    pub(super) fn after(&self) -> String {
        self.last().clone()
    }

    /// A claim that began after [`ClaimTurn::after`] took runs of these. Claims go upwards from there, then on from the
    /// first customer up to it.
    pub(super) fn went_to<'a>(&self, customers: impl Iterator<Item = &'a str>) {
        let mut last = self.last();
        if let Some(customer) = customers.max_by_key(|customer| (*customer <= last.as_str(), *customer)) {
            *last = customer.to_owned();
        }
    }

    fn last(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_goes_on_behind_the_last_one_and_around() {
        let turn = ClaimTurn::default();
        let table: [(&[&str], &str); 5] =
            [(&["b", "a"], "b"), (&["d", "c"], "d"), (&["a", "e"], "a"), (&[], "a"), (&["a"], "a")];
        for (claimed, after) in table {
            turn.went_to(claimed.iter().copied());
            assert_eq!(turn.after(), after, "{claimed:?}");
        }
    }
}
