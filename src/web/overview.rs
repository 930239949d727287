//! The workspace at a glance: what `get_system_health` tells, and the runs of the last day.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Deserialize;
use serde_json::json;

use super::ask::ask;
use super::chart::{Chart, Slot};
use super::guard::Here;
use super::trouble::Trouble;
use super::{Frame, Web, page};
use crate::domain::window::{hour_name, hour_of};
use crate::view::text;

/// Hours before this one that the chart shows.
const HOURS: i64 = 24;

#[derive(Template)]
#[template(path = "overview.html", config = "src/web/askama.toml")]
struct OverviewPage {
    here: Frame,
    health: Health,
    chart: Chart,
    waits: String,
}

#[derive(Deserialize)]
struct Health {
    verdict: String,
    headline: String,
    attention: Vec<Cause>,
    attention_more: usize,
    flows: Flows,
    connectors: Connectors,
    queue: Queue,
    runs: Runs,
    records: Records,
}

#[derive(Deserialize)]
struct Cause {
    severity: String,
    kind: String,
    id: String,
    message: String,
    next_step: String,
}

#[derive(Deserialize)]
struct Flows {
    total: i64,
    failing: i64,
    degraded: i64,
    pending: i64,
    healthy: i64,
    paused: i64,
}

#[derive(Deserialize)]
struct Connectors {
    total: i64,
    down: i64,
    degraded: i64,
}

#[derive(Deserialize)]
struct Queue {
    queued: i64,
    running: i64,
    oldest_wait_seconds: Option<i64>,
}

#[derive(Deserialize)]
struct Runs {
    total: i64,
    succeeded: i64,
    partial: i64,
    failed: i64,
}

#[derive(Deserialize)]
struct Records {
    written: i64,
    failed: i64,
}

#[derive(Deserialize)]
struct Grouped {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    label: String,
    succeeded: i64,
    partial: i64,
    failed: i64,
}

pub(super) async fn overview(State(web): State<Web>, here: Here) -> Result<Response, Trouble> {
    let health: Health = ask(&web, &here, "get_system_health", json!({})).await?;
    let by_hour = json!({ "window": "24h", "group_by": "hour", "limit": 0 });
    let runs: Grouped = ask(&web, &here, "list_runs", by_hour).await?;
    let waits = health.queue.oldest_wait_seconds.map(|seconds| text::duration(seconds * 1000));
    let waits = waits.map(|waits| format!(", the oldest for {waits}")).unwrap_or_default();
    page(&OverviewPage {
        here: Frame::new(&here, "overview"),
        health,
        chart: chart(runs.groups, here.now, here.member.workspace.zone),
        waits,
    })
}

/// A slot for each hour of the last day, whether anything ran in it or not.
fn chart(groups: Vec<Group>, now: DateTime<Utc>, zone: Tz) -> Chart {
    let mut groups: HashMap<String, Group> =
        groups.into_iter().map(|group| (group.label.clone(), group)).collect();
    let slots = (0..=HOURS).rev().map(|hours| {
        let label = hour_name(hour_of(now) - TimeDelta::hours(hours), zone);
        match groups.remove(&label) {
            Some(Group { succeeded, partial, failed, .. }) => Slot { label, succeeded, partial, failed },
            None => Slot { label, succeeded: 0, partial: 0, failed: 0 },
        }
    });
    Chart::new(slots.collect())
}

impl Cause {
    /// What a person may do; what a model would call next is where the link leads.
    fn next(&self) -> Option<String> {
        let first = self.next_step.split(' ').next().unwrap_or_default();
        (!first.contains('_')).then(|| self.next_step.clone())
    }

    /// The page about what is in trouble, if it has one.
    fn link(&self, slug: &str) -> Option<String> {
        match self.kind.as_str() {
            "flow" => Some(format!("/w/{slug}/flows/{}", self.id)),
            "connector" => Some(format!("/w/{slug}/connectors?query={}", self.id)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hour_that_comes_twice_has_two_bars() {
        let now = "2026-10-25T09:07:00Z".parse().unwrap();
        let group = |label: &str, succeeded| Group { label: label.into(), succeeded, partial: 0, failed: 0 };
        let groups = vec![group("2026-10-25 02:00 +01:00", 2), group("2026-10-25 02:00 +02:00", 1)];
        let slots = chart(groups, now, chrono_tz::Europe::Berlin).slots;
        let drawn: Vec<(&str, i64)> =
            slots[14..=17].iter().map(|slot| (slot.label.as_str(), slot.succeeded)).collect();
        let expected = [
            ("2026-10-25 01:00", 0),
            ("2026-10-25 02:00 +02:00", 1),
            ("2026-10-25 02:00 +01:00", 2),
            ("2026-10-25 03:00", 0),
        ];
        assert_eq!((slots.len(), drawn.as_slice()), (25, expected.as_slice()));
        assert_eq!(slots[24].label, "2026-10-25 10:00", "this hour is the last");
    }
}
