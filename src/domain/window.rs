//! Windows of time: `24h`, `yesterday`, `since`/`until`, in a workspace's time zone.

use std::ops::RangeInclusive;

use chrono::{
    DateTime, Datelike, Days, DurationRound, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta,
    TimeZone, Utc,
};
use chrono_tz::Tz;

/// A half-open stretch of time: `since` belongs to it, `until` does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub since: DateTime<Utc>,
    /// The first moment after it.
    pub until: DateTime<Utc>,
    /// How it was asked for, e.g. `24h` or `this_morning`; `None` for a plain `since`/`until`.
    pub label: Option<String>,
    /// Whether it reaches now, so that runs still active belong to it.
    pub reaches_now: bool,
}

impl Window {
    /// What the window is compared with: of a day, week or month, so far or whole, the same span of the one before it (where
    /// that month is shorter, all that is left of it); otherwise the span of the same length right before.
    pub fn before(&self, zone: Tz) -> Self {
        let earlier = |date: NaiveDate| match self.label.as_deref() {
            Some("today" | "this_morning" | "yesterday") => date.checked_sub_days(Days::new(1)),
            Some("this_week" | "last_week") => date.checked_sub_days(Days::new(7)),
            Some("this_month" | "last_month") => date.checked_sub_months(Months::new(1)),
            _ => None,
        };
        let moved = |moment: DateTime<Utc>| {
            let here = moment.with_timezone(&zone);
            let date = here.date_naive();
            let earlier = earlier(date)?;
            if earlier.day() < date.day() && earlier.month() != date.month() {
                return date.with_day(1).map(|first| midnight(first, zone));
            }
            // Where a day begins at one, as the clock is put forward, the one before does not.
            let time = if moment == midnight(date, zone) { NaiveTime::MIN } else { here.time() };
            Some(local(earlier, time, zone))
        };
        let (since, until) = moved(self.since)
            .zip(moved(self.until))
            .unwrap_or((self.since - (self.until - self.since), self.since));
        Self { since, until, label: None, reaches_now: false }
    }
}

/// What can be written as a window, for messages.
pub const FORMS: &str =
    "30m, 24h, 7d, 2w, today, this_morning, yesterday, this_week, last_week, this_month, last_month";

/// The years whose moments every part of the system can hold.
const YEARS: RangeInclusive<i32> = 1970..=9998;

/// The longest duration that is read, in days.
const MAX_DAYS: i64 = 400;

const WORDS: &[&str] =
    &["today", "this_morning", "yesterday", "this_week", "last_week", "this_month", "last_month"];

/// The window that `text` names, seen from `now` in `zone`; `None` when the text is none.
pub fn parse(text: &str, now: DateTime<Utc>, zone: Tz) -> Option<Window> {
    let text = text.trim().to_ascii_lowercase().replace([' ', '-'], "_");
    let today = now.with_timezone(&zone).date_naive();
    let week = today - Days::new(u64::from(today.weekday().num_days_from_monday()));
    let month = today.with_day(1)?;
    let (since, until) = match text.as_str() {
        "today" => (midnight(today, zone), now),
        "this_morning" => {
            (midnight(today, zone), local(today, NaiveTime::from_hms_opt(12, 0, 0)?, zone).min(now))
        }
        "yesterday" => (midnight(today.pred_opt()?, zone), midnight(today, zone)),
        "this_week" => (midnight(week, zone), now),
        "last_week" => (midnight(week - Days::new(7), zone), midnight(week, zone)),
        "this_month" => (midnight(month, zone), now),
        "last_month" => (midnight(month - Months::new(1), zone), midnight(month, zone)),
        other => (now - duration(other)?, now),
    };
    let label = if WORDS.contains(&text.as_str()) { text } else { short(duration(&text)?) };
    // A window that ends now includes this very moment.
    let until = if until == now { now + TimeDelta::microseconds(1) } else { until };
    Some(Window { since, until, label: Some(label), reaches_now: until > now })
}

/// The window that `text` names where it is to end at `until`: a duration reaches back from there; of a day, week or month
/// it is the part before, and turned round where that begins later.
pub fn parse_until(text: &str, until: DateTime<Utc>, now: DateTime<Utc>, zone: Tz) -> Option<Window> {
    let window = parse(text, now, zone)?;
    let label = window.label.as_deref().filter(|label| !WORDS.contains(label));
    match label.and_then(duration) {
        Some(length) => Some(Window { since: until - length, until, reaches_now: until > now, ..window }),
        None if until < window.until => {
            Some(Window { until, label: None, reaches_now: until > now, ..window })
        }
        None => Some(window),
    }
}

