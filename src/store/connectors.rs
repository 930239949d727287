//! Connectors, read.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::FromRow;
use sqlx::types::Json;

use super::{Reader, StoreError};
use crate::domain::connector::{AuthStatus, AuthType, ConnectorStatus, ConnectorType};
use crate::domain::flow::StatusReason;
use crate::domain::ids::ConnectorId;

statements! {
    CONNECTORS = tenant "
        select c.connector_id, c.name, c.type, c.service, c.auth_type, c.auth_status, c.auth_expires_at,
               c.auth_checked_at, c.auth_error, c.status, c.status_reasons, c.status_since,
               ", stale!("c"), " as stale, c.last_check_at, c.last_check_ok, c.last_check_ms, c.last_check_error,
               c.last_activity_at, c.config -> 'tools' as tools,
               coalesce(q.quotas, '[]') as quotas,
               case when row_number() over () = 1 then (
                    select json_agg(json_build_object('name', f.name, 'failing', f.health = 'failing',
                               'source', f.source_connector_id, 'destination', f.destination_connector_id))
                      from (select * from flows f where f.customer_id = $1 and f.state = 'active'
                             order by f.flow_id) f) end as users
          from connectors c
          left join (
               select q.connector_id,
                      jsonb_agg(jsonb_build_object('name', q.name, 'unit', q.unit, 'used', q.used, 'limit', q.quota_limit,
                          'resets_at', q.resets_at, 'throttled_1h', q.throttled_1h, 'observed_at', q.observed_at)
                          order by q.name) as quotas
                 from connector_quotas q
                where q.customer_id = $1
                group by q.connector_id) q on q.connector_id = c.connector_id
         where c.customer_id = $1 and caller.id = $1
         order by array_position(array['down', 'degraded', 'unknown', 'healthy', 'disabled'], c.status),
                  lower(c.name), c.connector_id
         limit 2000";
}

/// A connector with its observed health.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Its id.
    pub id: ConnectorId,
    /// Its name.
    pub name: String,
    /// What sort of system it is.
    pub r#type: ConnectorType,
    /// The service behind it.
    pub service: String,
    /// How we authorise ourselves.
    pub auth_type: AuthType,
    /// What is known of the authorization.
    pub auth_status: AuthStatus,
    /// When it expires, where that is known.
    pub auth_expires_at: Option<DateTime<Utc>>,
    /// When it was last tried.
    pub auth_checked_at: Option<DateTime<Utc>>,
    /// What the other side said.
    pub auth_error: Option<String>,
    /// Its status.
    pub status: ConnectorStatus,
    /// Why it is not healthy.
    pub reasons: Vec<StatusReason>,
    /// Since when it has this status.
    pub since: DateTime<Utc>,
    /// When it was last checked.
    pub last_check_at: Option<DateTime<Utc>>,
    /// Whether that went well.
    pub last_check_ok: Option<bool>,
    /// How long it took.
    pub last_check_ms: Option<i32>,
    /// What went wrong.
    pub last_check_error: Option<String>,
    /// When a run last used it.
    pub last_activity_at: Option<DateTime<Utc>>,
    /// What it has used of what it may use.
    pub quotas: Vec<Quota>,
    /// The active flows that depend on it.
    pub flows: Vec<DependentFlow>,
    /// The tools of a remote MCP server.
    pub tools: Vec<RemoteTool>,
}

impl Connector {
    /// The quotas that tell what may still be used `now`: none of a connector that is switched off, and none that started
    /// anew since it was observed.
    pub fn quotas_at(&self, now: DateTime<Utc>) -> impl Iterator<Item = &Quota> {
        let on = self.status != ConnectorStatus::Disabled;
        self.quotas.iter().filter(move |quota| on && quota.resets_at.is_none_or(|at| at > now))
    }
}

/// Where a connector stands in lists: down ones first, then degraded, unknown, healthy, disabled, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectorPlace {
    /// Its rank: down, degraded, unknown, healthy, disabled from 1.
    pub rank: u8,
    /// Its lower-cased name.
    pub sort_key: String,
    /// Its id.
    pub connector: String,
}

impl ConnectorPlace {
    /// The place of `connector` as it is now.
    pub fn of(connector: &Connector) -> Self {
        let rank = match connector.status {
            ConnectorStatus::Down => 1,
            ConnectorStatus::Degraded => 2,
            ConnectorStatus::Unknown => 3,
            ConnectorStatus::Healthy => 4,
            ConnectorStatus::Disabled => 5,
        };
        Self { rank, sort_key: connector.name.to_lowercase(), connector: connector.id.to_string() }
    }
}

/// What a connector has used of what it may use.
#[derive(Clone, Debug, Deserialize)]
pub struct Quota {
    /// Which allowance.
    pub name: String,
    /// What is counted.
    pub unit: String,
    /// Used so far.
    pub used: i64,
    /// Allowed.
    pub limit: i64,
    /// When counting starts anew.
    pub resets_at: Option<DateTime<Utc>>,
    /// Throttled answers in the last hour.
    pub throttled_1h: i32,
    /// When this was observed.
    pub observed_at: DateTime<Utc>,
}

