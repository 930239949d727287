//! When a flow runs by itself.

use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::{Cron, CronComponent};

/// When a flow runs by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Only when triggered.
    Manual,
    /// Five cron fields, read in a zone.
    Cron {
        /// The expression as written.
        expression: String,
        /// The zone its fields are read in.
        zone: Tz,
    },
    /// Every so many seconds, counted from the epoch so that restarts do not shift it.
    Interval {
        /// Seconds between runs, at least [`MIN_INTERVAL_S`].
        seconds: i32,
    },
}

/// Shortest interval of a schedule, in seconds.
pub const MIN_INTERVAL_S: i32 = 10;

words! {
    /// The form of a schedule.
    ScheduleKind {
        /// Only when triggered.
        Manual = "manual",
        /// By cron expression.
        Cron = "cron",
        /// By interval.
        Interval = "interval",
    }
}

/// The text is no schedule; the message says what is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no schedule: write `manual`, `every 15m` or five cron fields such as `0 2 * * *`")]
pub struct NotASchedule {
    text: String,
}

impl Schedule {
    /// Reads `manual`, `every 15m` or five cron fields; `zone` is the one that cron fields are read in.
    ///
    /// # Errors
    /// When the text is none of these, or the interval is shorter than [`MIN_INTERVAL_S`].
    pub fn parse(text: &str, zone: Tz) -> Result<Self, NotASchedule> {
        let wrong = || NotASchedule { text: text.to_owned() };
        let trimmed = text.trim();
        if trimmed == "manual" {
            return Ok(Self::Manual);
        }
        if let Some(every) = trimmed.strip_prefix("every ") {
            let every = every.trim();
            let (digits, unit) =
                every.split_at(every.find(|c: char| !c.is_ascii_digit()).unwrap_or(every.len()));
            let number: i32 = digits.parse().map_err(|_| wrong())?;
            let factor = match unit.trim() {
                "s" | "seconds" => 1,
                "m" | "min" | "minutes" => 60,
                "h" | "hours" => 3_600,
                "d" | "days" => 86_400,
                _ => return Err(wrong()),
            };
            let seconds = number.checked_mul(factor).filter(|s| *s >= MIN_INTERVAL_S).ok_or_else(wrong)?;
            return Ok(Self::Interval { seconds });
        }
        if trimmed.split_whitespace().count() != 5 || Cron::from_str(trimmed).is_err() {
            return Err(wrong());
        }
        Ok(Self::Cron { expression: trimmed.to_owned(), zone })
    }

    /// The form of this schedule.
    pub fn kind(&self) -> ScheduleKind {
        match self {
            Self::Manual => ScheduleKind::Manual,
            Self::Cron { .. } => ScheduleKind::Cron,
            Self::Interval { .. } => ScheduleKind::Interval,
        }
    }

    /// The nominal time of the first run after `moment`; `None` for a manual flow.
    ///
    /// Cron fields that list their hours and minutes (`0 2,14 * * *`) name times of day: one that does not exist in a
    /// night fires at the next valid minute, one that exists twice fires once. Fields that repeat (`*`, `*/15`) name a
    /// rhythm, which goes on through both.
    pub fn next_after(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Manual => None,
            Self::Cron { expression, zone } => {
                let cron = Cron::from_str(expression).ok()?;
                if lists(&cron.pattern.minutes) && lists(&cron.pattern.hours) {
                    return next_time_of_day(&cron, *zone, moment);
                }
                let next = cron.find_next_occurrence(&moment.with_timezone(zone), false).ok()?;
                Some(next.with_timezone(&Utc))
            }
            Self::Interval { seconds } => {
                let seconds = i64::from(*seconds);
                let next = (moment.timestamp().div_euclid(seconds) + 1) * seconds;
                DateTime::from_timestamp(next, 0)
            }
        }
    }

    /// The time between the next two runs after `moment`.
    pub fn period(&self, moment: DateTime<Utc>) -> Option<TimeDelta> {
        let first = self.next_after(moment)?;
        Some(self.next_after(first)? - first)
    }

    /// The schedule in words, e.g. `every 15 min` or `daily at 02:00 Europe/Berlin`.
    pub fn in_words(&self) -> String {
        match self {
            Self::Manual => "manual".to_owned(),
            Self::Interval { seconds } => every(*seconds),
            Self::Cron { expression, zone } => cron_in_words(expression, *zone),
        }
    }
}

