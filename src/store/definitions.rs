//! Connectors and flows as they are defined: read whole for comparison, and written.
//!
//! What a definition says and what is stored of it have one type, so that a difference is a comparison.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;
use sqlx::types::Json;

use super::customers::Actor;
use super::flow_health::ScheduleColumns;
use super::{StoreError, TenantTx};
use crate::domain::connector::{AuthStatus, AuthType, ConnectorKind, ConnectorType};
use crate::domain::definition::FlowDefinition;
use crate::domain::flow::{FlowState, StatusReason};
use crate::domain::ids::{ConnectorId, FlowId, UserId};
use crate::domain::names::exact_key;
use crate::domain::schedule::Schedule;

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
    PUT_CONNECTOR = plain "
        insert into connectors (customer_id, connector_id, name, name_key, type, service, kind, description, config,
               auth_type, enabled, check_interval_s, created_at, status, status_reasons, status_since, next_check_at,
               auth_status)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $13, $13, $16)
            on conflict (customer_id, connector_id) do update
           set name = excluded.name, name_key = excluded.name_key, type = excluded.type, service = excluded.service,
               kind = excluded.kind, description = excluded.description, config = excluded.config,
               auth_type = excluded.auth_type, enabled = excluded.enabled,
               check_interval_s = excluded.check_interval_s, next_check_at = excluded.next_check_at,
               status = excluded.status, status_reasons = excluded.status_reasons,
               status_since = excluded.status_since";
    PUT_FLOW = plain "
        insert into flows (customer_id, flow_id, name, sort_key, description, state, state_by, state_changed_at,
               owner_user_id, tags, source_connector_id, destination_connector_id, source_objects,
               destination_objects, object_keys_read, object_keys_written, schedule_kind, schedule_cron,
               schedule_interval_s, schedule_timezone, next_run_at, current_version, max_attempts, timeout_s,
               max_error_rate, degraded_error_rate, health_reasons, health_since, health_checked_at, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
               $23, $24, $25, $26, $27, $8, 'epoch', $8)
            on conflict (customer_id, flow_id) do update
           set name = excluded.name, sort_key = excluded.sort_key, description = excluded.description,
               state = excluded.state,
               state_by = case when flows.state = excluded.state then flows.state_by else excluded.state_by end,
               state_reason = case when flows.state = excluded.state then flows.state_reason end,
               state_changed_at =
                   case when flows.state = excluded.state then flows.state_changed_at else excluded.state_changed_at end,
               owner_user_id = excluded.owner_user_id, tags = excluded.tags,
               source_connector_id = excluded.source_connector_id,
               destination_connector_id = excluded.destination_connector_id,
               source_objects = excluded.source_objects, destination_objects = excluded.destination_objects,
               object_keys_read = excluded.object_keys_read, object_keys_written = excluded.object_keys_written,
               schedule_kind = excluded.schedule_kind, schedule_cron = excluded.schedule_cron,
               schedule_interval_s = excluded.schedule_interval_s, schedule_timezone = excluded.schedule_timezone,
               next_run_at = excluded.next_run_at, current_version = excluded.current_version,
               max_attempts = excluded.max_attempts, timeout_s = excluded.timeout_s,
               max_error_rate = excluded.max_error_rate, degraded_error_rate = excluded.degraded_error_rate,
               health_checked_at = excluded.health_checked_at";
    FORGET_NAMES = plain "
        delete from flow_names
         where customer_id = $1 and flow_id = $2";
    ADD_NAMES = plain "
        insert into flow_names (customer_id, name_key, flow_id, label, kind)
        select $1, n.name_key, $2, n.label, n.kind
          from unnest($3::text[], $4::text[], $5::text[]) as n (name_key, label, kind)";
    NEXT_VERSION = plain "
        select coalesce(max(version), 0) + 1
          from flow_versions
         where customer_id = $1 and flow_id = $2";
    ADD_VERSION = plain "
        insert into flow_versions (customer_id, flow_id, version, definition, definition_hash, summary, created_by,
               created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)";
    RUN_NEXT_AT = plain "
        update flows set next_run_at = $3
         where customer_id = $1 and flow_id = $2 and state = 'active'";
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

/// A flow to be written, with what its record names resolved.
#[derive(Clone, Debug)]
pub struct PutFlow<'a> {
    /// Its id, new or not.
    pub id: &'a FlowId,
    /// What it is from now on.
    pub record: &'a FlowRecord,
    /// The connector it reads.
    pub source: &'a ConnectorId,
    /// The connector it writes.
    pub destination: &'a ConnectorId,
    /// Who answers for it.
    pub owner: Option<&'a UserId>,
    /// When it runs next.
    pub next_run_at: Option<DateTime<Utc>>,
    /// Which version of it this is.
    pub version: Version<'a>,
    /// Who says so.
    pub by: &'a Actor,
}

/// Which version of a flow is written.
#[derive(Clone, Copy, Debug)]
pub enum Version<'a> {
    /// The definition did not change; the number stays.
    Same(i32),
    /// A new one, and what changed, in words.
    New(&'a str),
}

