//! Answers "which systems are connected, and how are they?". Needs the scope `connectors:read`.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cx::ToolCx;
use super::error::ToolError;
use super::find;
use super::tool::{Answer, Tool};
use crate::domain::connector::{AuthStatus, ConnectorStatus, ConnectorType};
use crate::domain::scope::Scope;
use crate::store::connectors::{Connector, ConnectorPlace};
use crate::view::connector::ConnectorView;
use crate::view::text::{self, Page};

pub(super) struct ListConnectors;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Input {
    #[serde(flatten)]
    filters: Filters,
    /// Rows per page (max 200).
    #[serde(default = "fifty")]
    #[schemars(range(min = 1, max = 200))]
    limit: u16,
    /// next_cursor of the previous page. Keep the other arguments unchanged.
    cursor: Option<String>,
}

fn fifty() -> u16 {
    50
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Filters {
    /// Name, service or id.
    #[schemars(length(max = 200))]
    query: Option<String>,
    /// Only these types.
    r#type: Option<Vec<ConnectorType>>,
    /// Only these health states.
    status: Option<Vec<ConnectorStatus>>,
    /// Only these authorization states.
    auth_status: Option<Vec<AuthStatus>>,
    /// Only connectors with a quota used above this percentage.
    #[schemars(range(min = 0, max = 100))]
    quota_above_percent: Option<f64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    summary: String,
    as_of: DateTime<Utc>,
    counts: CountsView,
    connectors: Vec<ConnectorView>,
    total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// How many connectors there are, whatever the filter.
#[derive(Default, Serialize, JsonSchema)]
pub(super) struct CountsView {
    down: usize,
    degraded: usize,
    unknown: usize,
    healthy: usize,
    disabled: usize,
}

impl CountsView {
    pub(super) fn of(all: &[Connector]) -> Self {
        let count = |status| all.iter().filter(|connector| connector.status == status).count();
        Self {
            down: count(ConnectorStatus::Down),
            degraded: count(ConnectorStatus::Degraded),
            unknown: count(ConnectorStatus::Unknown),
            healthy: count(ConnectorStatus::Healthy),
            disabled: count(ConnectorStatus::Disabled),
        }
    }

    pub(super) fn in_words(&self) -> String {
        let said = text::tally([
            (self.down as i64, "down"),
            (self.degraded as i64, "degraded"),
            (self.unknown as i64, "unknown"),
            (self.healthy as i64, "healthy"),
            (self.disabled as i64, "disabled"),
        ]);
        if said.is_empty() { "none yet".to_owned() } else { said }
    }
}

impl Tool for ListConnectors {
    const NAME: &'static str = "list_connectors";
    const TITLE: &'static str = "List connectors";
    const DESCRIPTION: &'static str = "List connected systems with current health: status, authorization (valid, expiring_soon, \
        expired, revoked…), quota use and reset, last poll, and how many flows depend on each. quota_above_percent=80 answers \"close \
        to a limit\".";
    const SCOPE: Scope = Scope::ConnectorsRead;
    type Input = Input;
    type Output = Output;

    async fn call(cx: &ToolCx<'_>, input: Input) -> Result<Answer<Output>, ToolError> {
        let (filters, now, zone) = (&input.filters, cx.now(), cx.zone());
        let after =
            cx.open_cursor(Self::NAME, filters, input.cursor.as_deref())?.as_deref().and_then(position);
        let all = cx.read().connectors().await?;
        let matching: Vec<&Connector> = matching(&all, filters, now);
        // After the place that the last one had when it was shown: its status may have moved since, or it may be gone.
        let rest: Vec<&Connector> = matching
            .iter()
            .copied()
            .filter(|connector| after.as_ref().is_none_or(|after| ConnectorPlace::of(connector) > *after))
            .collect();
        let counts = CountsView::of(&all);
        let summary = if all.is_empty() {
            "No connectors yet.".to_owned()
        } else if matching.len() == all.len() {
            format!("{}: {}.", text::counted(all.len() as i64, "connector", "connectors"), counts.in_words())
        } else {
            format!(
                "{} of {} match ({}).",
                matching.len(),
                text::counted(all.len() as i64, "connector", "connectors"),
                counts.in_words()
            )
        };
        let mut page = Page::new(&format!("{summary} As of {}.", text::moment(now, zone)));
        let mut shown = Vec::new();
        for connector in rest.iter().take(input.limit.into()) {
            let view = ConnectorView::from(*connector);
            if !page.row(&view.line(now, zone), shown.len()) {
                break;
            }
            shown.push(view);
        }
        let mut notices = Vec::new();
        let last = shown.len().checked_sub(1).and_then(|last| rest.get(last));
        let next_cursor = match last.filter(|_| shown.len() < rest.len()) {
            Some(last) => {
                let last = ConnectorPlace::of(last);
                let position = [last.rank.to_string(), last.sort_key, last.connector];
                let cursor = cx.seal_cursor(Self::NAME, filters, &position)?;
                notices.push(format!("more connectors match; pass cursor={cursor}"));
                Some(cursor)
            }
            None => None,
        };
        let next: Vec<String> = shown
            .iter()
            .find(|connector| connector.flows.failing > 0)
            .map(|connector| format!("list_flows connector={}", connector.id))
            .into_iter()
            .collect();
        let total = matching.len();
        Ok(Answer {
            page,
            output: Output { summary, as_of: now, counts, connectors: shown, total, next_cursor },
            notices,
            next,
        })
    }
}

fn position(parts: &[String]) -> Option<ConnectorPlace> {
    let [rank, sort_key, connector] = parts else { return None };
    Some(ConnectorPlace {
        rank: rank.parse().ok()?,
        sort_key: sort_key.clone(),
        connector: connector.clone(),
    })
}

fn matching<'a>(all: &'a [Connector], filters: &Filters, now: DateTime<Utc>) -> Vec<&'a Connector> {
    let named = filters.query.as_ref().map(|query| {
        let found = find::matching(all, query);
        if found.is_empty() {
            let part = query.to_lowercase();
            return all.iter().filter(|connector| connector.name.to_lowercase().contains(&part)).collect();
        }
        found
    });
    named
        .unwrap_or_else(|| all.iter().collect())
        .into_iter()
        .filter(|connector| filters.r#type.as_ref().is_none_or(|types| types.contains(&connector.r#type)))
        .filter(|connector| filters.status.as_ref().is_none_or(|states| states.contains(&connector.status)))
        .filter(|connector| {
            filters.auth_status.as_ref().is_none_or(|states| states.contains(&connector.auth_status))
        })
        .filter(|connector| {
            filters
                .quota_above_percent
                .is_none_or(|above| connector.quotas_at(now).any(|quota| quota.percent() > above))
        })
        .collect()
}
