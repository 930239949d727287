//! Where the time comes from.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

/// The time as everything here sees it. Cheap to clone; clones share their setting.
///
/// A ticking clock asks the system what time it is once and then counts what passes, so that a jump of the
/// system's clock moves no lease and hides no run. A process sets it after the database's clock (no statement
/// calls `now()`), a demonstration to a chosen moment. A fixed clock stands still until [`Clock::advance`], for
/// tests.
#[derive(Clone, Debug)]
pub struct Clock {
    kind: Kind,
    /// In microseconds, when a ticking clock began to count, or where a fixed one stands.
    micros: Arc<AtomicI64>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ticking { since: Instant },
    Fixed,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        let kind = Kind::Ticking { since: Instant::now() };
        Self { kind, micros: Arc::new(AtomicI64::new(system_micros())) }
    }

    /// A clock that reads `start` now and ticks on.
    pub fn starting_at(start: DateTime<Utc>) -> Self {
        let clock = Self::system();
        clock.set(start);
        clock
    }

    /// A clock that stands at `moment` until advanced.
    pub fn fixed(moment: DateTime<Utc>) -> Self {
        Self { kind: Kind::Fixed, micros: Arc::new(AtomicI64::new(moment.timestamp_micros())) }
    }

    /// The time now, to the microsecond (which is what PostgreSQL keeps).
    pub fn now(&self) -> DateTime<Utc> {
        let micros = self.micros.load(Ordering::Relaxed);
        let micros = micros + self.passed();
        DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// Makes the clock read `moment` now.
    pub fn set(&self, moment: DateTime<Utc>) {
        self.micros.store(moment.timestamp_micros() - self.passed(), Ordering::Relaxed);
    }

    /// Moves the clock forward by `by`.
    pub fn advance(&self, by: TimeDelta) {
        self.micros.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::Relaxed);
    }

    /// Microseconds since it began to count.
    fn passed(&self) -> i64 {
        match self.kind {
            Kind::Ticking { since } => i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX),
            Kind::Fixed => 0,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
fn system_micros() -> i64 {
    Utc::now().timestamp_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_moves_only_when_told() {
        let start = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let clock = Clock::fixed(start);
        assert_eq!(clock.now(), start);
        clock.clone().advance(TimeDelta::seconds(5));
        assert_eq!(clock.now(), start + TimeDelta::seconds(5));
    }

    #[test]
    fn a_ticking_clock_starts_where_it_is_set() {
        let start = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let clock = Clock::starting_at(start);
        let read = clock.now();
        assert!(read >= start && read < start + TimeDelta::minutes(1));
    }
}
