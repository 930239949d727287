//! Connectors and flows as they are defined, read whole for comparison.
//!
//! What a definition says and what is stored of it have one type, so that a difference is a comparison.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;
use sqlx::types::Json;

use super::flow_health::ScheduleColumns;
pub use super::put_definitions::{PutFlow, Version};
use super::{StoreError, TenantTx};
use crate::domain::connector::{AuthType, ConnectorKind, ConnectorType};
use crate::domain::definition::FlowDefinition;
use crate::domain::flow::FlowState;
use crate::domain::ids::{ConnectorId, FlowId, UserId};
use crate::domain::schedule::Schedule;
use crate::json::Plain;

statements! {
    CONNECTORS = plain "
        select connector_id, name, type, service, kind, description, config, auth_type, enabled, check_interval_s
          from connectors
         where customer_id = $1
         order by connector_id";
    FLOWS = plain "
        select f.flow_id, f.name, f.description, f.state, f.tags, f.schedule_kind, f.schedule_cron,
               f.schedule_interval_s, f.schedule_timezone, f.next_run_at, f.current_version, f.max_attempts,
               f.timeout_s, f.max_error_rate, f.degraded_error_rate, u.email, s.name as source,
               d.name as destination, v.definition,
               array(select n.label from flow_names n
                      where n.customer_id = $1 and n.flow_id = f.flow_id and n.kind = 'alias'
                      order by n.label) as aliases
          from flows f
          join connectors s on s.customer_id = $1 and s.connector_id = f.source_connector_id
          join connectors d on d.customer_id = $1 and d.connector_id = f.destination_connector_id
          join flow_versions v on v.customer_id = $1 and v.flow_id = f.flow_id and v.version = f.current_version
          left join users u on u.customer_id = $1 and u.user_id = f.owner_user_id
         where f.customer_id = $1
         order by f.flow_id";
    USERS = plain "
        select email, user_id
          from users
         where customer_id = $1";
}

/// What a connector is, apart from what was observed of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectorRecord {
    /// Its name.
    pub name: String,
    /// What sort of system it is.
    #[serde(rename = "type")]
    pub connector_type: ConnectorType,
    /// Which system, in one word, e.g. `salesforce`.
    pub service: String,
    /// Which code of ours speaks to it.
    pub kind: ConnectorKind,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What its kind needs to know; never a secret.
    pub config: Value,
    /// How we authorise ourselves to it.
    pub auth_type: AuthType,
    /// Whether it may be used.
    pub enabled: bool,
    /// Seconds between checks.
    pub check_interval_s: i32,
}

/// What a flow is, apart from what its runs say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowRecord {
    /// Its name.
    pub name: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What people decided about it.
    pub state: FlowState,
    /// The e-mail address of the person who answers for it.
    pub owner_email: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The name of the connector it reads.
    pub source: String,
    /// The name of the connector it writes.
    pub destination: String,
    /// When it runs by itself.
    pub schedule: Schedule,
    /// How often a run is tried.
    pub max_attempts: i32,
    /// Seconds after which a run is ended.
    pub timeout_s: i32,
    /// Share of rejected records above which a run fails, 0 to 1.
    pub max_error_rate: f64,
    /// Share of rejected records from which the flow is degraded, 0 to 1.
    pub degraded_error_rate: f64,
    /// What it does with records.
    pub definition: FlowDefinition,
}

/// A stored connector.
#[derive(Clone, Debug)]
pub struct StoredConnector {
    /// Its id.
    pub id: ConnectorId,
    /// What it is.
    pub record: ConnectorRecord,
}

/// A stored flow.
#[derive(Clone, Debug)]
pub struct StoredFlow {
    /// Its id.
    pub id: FlowId,
    /// The number of its current version.
    pub version: i32,
    /// When it runs next.
    pub next_run_at: Option<DateTime<Utc>>,
    /// What it is.
    pub record: FlowRecord,
}

