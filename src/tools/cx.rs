//! What a tool has at hand while it answers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use tokio::time::Instant;

use super::error::ToolError;
use super::tool::Catalog;
use crate::domain::ids::{FlowId, RunId};
use crate::domain::run::RunGrouping;
use crate::domain::window::Window;
use crate::protocol::Exchange;
use crate::service::Serving;
use crate::service::access::Principal;
use crate::service::turns::Held;
use crate::service::watch::Watch;
use crate::store::Reader;
use crate::store::run_lists::{RunFilter, RunTotals};
use crate::view::text;

/// What a tool has at hand while it answers one call.
pub(super) struct ToolCx<'a> {
    pub(super) serving: &'a Serving,
    pub(super) principal: &'a Principal,
    pub(super) exchange: &'a Exchange,
    /// Every tool there is.
    pub(super) catalog: &'a Catalog,
    /// The turn of this call among those that run at once; given back by a call that waits.
    pub(super) turn: Held<'a>,
}

impl ToolCx<'_> {
    /// The caller's rows.
    pub(super) fn read(&self) -> Reader<'_> {
        self.serving.store.read(self.principal.tenancy())
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.serving.store.now()
    }

    /// The workspace's time zone.
    pub(super) fn zone(&self) -> Tz {
        self.principal.workspace().zone
    }

    /// Whether the caller may make a call that is written as `get_run run_id=…`.
    pub(super) fn may_call(&self, call: &str) -> bool {
        let tool = call.split(' ').next().unwrap_or_default();
        self.catalog.find(tool).is_some_and(|entry| self.principal.may(entry.scope))
    }

    /// Where people find the page of what `path` names in the workspace, where the server's address is known.
    pub(super) fn page_url(&self, path: &str) -> Option<String> {
        let site = self.serving.public_base.as_ref()?;
        Some(format!("{site}/w/{}/{path}", self.principal.workspace().slug))
    }

    /// The totals of the runs of a window, of one flow or of all.
    pub(super) async fn totals(
        &self,
        flow: Option<&FlowId>,
        window: &Window,
        zone: Tz,
    ) -> Result<RunTotals, ToolError> {
        let filter = RunFilter {
            window: window.clone(),
            flow: flow.cloned(),
            connectors: None,
            status: Vec::new(),
            trigger: Vec::new(),
            zone,
        };
        Ok(self.read().runs(&filter, RunGrouping::None, 0).await?.totals)
    }

    /// Waits for a run to end, at most `seconds` and while the call has time left for its answer, telling the client how
    /// far it is where it asked to be told. Not at all when the customer has too many waits: then the answer is what is
    /// known now, as when the time is up.
    pub(super) async fn watch(&self, run: &RunId, seconds: u8) -> Result<(), ToolError> {
        let Some(_waiting) = self.serving.waits.begin(self.principal.tenancy()) else { return Ok(()) };
        self.turn.give_back();
        let asked = Instant::now() + Duration::from_secs(seconds.into());
        let most = self.exchange.deadline.and_then(|deadline| deadline.checked_sub(TO_ANSWER));
        let until = most.map_or(asked, |most| asked.min(most));
        let mut watch = Watch::new(self.serving, self.principal, run, until);
        let mut pace = Pace::default();
        while let Some(state) = watch.look().await? {
            if self.exchange.wants_progress() && pace.may_tell(Instant::now()) {
                let records = state.records();
                let total = state.records_estimated.filter(|total| *total >= records.processed);
                let processed = text::counted(records.processed, "record", "records");
                let message = format!("{processed} processed");
                self.exchange
                    .progress(records.processed as f64, total.map(|total| total as f64), Some(message))
                    .await;
            }
        }
        Ok(())
    }

    /// The position in a cursor that this tool gave for the same `filters`.
    pub(super) fn open_cursor(
        &self,
        tool: &str,
        filters: &impl Serialize,
        cursor: Option<&str>,
    ) -> Result<Option<Vec<String>>, ToolError> {
        let Some(cursor) = cursor else { return Ok(None) };
        let wrong = || {
            ToolError::argument(
                "cursor",
                "the cursor does not belong to this query",
                "next_cursor of the page before, with all other arguments unchanged",
            )
        };
        let query = query(tool, filters)?;
        let position = self
            .serving
            .cursors
            .open(self.principal.tenancy().customer(), &query, cursor)
            .ok_or_else(wrong)?;
        serde_json::from_str(&position).map(Some).map_err(|_| wrong())
    }

    /// The cursor for the page after `position`.
    pub(super) fn seal_cursor(
        &self,
        tool: &str,
        filters: &impl Serialize,
        position: &[String],
    ) -> Result<String, ToolError> {
        let position = serde_json::to_string(position).map_err(ToolError::Unserialisable)?;
        let query = query(tool, filters)?;
        Ok(self.serving.cursors.seal(self.principal.tenancy().customer(), &query, &position))
    }
}

/// What a call that waits keeps of its time for its answer.
const TO_ANSWER: Duration = Duration::from_secs(2);

/// Between two tellings of how far a run is at least.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// When progress was last told.
#[derive(Default)]
struct Pace {
    told: Option<Instant>,
}

impl Pace {
    /// Whether it may be told again; then it counts as told.
    fn may_tell(&mut self, now: Instant) -> bool {
        let may = self.told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY);
        if may {
            self.told = Some(now);
        }
        may
    }
}

fn query(tool: &str, filters: &impl Serialize) -> Result<String, ToolError> {
    Ok(format!("{tool}{}", serde_json::to_string(filters).map_err(ToolError::Unserialisable)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_once_a_second_at_most() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let told = |millis| start + Duration::from_millis(millis);
        let told = [0, 300, 900, 1_000, 1_300, 1_999, 2_500].map(|millis| pace.may_tell(told(millis)));
        assert_eq!(told, [true, false, false, true, false, false, true]);
    }
}
