//! One line in the log for each refused request, and one for all the rest when there are too many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use metrics::Counter;

use crate::domain::clock::Clock;

/// Refusals of one cause that are told one by one within a second.
const TOLD: u64 = 5;

/// Counts refusals by cause, and keeps a flood of them from flooding the log. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Refusals {
    clock: Clock,
    seen: Arc<Mutex<HashMap<&'static str, Seen>>>,
}

/// The refusals of one cause within a second.
struct Seen {
    counter: Counter,
    since: DateTime<Utc>,
    count: u64,
}

impl Refusals {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, seen: Arc::default() }
    }

    /// A request was refused for `cause`, a word of a closed vocabulary; `tell` writes its line, unless there were
    /// too many of its kind within the second.
    pub fn refused(&self, cause: &'static str, tell: impl FnOnce()) {
        let now = self.clock.now();
        let (count, untold) = {
            let mut all = self.seen();
            let seen = all.entry(cause).or_insert_with(|| Seen {
                counter: metrics::counter!("apixx_refusals_total", "cause" => cause),
                since: now,
                count: 0,
            });
            seen.counter.increment(1);
            let untold = seen.turn(now);
            seen.count += 1;
            (seen.count, untold)
        };
        more(cause, untold);
        if count <= TOLD {
            tell();
        }
    }

    /// Tells how many were not told, once their second is over. Once a second.
    pub fn catch_up(&self) {
        let now = self.clock.now();
        let untold: Vec<_> = self.seen().iter_mut().map(|(cause, seen)| (*cause, seen.turn(now))).collect();
        for (cause, untold) in untold {
            more(cause, untold);
        }
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<&'static str, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Begins a new second if the last is over; how many of that were not told.
    fn turn(&mut self, now: DateTime<Utc>) -> u64 {
        // A clock that was set back ends a second, too.
        if (TimeDelta::zero()..TimeDelta::seconds(1)).contains(&(now - self.since)) {
            return 0;
        }
        self.since = now;
        std::mem::take(&mut self.count).saturating_sub(TOLD)
    }
}

fn more(cause: &'static str, untold: u64) {
    if untold > 0 {
        tracing::info!(cause, more = untold, "refused, and {untold} more like these");
    }
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refusals")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_flood_is_told_by_its_first_lines_and_a_sum() {
        let clock = Clock::fixed(DateTime::UNIX_EPOCH);
        let refusals = Refusals::new(clock.clone());
        let told = Cell::new(0);
        let flood = |times| (0..times).for_each(|_| refusals.refused("host", || told.set(told.get() + 1)));
        flood(100);
        refusals.refused("origin", || told.set(told.get() + 1));
        assert_eq!(told.get(), TOLD + 1, "each cause has lines of its own");
        let untold = || refusals.seen().get_mut("host").unwrap().turn(clock.now());
        assert_eq!(untold(), 0, "the second is not over");
        clock.advance(TimeDelta::seconds(1));
        assert_eq!(untold(), 95);
        assert_eq!(untold(), 0, "told once");
        flood(1);
        assert_eq!(told.get(), TOLD + 2);
        clock.advance(TimeDelta::seconds(-60));
        flood(1);
        assert_eq!(told.get(), TOLD + 3);
    }
}
