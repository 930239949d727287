//! One line in the log for each refused request, and one for all the rest of a kind when there are too many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use metrics::Counter;

use crate::domain::clock::Clock;

/// Refusals of one cause and one party that are told one by one within a second.
const TOLD: u64 = 5;
/// Parties that are told of for one cause within a second: so many times [`TOLD`] lines has a flood at most, whoever
/// joins in it, and it hides no other cause.
const PARTIES: usize = 10;

/// Counts refusals by cause and party, and keeps a flood of them from flooding the log, or from hiding why somebody
/// else was refused. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Refusals {
    clock: Clock,
    seen: Arc<Mutex<HashMap<&'static str, Seen>>>,
}

/// The refusals of one cause within a second.
struct Seen {
    counter: Counter,
    since: DateTime<Utc>,
    /// By party, of the first [`PARTIES`].
    counts: HashMap<String, u64>,
    /// Of all others.
    others: u64,
}

/// Whose refusals were not told, and how many they were.
type Untold = Vec<(String, u64)>;

impl Refusals {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, seen: Arc::default() }
    }

    /// A request of `who`, a customer's id or an address, was refused for `cause`, a word of a closed vocabulary; `tell`
    /// writes its line, unless there were too many of its kind within the second.
    pub fn refused(&self, cause: &'static str, who: &str, tell: impl FnOnce()) {
        let now = self.clock.now();
        let (told, untold) = {
            let mut all = self.seen();
            let seen = all.entry(cause).or_insert_with(|| Seen {
                counter: metrics::counter!("apixx_refusals_total", "cause" => cause),
                since: now,
                counts: HashMap::new(),
                others: 0,
            });
            seen.counter.increment(1);
            let untold = seen.turn(now);
            (seen.count(who), untold)
        };
        more(cause, untold);
        if told {
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
    /// Counts one of `who`; whether it is told.
    fn count(&mut self, who: &str) -> bool {
        if let Some(count) = self.counts.get_mut(who) {
            *count += 1;
            return *count <= TOLD;
        }
        let room = self.counts.len() < PARTIES;
        if room {
            self.counts.insert(who.to_owned(), 1);
        } else {
            self.others += 1;
        }
        room
    }

    /// Begins a new second if the last is over; what of that was not told.
    fn turn(&mut self, now: DateTime<Utc>) -> Untold {
        // A clock that was set back ends a second, too.
        if (TimeDelta::zero()..TimeDelta::seconds(1)).contains(&(now - self.since)) {
            return vec![];
        }
        self.since = now;
        let known = self.counts.drain().map(|(who, count)| (who, count.saturating_sub(TOLD)));
        let others = ("others".to_owned(), std::mem::take(&mut self.others));
        known.chain([others]).filter(|(_, untold)| *untold > 0).collect()
    }
}

fn more(cause: &'static str, untold: Untold) {
    for (who, untold) in untold {
        tracing::info!(cause, who, more = untold, "refused, and {untold} more like these");
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
        let tell = || told.set(told.get() + 1);
        let flood = |times| (0..times).for_each(|_| refusals.refused("host", "cus_a", tell));
        flood(200);
        refusals.refused("origin", "cus_a", tell);
        assert_eq!(told.get(), TOLD + 1, "each cause has lines of its own");
        refusals.refused("host", "cus_b", tell);
        assert_eq!(told.get(), TOLD + 2, "so has each party");
        let untold = || refusals.seen().get_mut("host").unwrap().turn(clock.now());
        assert_eq!(untold(), [], "the second is not over");
        clock.advance(TimeDelta::seconds(1));
        assert_eq!(untold(), [("cus_a".to_owned(), 195)]);
        assert_eq!(untold(), [], "told once");
        flood(1);
        assert_eq!(told.get(), TOLD + 3);
        clock.advance(TimeDelta::seconds(-60));
        flood(1);
        assert_eq!(told.get(), TOLD + 4);
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_and_hides_no_other_cause() {
        let clock = Clock::fixed(DateTime::UNIX_EPOCH);
        let refusals = Refusals::new(clock.clone());
        let told = Cell::new(0);
        let tell = || told.set(told.get() + 1);
        for party in 0..1_000 {
            (0..10).for_each(|_| refusals.refused("no_token", &party.to_string(), tell));
        }
        assert_eq!(told.get(), TOLD * PARTIES as u64);
        assert_eq!(refusals.seen()["no_token"].counts.len(), PARTIES, "what is kept is bounded");
        refusals.refused("rate_limit", "cus_b", tell);
        assert_eq!(told.get(), TOLD * PARTIES as u64 + 1);
        clock.advance(TimeDelta::seconds(1));
        let untold = refusals.seen().get_mut("no_token").unwrap().turn(clock.now());
        assert_eq!(untold.len(), PARTIES + 1, "so are the sums");
        assert_eq!(untold.iter().map(|(_, more)| more).sum::<u64>() + TOLD * PARTIES as u64, 10_000);
    }
}
