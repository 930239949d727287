//! The window arguments that several tools share.

use chrono::{DateTime, TimeDelta, Utc};
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
    /// End (exclusive) of since or window. Default: now.
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

/// The window that `word`, `since` and `until` ask for; all since `oldest` when nothing does.
fn asked(
    word: Option<&str>,
    args: &WindowArgs,
    oldest: DateTime<Utc>,
    now: DateTime<Utc>,
    zone: Tz,
) -> Result<Window, ToolError> {
    let moment = |name: &str, text: &str| {
        window::parse_moment(text, zone).ok_or_else(|| {
            ToolError::argument(
                name,
                "that is not a time",
                "ISO 8601, e.g. 2026-11-20 or 2026-11-20T14:00:00Z",
            )
        })
    };
    let end = args.until.as_deref().map(|text| moment("until", text)).transpose()?;
    let since = args.since.as_deref().map(|text| moment("since", text)).transpose()?;
    let until = end.unwrap_or(now + TimeDelta::microseconds(1));
    let plain = |since| Window { since, until, label: None, reaches_now: until > now };
    let (window, begin) = match (since, word) {
        (Some(since), _) => (plain(since), "since"),
        (None, None) => return Ok(plain(oldest.min(until))),
        (None, Some(word)) => {
            let window = match end {
                Some(end) => window::parse_until(word, end, now, zone),
                None => window::parse(word, now, zone),
            };
            let window =
                window.ok_or_else(|| ToolError::argument("window", "that is not a window", FORMS))?;
            (window, "the window's beginning")
        }
    };
    if window.since >= window.until {
        let instead =
            if since.is_some() { "Swap them, or use window." } else { "Leave out until, or use since." };
        return Err(ToolError::refused(
            "INVALID_WINDOW",
            format!(
                "{begin} ({}) is not before until ({}). {instead}",
                text::moment(window.since, zone),
                text::moment(window.until, zone)
            ),
        ));
    }
    Ok(window)
}

/// The window asked for, cut to what is kept of runs; all that is kept when nothing was asked for.
pub(super) fn kept(cx: &ToolCx<'_>, word: Option<&str>, args: &WindowArgs) -> Result<Asked, ToolError> {
    let (now, zone) = (cx.now(), zone(cx, args.timezone.as_deref())?);
    let plan = cx.principal.plan();
    let oldest = now - TimeDelta::days(i64::from(plan.run_retention_days));
    // Totals reach further back than runs are listed, where an earlier plan kept fewer.
    let (oldest, kept) = match plan.runs_kept_since.filter(|since| *since > oldest) {
        Some(since) => (since, format!("since {}", text::moment(since, zone))),
        None => (oldest, format!("{} days", plan.run_retention_days)),
    };
    let window = asked(word, args, oldest, now, zone)?;
    let mut notices = Vec::new();
    if word.is_some() && args.since.is_none() && window.label.is_none() {
        notices.push("Of the window only the part before until is told.".to_owned());
    }
    if window.since >= oldest {
        return Ok(Asked { window, zone, notices });
    }
    notices.push(format!("Runs are kept {kept}; the window was cut to them."));
    let since = oldest.min(window.until);
    Ok(Asked { window: Window { since, ..window }, zone, notices })
}