impl Quota {
    /// How much is used, in percent.
    pub fn percent(&self) -> f64 {
        self.used as f64 * 100.0 / self.limit.max(1) as f64
    }
}

/// A flow that depends on a connector.
#[derive(Clone, Debug, Deserialize)]
pub struct DependentFlow {
    /// Its name.
    pub name: String,
    /// Whether it is failing.
    pub failing: bool,
}

/// A tool of a remote MCP server.
#[derive(Clone, Debug, Deserialize)]
pub struct RemoteTool {
    /// Its name.
    pub name: String,
    /// Whether flows may call it.
    pub enabled: bool,
}

/// An active flow with the connectors that it uses.
#[derive(Deserialize)]
struct UserRow {
    #[serde(flatten)]
    flow: DependentFlow,
    source: String,
    destination: String,
}

#[derive(FromRow)]
struct ConnectorRow {
    connector_id: String,
    name: String,
    r#type: String,
    service: String,
    auth_type: String,
    auth_status: String,
    auth_expires_at: Option<DateTime<Utc>>,
    auth_checked_at: Option<DateTime<Utc>>,
    auth_error: Option<String>,
    status: String,
    status_reasons: Json<Vec<StatusReason>>,
    status_since: DateTime<Utc>,
    stale: bool,
    last_check_at: Option<DateTime<Utc>>,
    last_check_ok: Option<bool>,
    last_check_ms: Option<i32>,
    last_check_error: Option<String>,
    last_activity_at: Option<DateTime<Utc>>,
    quotas: Json<Vec<Quota>>,
    /// Of every connector, in one of the rows.
    users: Option<Json<Vec<UserRow>>>,
    tools: Option<Json<Vec<RemoteTool>>>,
}

impl TryFrom<ConnectorRow> for Connector {
    type Error = StoreError;

    fn try_from(row: ConnectorRow) -> Result<Self, StoreError> {
        let wrong = |column| StoreError::inconsistent("connectors", column);
        let found = ConnectorStatus::parse(&row.status).ok_or(wrong("status"))?;
        let (status, reasons, since) = match row.last_check_at.filter(|_| row.stale) {
            Some(at) => {
                let reason = StatusReason::new("STALE", "not checked lately", Some(at));
                (ConnectorStatus::Unknown, vec![reason], at)
            }
            None => (found, row.status_reasons.0, row.status_since),
        };
        Ok(Self {
            id: ConnectorId::parse(&row.connector_id).map_err(|_| wrong("connector_id"))?,
            name: row.name,
            r#type: ConnectorType::parse(&row.r#type).ok_or(wrong("type"))?,
            service: row.service,
            auth_type: AuthType::parse(&row.auth_type).ok_or(wrong("auth_type"))?,
            auth_status: AuthStatus::parse(&row.auth_status).ok_or(wrong("auth_status"))?,
            auth_expires_at: row.auth_expires_at,
            auth_checked_at: row.auth_checked_at,
            auth_error: row.auth_error,
            status,
            reasons,
            since,
            last_check_at: row.last_check_at,
            last_check_ok: row.last_check_ok,
            last_check_ms: row.last_check_ms,
            last_check_error: row.last_check_error,
            last_activity_at: row.last_activity_at,
            quotas: row.quotas.0,
            flows: Vec::new(),
            tools: row.tools.map(|json| json.0).unwrap_or_default(),
        })
    }
}

impl Reader<'_> {
    /// Every connector, by its [`ConnectorPlace`]. A workspace has tens of them, so lists are narrowed by the caller.
    ///
    /// # Errors
    /// When the database fails, or a row holds something this build does not know.
    pub async fn connectors(&self) -> Result<Vec<Connector>, StoreError> {
        let mut rows: Vec<ConnectorRow> = self.query_as(CONNECTORS).fetch_all(self.store().reads()).await?;
        let mut users =
            rows.iter_mut().find_map(|row| row.users.take()).map(|json| json.0).unwrap_or_default();
        users.sort_by_cached_key(|user| user.flow.name.to_lowercase());
        let mut flows: HashMap<String, Vec<DependentFlow>> = HashMap::new();
        for UserRow { flow, source, destination } in users {
            if source != destination {
                flows.entry(destination).or_default().push(flow.clone());
            }
            flows.entry(source).or_default().push(flow);
        }
        let mut connectors = rows
            .into_iter()
            .map(|row| {
                let flows = flows.remove(&row.connector_id).unwrap_or_default();
                Ok(Connector { flows, ..Connector::try_from(row)? })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        // The database sorts by its collation, and a page that goes on after a place compares places.
        connectors.sort_by_cached_key(ConnectorPlace::of);
        Ok(connectors)
    }
}