#[derive(FromRow)]
struct ConnectorRow {
    connector_id: String,
    name: String,
    r#type: String,
    service: String,
    kind: String,
    description: Option<String>,
    config: Value,
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
                config: self.config,
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

/// What an object is looked up by: its lower-cased name, whole and its last segment (of a table its own name,
/// of a file its name without directories and ending).
pub fn object_keys<'a>(objects: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut keys = Vec::new();
    for object in objects {
        let whole = object.to_lowercase();
        let last = whole.rsplit('/').next().unwrap_or(&whole);
        let segment = match last.rsplit_once('.') {
            Some((stem, "csv" | "jsonl" | "json" | "ndjson")) => stem,
            Some((_, segment)) => segment,
            None => last,
        };
        for key in [segment.to_owned(), last.to_owned(), whole.clone()] {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
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

    /// Writes a connector, new or changed; it is checked anew at the next occasion.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_connector(
        &mut self,
        id: &ConnectorId,
        record: &ConnectorRecord,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let (status, reasons) = if record.enabled {
            ("unknown", vec![StatusReason::new("NEVER_POLLED", "not checked yet", None)])
        } else {
            ("disabled", Vec::new())
        };
        let auth = match record.auth_type {
            AuthType::NoAuth => AuthStatus::NotRequired,
            _ => AuthStatus::Unknown,
        };
        self.query(PUT_CONNECTOR)
            .bind(id.as_str().to_owned())
            .bind(record.name.clone())
            .bind(exact_key(&record.name))
            .bind(record.connector_type.as_str())
            .bind(record.service.clone())
            .bind(record.kind.as_str())
            .bind(record.description.clone())
            .bind(record.config.clone())
            .bind(record.auth_type.as_str())
            .bind(record.enabled)
            .bind(record.check_interval_s)
            .bind(now)
            .bind(status)
            .bind(Json(reasons))
            .bind(auth.as_str())
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Writes a flow, new or changed, and its new version if it has one; returns the number of the version
    /// that it has now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_flow(&mut self, put: &PutFlow<'_>) -> Result<i32, StoreError> {
        let (now, record) = (self.now(), put.record);
        let version = match put.version {
            Version::Same(version) => version,
            Version::New(_) => {
                let next = self.query_as(NEXT_VERSION).bind(put.id.as_str().to_owned());
                let (version,): (i32,) = next.fetch_one(self.conn()).await?;
                version
            }
        };
        let sources: Vec<&str> = record.definition.streams.iter().map(|s| s.source_object.as_str()).collect();
        let destinations: Vec<&str> =
            record.definition.streams.iter().map(|s| s.destination_object.as_str()).collect();
        let (cron, seconds, zone) = match &record.schedule {
            Schedule::Manual => (None, None, Tz::UTC),
            Schedule::Cron { expression, zone } => (Some(expression.clone()), None, *zone),
            Schedule::Interval { seconds } => (None, Some(*seconds), Tz::UTC),
        };
        let reasons = [StatusReason::new("NEVER_RAN", "it has not run yet", None)];
        self.query(PUT_FLOW)
            .bind(put.id.as_str().to_owned())
            .bind(record.name.clone())
            .bind(record.name.to_lowercase())
            .bind(record.description.clone())
            .bind(record.state.as_str())
            .bind(put.by.label().to_owned())
            .bind(now)
            .bind(put.owner.map(|owner| owner.as_str().to_owned()))
            .bind(record.tags.clone())
            .bind(put.source.as_str().to_owned())
            .bind(put.destination.as_str().to_owned())
            .bind(sources.iter().map(|&object| object.to_owned()).collect::<Vec<_>>())
            .bind(destinations.iter().map(|&object| object.to_owned()).collect::<Vec<_>>())
            .bind(object_keys(sources))
            .bind(object_keys(destinations))
            .bind(record.schedule.kind().as_str())
            .bind(cron)
            .bind(seconds)
            .bind(zone.name())
            .bind(put.next_run_at)
            .bind(version)
            .bind(record.max_attempts)
            .bind(record.timeout_s)
            .bind(record.max_error_rate)
            .bind(record.degraded_error_rate)
            .bind(Json(reasons))
            .execute(self.conn())
            .await?;
        self.put_names(put.id, record).await?;
        if let Version::New(summary) = put.version {
            self.add_version(put.id, version, &record.definition, summary, put.by.label(), now).await?;
        }
        Ok(version)
    }

    /// Replaces the names by which a flow is found.
    async fn put_names(&mut self, flow: &FlowId, record: &FlowRecord) -> Result<(), StoreError> {
        self.query(FORGET_NAMES).bind(flow.as_str().to_owned()).execute(self.conn()).await?;
        let labels: Vec<&String> = [&record.name].into_iter().chain(&record.aliases).collect();
        self.query(ADD_NAMES)
            .bind(flow.as_str().to_owned())
            .bind(labels.iter().map(|label| exact_key(label)).collect::<Vec<_>>())
            .bind(labels.iter().map(|label| (*label).clone()).collect::<Vec<_>>())
            .bind((0..labels.len()).map(|n| if n == 0 { "name" } else { "alias" }).collect::<Vec<_>>())
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Keeps a version of a flow. Versions are never changed.
    pub(super) async fn add_version(
        &mut self,
        flow: &FlowId,
        version: i32,
        definition: &FlowDefinition,
        summary: &str,
        by: &str,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        self.query(ADD_VERSION)
            .bind(flow.as_str().to_owned())
            .bind(version)
            .bind(Json(definition.clone()))
            .bind(definition.hash().to_vec())
            .bind(summary.to_owned())
            .bind(by.to_owned())
            .bind(at)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Sets when the schedule of an active flow fires next; afterwards it goes on by itself.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run_next_at(&mut self, flow: &FlowId, at: DateTime<Utc>) -> Result<(), StoreError> {
        self.query(RUN_NEXT_AT).bind(flow.as_str().to_owned()).bind(at).execute(self.conn()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_found_by_its_last_segment() {
        assert_eq!(object_keys(["ANALYTICS.PUBLIC.CUSTOMERS"]), ["customers", "analytics.public.customers"]);
        assert_eq!(
            object_keys(["in/People.csv", "Contact"]),
            ["people", "people.csv", "in/people.csv", "contact"]
        );
        assert_eq!(object_keys(["public.people", "hr.people"]), ["people", "public.people", "hr.people"]);
    }
}
