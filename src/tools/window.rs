//! The window arguments that several tools share.

use chrono::TimeDelta;
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cx::ToolCx;
use super::error::ToolError;
use crate::domain::window::{self, FORMS, Window};
use crate::view::text;

/// The window arguments that several tools share.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub(super) struct WindowArgs {
    /// Start, ISO 8601 (2026-11-20 or 2026-11-20T14:00:00Z). Overrides window.
    #[schemars(length(max = 40))]
    pub(super) since: Option<String>,
    /// End (exclusive), ISO 8601. Default: now.
    #[schemars(length(max = 40))]
    pub(super) until: Option<String>,
    /// IANA time zone for words such as today and for times shown. Default: the workspace's.
    #[schemars(length(max = 60))]
    pub(super) timezone: Option<String>,
}

/// A window that was asked for, with the zone its words were read in.
pub(super) struct Asked {
    pub(super) window: Window,
    pub(super) zone: Tz,
    /// What to tell when it was cut to what is kept.
    pub(super) notices: Vec<String>,
}

/// The zone that times are read and shown in.
pub(super) fn zone(cx: &ToolCx<'_>, timezone: Option<&str>) -> Result<Tz, ToolError> {
    match timezone {
        None => Ok(cx.zone()),
        Some(name) => name.trim().parse().map_err(|_| {
            ToolError::argument(
                "timezone",
                "that time zone is not known",
                "an IANA name such as Europe/Berlin or UTC",
            )
        }),
    }
}

/// The window that `word` or `since`/`until` ask for; `None` when nothing does.
pub(super) fn asked(
    cx: &ToolCx<'_>,
    word: Option<&str>,
    args: &WindowArgs,
) -> Result<(Option<Window>, Tz), ToolError> {
    let zone = zone(cx, args.timezone.as_deref())?;
    let now = cx.now();
    let moment = |name: &str, text: &str| {
        window::parse_moment(text, zone).ok_or_else(|| {
            ToolError::argument(
                name,
                "that is not a time",
                "ISO 8601, e.g. 2026-11-20 or 2026-11-20T14:00:00Z",
            )
        })
    };
    if args.since.is_some() || args.until.is_some() {
        let until = args.until.as_deref().map(|text| moment("until", text)).transpose()?;
        let since = args.since.as_deref().map(|text| moment("since", text)).transpose()?;
        let reaches_now = until.is_none_or(|until| until > now);
        let until = until.unwrap_or(now + TimeDelta::microseconds(1));
        let since = since.unwrap_or(until - TimeDelta::hours(24));
        if since >= until {
            return Err(ToolError::refused(
                "INVALID_WINDOW",
                format!(
                    "since ({}) is not before until ({}). Swap them, or use window.",
                    text::moment(since, zone),
                    text::moment(until, zone)
                ),
            ));
        }
        return Ok((Some(Window { since, until, label: None, reaches_now }), zone));
    }
    let Some(word) = word else { return Ok((None, zone)) };
    let window = window::parse(word, now, zone)
        .ok_or_else(|| ToolError::argument("window", "that is not a window", FORMS))?;
    Ok((Some(window), zone))
}

/// The window asked for, cut to what is kept of runs; all that is kept when nothing was asked for.
pub(super) fn kept(cx: &ToolCx<'_>, word: Option<&str>, args: &WindowArgs) -> Result<Asked, ToolError> {
    let (window, zone) = asked(cx, word, args)?;
    let days = cx.principal.plan().run_retention_days;
    let now = cx.now();
    let oldest = now - TimeDelta::days(i64::from(days));
    let mut notices = Vec::new();
    let window = match window {
        Some(window) if window.since < oldest => {
            notices.push(format!("Runs are kept {days} days; the window was cut to them."));
            let since = oldest.min(window.until);
            Window { since, ..window }
        }
        Some(window) => window,
        None => {
            Window { since: oldest, until: now + TimeDelta::microseconds(1), label: None, reaches_now: true }
        }
    };
    Ok(Asked { window, zone, notices })
}
