//! Times, counts and untrusted words as people and models read them.

use std::fmt::Write;

use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;

pub(super) use crate::domain::counts::put_count;
pub use crate::domain::counts::{count, counted, tally};
pub use crate::domain::untrusted::{fenced, named, word};

/// A moment in a zone, to the minute, with its offset: `2026-11-21 08:05 +01:00`.
pub fn moment(moment: DateTime<Utc>, zone: Tz) -> String {
    let mut text = String::with_capacity(40);
    put_moment(&mut text, moment, zone);
    text
}

/// The day of a moment in a zone, with its offset: `2026-11-21 +01:00`.
pub fn day(moment: DateTime<Utc>, zone: Tz) -> String {
    let local = moment.with_timezone(&zone);
    let mut text = String::with_capacity(20);
    put_date(&mut text, local.date_naive());
    text.push(' ');
    put_offset(&mut text, &local);
    text
}

/// A moment with how long ago it was (or is to come): `2026-11-21 08:05 +01:00, 52 min ago`.
pub fn moment_and_age(moment: DateTime<Utc>, now: DateTime<Utc>, zone: Tz) -> String {
    let mut text = self::moment(moment, zone);
    let _ = write!(text, ", {}", age(moment, now));
    text
}

// Digit by digit: a page of runs has dozens of moments, and a formatter that serves all needs takes several times as long.

fn put_moment(text: &mut String, moment: DateTime<Utc>, zone: Tz) {
    let local = moment.with_timezone(&zone);
    let naive = local.naive_local();
    put_date(text, naive.date());
    put_clock(text, [(' ', naive.hour()), (':', naive.minute())]);
    text.push(' ');
    put_offset(text, &local);
}

/// `2026-11-21`.
pub(super) fn put_date(text: &mut String, date: NaiveDate) {
    put_digits(text, date.year().unsigned_abs(), 4);
    put_clock(text, [('-', date.month()), ('-', date.day())]);
}

fn put_offset(text: &mut String, local: &DateTime<Tz>) {
    let minutes = local.offset().fix().local_minus_utc() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    put_clock(text, [(sign, minutes.unsigned_abs() / 60), (':', minutes.unsigned_abs() % 60)]);
}

/// Numbers of two digits, a mark before each.
pub(super) fn put_clock<const N: usize>(text: &mut String, parts: [(char, u32); N]) {
    for (mark, number) in parts {
        text.push(mark);
        put_digits(text, number, 2);
    }
}

/// The last `width` digits of a number.
pub(super) fn put_digits(text: &mut String, number: u32, width: u32) {
    for place in (0..width).rev() {
        text.extend(char::from_digit(number / 10_u32.pow(place) % 10, 10));
    }
}

/// How long ago a moment was: `52 min ago`, `in 3 h`.
pub fn age(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let delta = now - moment;
    let size = delta.abs();
    let text = match size {
        s if s < TimeDelta::minutes(1) => format!("{} s", s.num_seconds()),
        s if s < TimeDelta::hours(2) => format!("{} min", s.num_minutes()),
        s if s < TimeDelta::days(2) => format!("{} h", s.num_hours()),
        s => format!("{} d", s.num_days()),
    };
    if delta < TimeDelta::zero() { format!("in {text}") } else { format!("{text} ago") }
}

/// A moment in a zone, on the same day as `other` only its time: `14:22:47`.
pub fn clock_time(moment: DateTime<Utc>, other: DateTime<Utc>, zone: Tz) -> String {
    let (local, other) = (moment.with_timezone(&zone), other.with_timezone(&zone));
    let mut text = String::with_capacity(20);
    if local.date_naive() != other.date_naive() {
        put_date(&mut text, local.date_naive());
        text.push(' ');
    }
    let _ = write!(text, "{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second());
    text
}

/// A duration: `820 ms`, `44s`, `7m 44s`, `2h 5m`, `3d 4h`.
pub fn duration(millis: i64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0 => format!("{millis} ms"),
        s if s < 60 => format!("{s}s"),
        s if s < 3_600 => format!("{}m {}s", s / 60, s % 60),
        s if s < 86_400 => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
        s => format!("{}d {}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// A share of one in percent: `25.3 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Bytes: `9.1 MB` (powers of 1,024).
pub fn bytes(number: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let mut size = number as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit < UNITS.len() - 1 {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// The answer of a tool as it is written: a first line that is the answer, rows, and what to do next.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// Characters that a page's rows may fill.
pub const MAX_CHARS: usize = 8_000;

impl Page {
    /// A page whose first line is the answer.
    pub fn new(first_line: &str) -> Self {
        let mut text = String::with_capacity(first_line.len().max(MAX_CHARS / 2));
        text.push_str(first_line);
        Self { text }
    }

    /// A line more.
    pub fn line(&mut self, line: impl AsRef<str>) {
        self.text.push('\n');
        self.text.push_str(line.as_ref());
    }

    /// A row more, unless it would not fit; a page always holds one row. A row that alone would fill half a page
    /// is cut.
    pub fn row(&mut self, row: &str, rows_before: usize) -> bool {
        let cut: String;
        let row = if row.len() > MAX_CHARS / 2 {
            cut = cut_short(row);
            &cut
        } else {
            row
        };
        if rows_before > 0 && self.text.len() + row.len() + 1 > MAX_CHARS {
            return false;
        }
        self.line(row);
        true
    }

    /// The notices and the concrete calls to make next, at most two.
    pub fn end(mut self, notices: &[String], next: &[String]) -> String {
        for notice in notices {
            let _ = write!(self.text, "\nNote: {notice}");
        }
        if !next.is_empty() {
            let _ =
                write!(self.text, "\nNext: {}", next.iter().take(2).cloned().collect::<Vec<_>>().join("; "));
        }
        self.text
    }
}

/// A row's beginning; a fence that was cut is closed.
fn cut_short(row: &str) -> String {
    let mut cut: String = row.chars().take(MAX_CHARS / 4).chain(['…']).collect();
    let opened = cut.rfind("<<data ");
    if opened.is_some_and(|opened| !cut[opened..].contains(" data>>")) {
        cut.push_str(" data>>");
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_people_write_them() {
        assert_eq!(percent(1203.0 / 4764.0), "25.3 %");
        assert_eq!(bytes(9_541_222), "9.1 MB");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(
            [duration(820), duration(44_000), duration(464_000), duration(7_500_000)],
            ["820 ms", "44s", "7m 44s", "2h 5m"]
        );
    }

    #[test]
    fn times_say_their_zone_and_age() {
        let now: DateTime<Utc> = "2026-11-21T08:07:00Z".parse().unwrap();
        let then: DateTime<Utc> = "2026-11-21T07:05:00Z".parse().unwrap();
        assert_eq!(
            moment_and_age(then, now, chrono_tz::Europe::Berlin),
            "2026-11-21 08:05 +01:00, 62 min ago"
        );
        assert_eq!(age(now, then), "in 62 min");
    }

    #[test]
    fn a_page_ends_at_the_row_that_fills_it() {
        let mut page = Page::new("rows:");
        let rows = (0..).take_while(|n| page.row(&"x".repeat(500), *n)).count();
        assert_eq!(rows, 15);
        let mut page = Page::new("");
        assert!(page.row(&"é".repeat(20_000), 0));
        assert!(page.end(&[], &[]).len() < MAX_CHARS);
        let mut page = Page::new("");
        assert!(page.row(&format!("{} | hint", fenced(&"x".repeat(20_000))), 0));
        assert!(page.end(&[], &["get_run".to_owned()]).ends_with("x… data>>\nNext: get_run"));
    }
}
