//! Connectors and flows, written as they are defined.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use sqlx::types::Json;

use super::customers::Actor;
use super::definitions::{ConnectorRecord, FlowRecord};
use super::{StoreError, TenantTx};
use crate::domain::connector::{AuthStatus, AuthType};
use crate::domain::definition::FlowDefinition;
use crate::domain::flow::StatusReason;
use crate::domain::ids::{ConnectorId, FlowId, UserId};
use crate::domain::names::exact_key;
use crate::domain::schedule::Schedule;

statements! {
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
               status_since = excluded.status_since,
               auth_status = excluded.auth_status, auth_error = null, auth_expires_at = null, auth_checked_at = null,
               check_lease_until = null, consecutive_failures = 0";
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
               health_checked_at = excluded.health_checked_at,
               schedule_changed_at = case
                   when (flows.schedule_kind, flows.schedule_cron, flows.schedule_interval_s, flows.schedule_timezone)
                        is distinct from
                        (excluded.schedule_kind, excluded.schedule_cron, excluded.schedule_interval_s,
                         excluded.schedule_timezone)
                   then excluded.created_at else flows.schedule_changed_at end";
    FORGET_NAMES = plain "
        delete from flow_names
         where customer_id = $1 and flow_id = any($2)";
    ADD_NAMES = plain "
        insert into flow_names (customer_id, name_key, flow_id, label, kind)
        select $1, n.name_key, $2, n.label, n.kind
          from unnest($3::text[], $4::text[], $5::text[]) as n (name_key, label, kind)";
    NEXT_VERSION = plain "
        select coalesce(max(version), 0) + 1
          from flow_versions
         where customer_id = $1 and flow_id = $2";
    ADD_VERSION = plain "
        insert into flow_versions (customer_id, flow_id, version, definition, summary, created_by, created_at)
        values ($1, $2, $3, $4, $5, $6, $7)";
    RUN_NEXT_AT = plain "
        update flows set next_run_at = $3
         where customer_id = $1 and flow_id = $2 and state = 'active'";
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

/// Segments that names of tables have at most: catalogue, database, schema, table.
const MAX_SEGMENTS: usize = 4;

/// What an object is looked up by: its lower-cased name, whole and from each of its last segments on (of a table its own
/// name, and the same qualified less and less; of a file its name without directories, and without ending).
fn object_keys<'a>(objects: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut keys = Vec::new();
    for object in objects {
        let whole = object.to_lowercase();
        let last = whole.rsplit('/').next().unwrap_or(&whole);
        let mut parts = match last.rsplit_once('.') {
            Some((stem, "csv" | "jsonl" | "json" | "ndjson")) => vec![stem],
            _ => last.rmatch_indices('.').take(MAX_SEGMENTS - 1).map(|(dot, _)| &last[dot + 1..]).collect(),
        };
        parts.extend([last, &whole]);
        for key in parts {
            if !keys.iter().any(|known| known == key) {
                keys.push(key.to_owned());
            }
        }
    }
    keys
}

impl TenantTx {
    /// Writes a connector, new or changed; it is checked anew at the next occasion, and what was seen of it before, or is
    /// being looked at now, does not count.
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
    /// that it has now. The names of one that is changed were forgotten before.
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

    /// Takes from flows the names by which they are found, of all that are written together before the first one is: a
    /// name may go from one to another.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_names<'a>(
        &mut self,
        flows: impl IntoIterator<Item = &'a FlowId>,
    ) -> Result<(), StoreError> {
        let ids: Vec<String> = flows.into_iter().map(|flow| flow.as_str().to_owned()).collect();
        self.query(FORGET_NAMES).bind(ids).execute(self.conn()).await?;
        Ok(())
    }

    /// Writes the names by which a flow is found.
    async fn put_names(&mut self, flow: &FlowId, record: &FlowRecord) -> Result<(), StoreError> {
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
        assert_eq!(
            object_keys(["ANALYTICS.PUBLIC.CUSTOMERS"]),
            ["customers", "public.customers", "analytics.public.customers"]
        );
        assert_eq!(object_keys(["a.b.c.d.e.f"]), ["f", "e.f", "d.e.f", "a.b.c.d.e.f"]);
        assert_eq!(
            object_keys(["in/People.csv", "Contact"]),
            ["people", "people.csv", "in/people.csv", "contact"]
        );
        assert_eq!(object_keys(["public.people", "hr.people"]), ["people", "public.people", "hr.people"]);
    }
}
