//! A window of time as answers echo it.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Serialize;

use super::text;
use crate::domain::window::Window;

/// A window of time as answers echo it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WindowView {
    /// How it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its first moment.
    pub since: DateTime<Utc>,
    /// The first moment after it.
    pub until: DateTime<Utc>,
    /// The zone its words were read in.
    pub timezone: String,
}

impl WindowView {
    /// `window`, whose words were read in `zone`.
    pub fn new(window: &Window, zone: Tz) -> Self {
        Self {
            label: window.label.clone(),
            since: window.since,
            until: window.until,
            timezone: zone.name().to_owned(),
        }
    }
}

/// A window in words: `24h to 2026-11-21 09:07 +01:00`, `yesterday (2026-11-20 Europe/Berlin)`.
pub fn in_words(window: &Window, zone: Tz) -> String {
    let until = text::moment(window.until, zone);
    match window.label.as_deref() {
        Some("yesterday" | "today" | "this_morning") => {
            let day = window.since.with_timezone(&zone).format("%Y-%m-%d");
            format!("{} ({day}, {zone})", window.label.as_deref().unwrap_or_default().replace('_', " "))
        }
        Some(label) => format!("{} to {until}", label.replace('_', " ")),
        None => format!("{} to {until}", text::moment(window.since, zone)),
    }
}

/// What [`Window::before`] is of a window, in words.
pub fn before_in_words(window: &Window) -> &'static str {
    match window.label.as_deref() {
        Some("today") => "same span yesterday",
        Some("this_morning") => "same span the morning before",
        Some("yesterday") => "day before",
        Some("this_week") => "same span last week",
        Some("last_week") => "week before",
        Some("this_month") => "same span last month",
        Some("last_month") => "month before",
        _ => "span before",
    }
}