/// Everything that a customer has defined.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// Its connectors.
    pub connectors: Vec<StoredConnector>,
    /// Its flows.
    pub flows: Vec<StoredFlow>,
    /// Its people, by e-mail address.
    pub users: BTreeMap<String, UserId>,
}

#[derive(FromRow)]
struct ConnectorRow {
    connector_id: String,
    name: String,
    r#type: String,
    service: String,
    kind: String,
    description: Option<String>,
    config: Json<Plain>,
    auth_type: String,
    enabled: bool,
    check_interval_s: i32,
}

impl ConnectorRow {
    fn stored(self) -> Result<StoredConnector, StoreError> {
        let wrong = |column| StoreError::inconsistent("connectors", column);
        Ok(StoredConnector {
            id: ConnectorId::parse(&self.connector_id).map_err(|_| wrong("connector_id"))?,
            record: ConnectorRecord {
                name: self.name,
                connector_type: ConnectorType::parse(&self.r#type).ok_or(wrong("type"))?,
                service: self.service,
                kind: ConnectorKind::parse(&self.kind).ok_or(wrong("kind"))?,
                description: self.description,
                config: self.config.0.0,
                auth_type: AuthType::parse(&self.auth_type).ok_or(wrong("auth_type"))?,
                enabled: self.enabled,
                check_interval_s: self.check_interval_s,
            },
        })
    }
}

#[derive(FromRow)]
struct FlowRow {
    flow_id: String,
    name: String,
    description: Option<String>,
    state: String,
    tags: Vec<String>,
    #[sqlx(flatten)]
    schedule: ScheduleColumns,
    next_run_at: Option<DateTime<Utc>>,
    current_version: i32,
    max_attempts: i32,
    timeout_s: i32,
    max_error_rate: f64,
    degraded_error_rate: f64,
    email: Option<String>,
    source: String,
    destination: String,
    definition: Json<FlowDefinition>,
    aliases: Vec<String>,
}

impl FlowRow {
    fn stored(self) -> Result<StoredFlow, StoreError> {
        let wrong = |column| StoreError::inconsistent("flows", column);
        Ok(StoredFlow {
            id: FlowId::parse(&self.flow_id).map_err(|_| wrong("flow_id"))?,
            version: self.current_version,
            next_run_at: self.next_run_at,
            record: FlowRecord {
                name: self.name,
                aliases: self.aliases,
                description: self.description,
                state: FlowState::parse(&self.state).ok_or(wrong("state"))?,
                owner_email: self.email,
                tags: self.tags,
                source: self.source,
                destination: self.destination,
                schedule: self.schedule.schedule()?,
                max_attempts: self.max_attempts,
                timeout_s: self.timeout_s,
                max_error_rate: self.max_error_rate,
                degraded_error_rate: self.degraded_error_rate,
                definition: self.definition.0,
            },
        })
    }
}

impl TenantTx {
    /// Everything that the customer has defined.
    ///
    /// # Errors
    /// When the database fails, or holds what this build does not know.
    pub async fn definitions(&mut self) -> Result<Definitions, StoreError> {
        let connectors: Vec<ConnectorRow> = self.query_as(CONNECTORS).fetch_all(self.conn()).await?;
        let flows: Vec<FlowRow> = self.query_as(FLOWS).fetch_all(self.conn()).await?;
        let users: Vec<(String, String)> = self.query_as(USERS).fetch_all(self.conn()).await?;
        let user = |(email, id): (String, String)| {
            Ok((email, UserId::parse(&id).map_err(|_| StoreError::inconsistent("users", "user_id"))?))
        };
        Ok(Definitions {
            connectors: connectors.into_iter().map(ConnectorRow::stored).collect::<Result<_, _>>()?,
            flows: flows.into_iter().map(FlowRow::stored).collect::<Result<_, _>>()?,
            users: users.into_iter().map(user).collect::<Result<_, StoreError>>()?,
        })
    }
}