/// Whether a field lists some of its values, rather than all of them or each so-manieth.
fn lists(field: &CronComponent) -> bool {
    !field.from_wildcard && field.step == 1 && field.values().len() <= usize::from(field.max - field.min)
}

/// The first time of day after `moment`. croner counts only a single time as one, and lets a list of them go by in a gap
/// and fire twice in a fold; so it is asked for the times that a clock shows, which have neither, and these are looked
/// up in the zone.
fn next_time_of_day(cron: &Cron, zone: Tz, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let mut shown = moment.with_timezone(&zone).naive_local();
    // In the second pass of an hour the clock shows times whose first pass is over: at most an hour's worth.
    loop {
        shown = cron.find_next_occurrence(&shown.and_utc(), false).ok()?.naive_utc();
        let next = first_instant(zone, shown)?;
        if next > moment {
            return Some(next);
        }
    }
}

/// Minutes of the longest gap there ever was: a zone that moved across the date line.
const LONGEST_GAP_MIN: i64 = 25 * 60;

/// When a clock first shows this time or, if it never does, the next that it shows.
fn first_instant(zone: Tz, shown: NaiveDateTime) -> Option<DateTime<Utc>> {
    (0..=LONGEST_GAP_MIN)
        .find_map(|minute| zone.from_local_datetime(&(shown + TimeDelta::minutes(minute))).earliest())
        .map(|instant| instant.with_timezone(&Utc))
}

fn every(seconds: i32) -> String {
    match seconds {
        s if s % 86_400 == 0 => format!("every {} d", s / 86_400),
        s if s % 3_600 == 0 => format!("every {} h", s / 3_600),
        s if s % 60 == 0 => format!("every {} min", s / 60),
        s => format!("every {s} s"),
    }
}

