//! Where the time comes from.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// The time as everything here sees it. Cheap to clone; clones share their setting.
///
/// A ticking clock is the system's clock plus an offset, so that a process can follow the database's
/// clock (no statement calls `now()`), or a demonstration can start at a chosen moment.
/// A fixed clock stands still until [`Clock::advance`], for tests.
#[derive(Clone, Debug)]
pub struct Clock {
    kind: Kind,
    /// Microseconds: the offset of a ticking clock, or the moment of a fixed one.
    micros: Arc<AtomicI64>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ticking,
    Fixed,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self { kind: Kind::Ticking, micros: Arc::new(AtomicI64::new(0)) }
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
        let micros = match self.kind {
            Kind::Ticking => system_micros() + micros,
            Kind::Fixed => micros,
        };
        DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// Makes the clock read `moment` now.
    pub fn set(&self, moment: DateTime<Utc>) {
        let micros = match self.kind {
            Kind::Ticking => moment.timestamp_micros() - system_micros(),
            Kind::Fixed => moment.timestamp_micros(),
        };
        self.micros.store(micros, Ordering::Relaxed);
    }

    /// Moves the clock forward by `by`.
    pub fn advance(&self, by: TimeDelta) {
        self.micros.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::Relaxed);
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