/// The hour (UTC) that a moment lies in, by its beginning.
pub fn hour_of(moment: DateTime<Utc>) -> DateTime<Utc> {
    moment.duration_trunc(TimeDelta::hours(1)).unwrap_or(moment)
}

/// What an hour (UTC) is called in `zone`, where it may begin at half past: `2026-11-21 09:00`. In the night that the
/// clock is put back, what it shows twice is told with the offset: `2026-10-25 02:00 +01:00`.
pub fn hour_name(hour: DateTime<Utc>, zone: Tz) -> String {
    let local = hour.with_timezone(&zone);
    let once = zone.from_local_datetime(&local.naive_local()).single().is_some();
    local.format(if once { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M %:z" }).to_string()
}

/// `24h`, `24 hours`, `last 24 hours`, `1 day`, `P7D`, `PT1H` as a duration, at most 400 days.
fn duration(text: &str) -> Option<TimeDelta> {
    let text = text.trim_start_matches("the_").trim_start_matches("last_").trim_start_matches("past_");
    let (digits, unit) = match text
        .strip_prefix("pt")
        .map(|rest| (rest, true))
        .or(text.strip_prefix('p').map(|rest| (rest, false)))
    {
        Some((rest, time)) => {
            let (digits, unit) = split_number(rest)?;
            // In ISO 8601 `M` is a month unless a `T` went before it.
            if unit == "m" && !time {
                return None;
            }
            (digits, unit)
        }
        None => split_number(text)?,
    };
    let number: i64 = digits.parse().ok().filter(|number| *number > 0)?;
    let delta = match unit.trim_start_matches('_') {
        "m" | "min" | "mins" | "minute" | "minutes" => TimeDelta::try_minutes(number),
        "h" | "hr" | "hrs" | "hour" | "hours" => TimeDelta::try_hours(number),
        "d" | "day" | "days" => TimeDelta::try_days(number),
        "w" | "week" | "weeks" => TimeDelta::try_weeks(number),
        _ => None,
    }?;
    (delta <= TimeDelta::days(MAX_DAYS)).then_some(delta)
}

fn split_number(text: &str) -> Option<(&str, &str)> {
    if matches!(text, "hour" | "day" | "week" | "minute") {
        return Some(("1", text));
    }
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    (end > 0 && end <= 6).then(|| text.split_at(end))
}

fn short(delta: TimeDelta) -> String {
    let minutes = delta.num_minutes();
    match minutes {
        m if m % (60 * 24) == 0 && m > 60 * 24 => format!("{}d", m / (60 * 24)),
        m if m % 60 == 0 => format!("{}h", m / 60),
        m => format!("{m}m"),
    }
}

/// A moment written as RFC 3339 or as answers write it: a date alone is its midnight, seconds may be missing, and so may
/// the offset, instead of which `zone` counts then.
pub fn parse_moment(text: &str, zone: Tz) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return in_range(moment.with_timezone(&Utc));
    }
    let (naive, offset) =
        ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"]
            .iter()
            .find_map(|form| NaiveDateTime::parse_and_remainder(text, form).ok())
            .or_else(|| {
                let (date, offset) = NaiveDate::parse_and_remainder(text, "%Y-%m-%d").ok()?;
                Some((date.and_time(NaiveTime::MIN), offset))
            })
            // Of what is far out of range there may be no moment at all.
            .filter(|(naive, _)| YEARS.contains(&naive.year()))?;
    match offset.trim_start() {
        "" => in_range(local(naive.date(), naive.time(), zone)),
        offset => {
            let whole = format!("{}{offset}", naive.format("%Y-%m-%dT%H:%M:%S%.f"));
            in_range(DateTime::parse_from_rfc3339(&whole).ok()?.with_timezone(&Utc))
        }
    }
}

fn in_range(moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
    YEARS.contains(&moment.year()).then_some(moment)
}

/// Midnight at the beginning of `date` in `zone`.
pub fn midnight(date: NaiveDate, zone: Tz) -> DateTime<Utc> {
    local(date, NaiveTime::MIN, zone)
}