fn cron_in_words(expression: &str, zone: Tz) -> String {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let number = |text: &str| text.parse::<u32>().ok();
    // `*/45` fires at :00 and :45: only a step that divides the whole comes round evenly.
    let step = |text: &str, whole: u32| {
        text.strip_prefix("*/").and_then(number).filter(|by| whole.is_multiple_of(*by))
    };
    match fields.as_slice() {
        ["*", "*", "*", "*", "*"] => "every minute".to_owned(),
        [minute, "*", "*", "*", "*"] if step(minute, 60).is_some() => {
            format!("every {} min", step(minute, 60).unwrap_or(1))
        }
        ["0", "*", "*", "*", "*"] => "hourly".to_owned(),
        [minute, "*", "*", "*", "*"] if number(minute).is_some() => {
            format!("hourly at :{:02}", number(minute).unwrap_or(0))
        }
        ["0", hour, "*", "*", "*"] if step(hour, 24).is_some() => {
            format!("every {} h", step(hour, 24).unwrap_or(1))
        }
        [minute, hour, "*", "*", "*"] if step(hour, 24).is_some() && number(minute).is_some() => {
            format!("every {} h at :{:02}", step(hour, 24).unwrap_or(1), number(minute).unwrap_or(0))
        }
        [minute, hour, "*", "*", "*"] if number(minute).is_some() && number(hour).is_some() => {
            format!("daily at {:02}:{:02} {zone}", number(hour).unwrap_or(0), number(minute).unwrap_or(0))
        }
        _ => format!("cron {expression} {zone}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERLIN: Tz = chrono_tz::Europe::Berlin;

    fn next(text: &str, after: &str) -> String {
        let after: DateTime<Utc> = after.parse().unwrap();
        Schedule::parse(text, BERLIN).unwrap().next_after(after).unwrap().to_rfc3339()
    }

    #[test]
    fn cron_is_read_in_its_zone() {
        assert_eq!(next("0 2 * * *", "2026-11-21T08:00:00Z"), "2026-11-22T01:00:00+00:00");
        assert_eq!(next("*/15 * * * *", "2026-11-21T08:00:00Z"), "2026-11-21T08:15:00+00:00");
        // 02:30 does not exist on 2026-03-29 in Berlin; 2026-10-25 has it twice.
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00+00:00");
        assert_eq!(next("30 2 * * *", "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00+00:00");
        assert_eq!(next("30 2 * * *", "2026-10-25T00:30:00Z"), "2026-10-26T01:30:00+00:00");
    }

    #[test]
    fn a_list_of_times_neither_misses_a_night_nor_runs_twice_in_one() {
        // The clock goes from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on 2026-10-25.
        for text in ["0 2,14 * * *", "0,30 2 * * *", "0 1-2 * * *", "15,45 2,3 * * *"] {
            assert_eq!(next(text, "2026-03-29T00:59:59Z"), "2026-03-29T01:00:00+00:00", "{text}");
        }
        assert_eq!(next("0 2,14 * * *", "2026-03-28T20:00:00Z"), "2026-03-29T01:00:00+00:00");
        assert_eq!(next("0 2,14 * * *", "2026-03-29T01:00:00Z"), "2026-03-29T12:00:00+00:00");
        assert_eq!(next("0,30 2 * * *", "2026-03-29T01:00:00Z"), "2026-03-30T00:00:00+00:00");
        assert_eq!(next("0 2,3 * * *", "2026-03-29T01:00:00Z"), "2026-03-30T00:00:00+00:00");
        assert_eq!(next("0 2,14 * * *", "2026-10-24T20:00:00Z"), "2026-10-25T00:00:00+00:00");
        assert_eq!(next("0 2,14 * * *", "2026-10-25T00:00:01Z"), "2026-10-25T13:00:00+00:00");
        assert_eq!(next("0,30 2 * * *", "2026-10-25T00:00:00Z"), "2026-10-25T00:30:00+00:00");
        assert_eq!(next("0,30 2 * * *", "2026-10-25T00:30:00Z"), "2026-10-26T01:00:00+00:00");
        assert_eq!(next("0,30 2 * * *", "2026-10-25T01:10:00Z"), "2026-10-26T01:00:00+00:00");
        assert_eq!(next("0 2,14 * * 1-5", "2026-10-23T12:00:00Z"), "2026-10-26T01:00:00+00:00");
    }

    #[test]
    fn a_rhythm_goes_on_through_the_change_of_the_clock() {
        for text in ["0 * * * *", "0 */1 * * *", "0 0-23 * * *", "*/30 2 * * *"] {
            assert_eq!(next(text, "2026-10-25T00:30:00Z"), "2026-10-25T01:00:00+00:00", "{text}");
        }
        assert_eq!(next("0 */2 * * *", "2026-03-29T00:00:00Z"), "2026-03-29T02:00:00+00:00");
    }

    #[test]
    fn intervals_do_not_shift() {
        assert_eq!(next("every 15m", "2026-11-21T08:07:00Z"), "2026-11-21T08:15:00+00:00");
        assert_eq!(next("every 15m", "2026-11-21T08:15:00Z"), "2026-11-21T08:30:00+00:00");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "every",
            "every 1s",
            "every 5 fortnights",
            "* * * *",
            "61 * * * *",
            "0 0 0 2 * *",
            "@daily",
            "every 99999999d",
        ] {
            assert!(Schedule::parse(text, BERLIN).is_err(), "{text}");
        }
    }

    #[test]
    fn schedules_read_as_words() {
        let words = |text: &str| Schedule::parse(text, BERLIN).unwrap().in_words();
        assert_eq!(words("5 * * * *"), "hourly at :05");
        assert_eq!(words("*/15 * * * *"), "every 15 min");
        assert_eq!(words("*/45 * * * *"), "cron */45 * * * * Europe/Berlin");
        assert_eq!(words("0 */2 * * *"), "every 2 h");
        assert_eq!(words("0 */5 * * *"), "cron 0 */5 * * * Europe/Berlin");
        assert_eq!(words("15 */4 * * *"), "every 4 h at :15");
        assert_eq!(words("0 2 * * *"), "daily at 02:00 Europe/Berlin");
        assert_eq!(words("every 90s"), "every 90 s");
        assert_eq!(words("manual"), "manual");
        assert_eq!(words("0 2 * * 1"), "cron 0 2 * * 1 Europe/Berlin");
    }
}
