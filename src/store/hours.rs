//! What roll-ups know of a window, and what is left to the runs themselves.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

use crate::domain::run::open_window;
use crate::domain::window::Window;

/// The whole hours and days (UTC) inside a window, and its end with the open runs in or out. What has ended in a
/// window that reaches now ends with whole hours and days: nothing comes after now.
pub(super) struct Hours {
    pub(super) whole_from: DateTime<Utc>,
    pub(super) whole_to: DateTime<Utc>,
    pub(super) days_from: DateTime<Utc>,
    pub(super) days_to: DateTime<Utc>,
    pub(super) end: DateTime<Utc>,
}

impl Hours {
    pub(super) fn of(window: &Window) -> Self {
        let (hour, day) = (TimeDelta::hours(1), TimeDelta::days(1));
        let floor = |moment: DateTime<Utc>, unit| moment.duration_trunc(unit).unwrap_or(moment);
        let ceiling = |moment, unit| match floor(moment, unit) {
            floor if floor == moment => floor,
            floor => floor + unit,
        };
        let last = if window.reaches_now { open_window() } else { window.until };
        let (from, to) = (ceiling(window.since, hour), floor(last, hour));
        // A window inside one hour is all cut: [since, until) and nothing else; likewise with days.
        let (whole_from, whole_to) = if from >= to { (last, last) } else { (from, to) };
        let (from, to) = (ceiling(whole_from, day), floor(whole_to, day));
        let (days_from, days_to) = if from >= to { (whole_to, whole_to) } else { (from, to) };
        let end = if window.reaches_now { open_window() + hour } else { window.until };
        Self { whole_from, whole_to, days_from, days_to, end }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    fn hours(since: &str, until: &str, reaches_now: bool) -> Hours {
        let (since, until) = (since.parse().unwrap(), until.parse().unwrap());
        Hours::of(&Window { since, until, label: None, reaches_now })
    }

    #[test]
    fn a_window_is_whole_hours_and_two_cut_ones() {
        let day = hours("2026-11-20T08:07:00Z", "2026-11-21T08:07:00Z", false);
        assert_eq!(day.whole_from.to_rfc3339(), "2026-11-20T09:00:00+00:00");
        assert_eq!(day.whole_to.to_rfc3339(), "2026-11-21T08:00:00+00:00");
        let inside = hours("2026-11-21T08:07:00Z", "2026-11-21T08:37:00Z", false);
        assert_eq!((inside.whole_from, inside.whole_to), (inside.end, inside.end));
        let even = hours("2026-11-20T08:00:00Z", "2026-11-20T09:00:00Z", false);
        assert_eq!(even.whole_from.to_rfc3339(), "2026-11-20T08:00:00+00:00");
        assert_eq!(even.whole_to, even.end);
        let across = hours("2026-11-20T08:30:00Z", "2026-11-20T09:30:00Z", false);
        assert!(across.whole_from >= across.whole_to || across.whole_from == across.end);
    }

    #[test]
    fn whole_days_lie_inside_the_hours() {
        let week = hours("2026-11-14T08:07:00Z", "2026-11-21T08:07:00Z", false);
        assert_eq!(week.days_from.to_rfc3339(), "2026-11-15T00:00:00+00:00");
        assert_eq!(week.days_to.to_rfc3339(), "2026-11-21T00:00:00+00:00");
        let short = hours("2026-11-21T02:00:00Z", "2026-11-21T08:00:00Z", false);
        assert_eq!((short.days_from, short.days_to), (short.whole_to, short.whole_to));
    }

    #[test]
    fn a_window_that_reaches_now_is_cut_at_its_beginning_only() {
        let week = hours("2026-11-14T08:07:00Z", "2026-11-21T08:07:00Z", true);
        assert_eq!(week.whole_from.to_rfc3339(), "2026-11-14T09:00:00+00:00");
        assert_eq!(week.days_from.to_rfc3339(), "2026-11-15T00:00:00+00:00");
        assert_eq!((week.whole_to, week.days_to), (open_window(), open_window()));
        assert!(week.end > open_window(), "open runs belong to it");
    }
}