/// A local time as a moment: the earlier of two, or the first valid one after a gap.
pub fn local(date: NaiveDate, time: NaiveTime, zone: Tz) -> DateTime<Utc> {
    let naive = date.and_time(time);
    (0..=180)
        .find_map(|minutes| zone.from_local_datetime(&(naive + TimeDelta::minutes(minutes))).earliest())
        .map_or_else(|| Utc.from_utc_datetime(&naive), |moment| moment.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERLIN: Tz = chrono_tz::Europe::Berlin;

    fn now() -> DateTime<Utc> {
        "2026-11-21T08:07:00Z".parse().unwrap()
    }

    fn window(text: &str) -> Option<(String, String)> {
        let window = parse(text, now(), BERLIN)?;
        Some((window.since.format("%m-%dT%H:%M").to_string(), window.until.format("%m-%dT%H:%M").to_string()))
    }

    fn pair(since: &str, until: &str) -> Option<(String, String)> {
        Some((since.to_owned(), until.to_owned()))
    }

    #[test]
    fn no_two_hours_have_one_name() {
        let name = |hour: &str, zone| hour_name(hour.parse().unwrap(), zone);
        assert_eq!(name("2026-11-21T08:00:00Z", BERLIN), "2026-11-21 09:00");
        assert_eq!(name("2026-11-21T08:00:00Z", chrono_tz::Asia::Kolkata), "2026-11-21 13:30");
        assert_eq!(name("2026-10-25T00:00:00Z", BERLIN), "2026-10-25 02:00 +02:00");
        assert_eq!(name("2026-10-25T01:00:00Z", BERLIN), "2026-10-25 02:00 +01:00");
        assert_eq!(name("2026-11-01T06:00:00Z", chrono_tz::America::New_York), "2026-11-01 01:00 -05:00");
        assert_eq!(name("2026-03-29T01:00:00Z", BERLIN), "2026-03-29 03:00", "the clock is put forward");
        assert_eq!(hour_of(now()).to_rfc3339(), "2026-11-21T08:00:00+00:00");
    }

    #[test]
    fn words_are_read_in_the_zone() {
        assert_eq!(window("today"), pair("11-20T23:00", "11-21T08:07"));
        assert_eq!(window("This Morning"), pair("11-20T23:00", "11-21T08:07"));
        assert_eq!(window("yesterday"), pair("11-19T23:00", "11-20T23:00"));
        assert_eq!(window("this_week"), pair("11-15T23:00", "11-21T08:07"));
        assert_eq!(window("last_week"), pair("11-08T23:00", "11-15T23:00"));
        assert_eq!(window("last_month"), pair("09-30T22:00", "10-31T23:00"));
    }

    #[test]
    fn a_window_is_compared_with_the_same_span_before() {
        let before = |text: &str, now: &str| {
            let window = parse(text, now.parse().unwrap(), BERLIN).unwrap();
            let before = window.before(BERLIN);
            assert!(before.until <= window.since && !before.reaches_now, "{text}");
            pair(
                &before.since.format("%m-%dT%H:%M").to_string(),
                &before.until.format("%m-%dT%H:%M").to_string(),
            )
        };
        let now = "2026-11-21T08:07:00Z";
        assert_eq!(before("24h", now), pair("11-19T08:06", "11-20T08:07"));
        assert_eq!(before("today", now), pair("11-19T23:00", "11-20T08:07"));
        assert_eq!(before("this_morning", now), pair("11-19T23:00", "11-20T08:07"));
        assert_eq!(before("yesterday", now), pair("11-18T23:00", "11-19T23:00"));
        assert_eq!(before("this_week", now), pair("11-08T23:00", "11-14T08:07"));
        assert_eq!(before("last_week", now), pair("11-01T23:00", "11-08T23:00"));
        assert_eq!(before("this_month", now), pair("09-30T22:00", "10-21T07:07"));
        assert_eq!(before("last_month", now), pair("08-31T22:00", "09-30T22:00"));
        // A shorter month ends, and the clock is put forward between the two.
        assert_eq!(before("this_month", "2026-03-28T10:00:00Z"), pair("01-31T23:00", "02-28T10:00"));
        assert_eq!(before("this_month", "2026-03-29T10:00:00Z"), pair("01-31T23:00", "02-28T23:00"));
        assert_eq!(before("this_month", "2026-03-31T10:00:00Z"), pair("01-31T23:00", "02-28T23:00"));
        assert_eq!(before("today", "2026-03-29T10:00:00Z"), pair("03-27T23:00", "03-28T11:00"));
    }

    #[test]
    fn a_window_can_end_before_now() {
        let until = |text: &str, until: &str| {
            let window = parse_until(text, until.parse().unwrap(), now(), BERLIN).unwrap();
            let label = window.label.as_deref().unwrap_or("-");
            format!(
                "{} {} {label} {}",
                window.since.format("%dT%H"),
                window.until.format("%dT%H"),
                window.reaches_now
            )
        };
        assert_eq!(until("7 days", "2026-11-20T12:00:00Z"), "13T12 20T12 7d false");
        assert_eq!(until("1d", "2026-11-22T12:00:00Z"), "21T12 22T12 24h true");
        assert_eq!(until("this_week", "2026-11-20T12:00:00Z"), "15T23 20T12 - false");
        assert_eq!(until("last_week", "2026-11-10T12:00:00Z"), "08T23 10T12 - false");
        assert_eq!(until("yesterday", "2026-11-21T07:00:00Z"), "19T23 20T23 yesterday false");
        assert_eq!(until("today", "2026-11-22T12:00:00Z"), "20T23 21T08 today true");
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for text in
            ["24h", "24 hours", "last 24 hours", "1 day", "P1D", "PT24H", "1d", "past 24h", "last day"]
        {
            assert_eq!(window(text), pair("11-20T08:07", "11-21T08:07"), "{text}");
        }
        for text in ["", "0h", "-1h", "h", "24", "1y", "P1M", "999999999d", "401d", "tomorrow", "1.5h", "é"]
        {
            assert_eq!(window(text), None, "{text}");
        }
        assert_eq!(parse("7 days", now(), BERLIN).unwrap().label.as_deref(), Some("7d"));
    }

    #[test]
    fn only_windows_that_reach_now_hold_active_runs() {
        assert!(parse("24h", now(), BERLIN).unwrap().reaches_now);
        assert!(!parse("yesterday", now(), BERLIN).unwrap().reaches_now);
    }

    #[test]
    fn gaps_and_doubled_hours_have_a_moment() {
        let spring = NaiveDate::from_ymd_opt(2026, 3, 29).unwrap();
        let gap = local(spring, NaiveTime::from_hms_opt(2, 30, 0).unwrap(), BERLIN);
        assert_eq!(gap.to_rfc3339(), "2026-03-29T01:00:00+00:00");
        let autumn = NaiveDate::from_ymd_opt(2026, 10, 25).unwrap();
        let doubled = local(autumn, NaiveTime::from_hms_opt(2, 30, 0).unwrap(), BERLIN);
        assert_eq!(doubled.to_rfc3339(), "2026-10-25T00:30:00+00:00");
    }

    #[test]
    fn moments_need_not_say_their_offset() {
        assert_eq!(parse_moment("2026-11-20", BERLIN).unwrap().to_rfc3339(), "2026-11-19T23:00:00+00:00");
        assert_eq!(
            parse_moment("2026-11-20T14:00:00Z", BERLIN).unwrap().to_rfc3339(),
            "2026-11-20T14:00:00+00:00"
        );
        assert_eq!(
            parse_moment("2026-11-20 14:00", BERLIN).unwrap().to_rfc3339(),
            "2026-11-20T13:00:00+00:00"
        );
        for (told, meant) in [
            ("2026-11-21 08:05 +01:00", "2026-11-21T07:05:00+00:00"),
            ("2026-10-25 02:00 +01:00", "2026-10-25T01:00:00+00:00"),
            ("2026-11-21 +01:00", "2026-11-20T23:00:00+00:00"),
            ("2026-11-20T14:00Z", "2026-11-20T14:00:00+00:00"),
            ("2026-11-20T14:00-05:30", "2026-11-20T19:30:00+00:00"),
            ("2026-11-20T14:00:00.5", "2026-11-20T13:00:00.500+00:00"),
            ("2026-11-20 14:00:00.25 Z", "2026-11-20T14:00:00.250+00:00"),
        ] {
            assert_eq!(
                parse_moment(told, BERLIN).map(|moment| moment.to_rfc3339()).as_deref(),
                Some(meant),
                "{told}"
            );
        }
        for wrong in
            ["2026-11-20T", "2026-11-20 14", "2026-11-20T14:00 CET", "2026-11-20 14:00 +01:00, 52 min ago"]
        {
            assert_eq!(parse_moment(wrong, BERLIN), None, "{wrong}");
        }
        assert_eq!(parse_moment("+262142-12-31T00:00:00Z", BERLIN), None);
        for text in ["-9999-01-01T00:00:00Z", "-262143-01-01", "+262142-12-31", "+262142-12-31 23:59:59"] {
            for zone in [BERLIN, chrono_tz::America::New_York] {
                assert_eq!(parse_moment(text, zone), None, "{text} {zone}");
            }
        }
        assert_eq!(parse_moment("20.11.2026", BERLIN), None);
    }
}
