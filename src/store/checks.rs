//! Connector checks: who is due, and what was observed.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::FromRow;
use sqlx::types::Json;

use super::leases::ConnectorConfig;
use super::{Store, StoreError, Tenancy, TenantTx};
use crate::domain::connector::{AuthStatus, ConnectorStatus};
use crate::domain::error_class::Origin;
use crate::domain::failure::Failure;
use crate::domain::flow::StatusReason;
use crate::domain::health::{ConnectorCheck, connector_status};
use crate::domain::ids::{ConnectorId, RunId};

statements! {
    CLAIM = plain "select * from claim_checks($1, $2, $3)";
    CONNECTOR = tenant "
        select jsonb_build_object('id', c.connector_id, 'name', c.name, 'kind', c.kind, 'config', c.config) as connector
          from connectors c
         where c.customer_id = $1 and c.connector_id = $4 and caller.id = $1
        offset 0";
    BEFORE = plain "
        select check_interval_s, consecutive_failures, auth_status, auth_error, auth_expires_at, status, status_reasons
          from connectors
         where customer_id = $1 and connector_id = $2 and enabled and check_lease_until = $3
           for no key update";
    QUOTA = plain "
        insert into connector_quotas (customer_id, connector_id, name, unit, used, quota_limit, resets_at, throttled_1h,
               observed_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            on conflict (customer_id, connector_id, name) do update
           set unit = excluded.unit, used = excluded.used, quota_limit = excluded.quota_limit,
               resets_at = excluded.resets_at, throttled_1h = excluded.throttled_1h, observed_at = excluded.observed_at";
    FORGET_QUOTAS = plain "
        delete from connector_quotas
         where customer_id = $1 and connector_id = $2 and name <> all ($3)";
    QUOTAS = plain "
        select name, used, quota_limit, throttled_1h
          from connector_quotas
         where customer_id = $1 and connector_id = $2
         order by name";
    // A check that was asked for meanwhile is due: this one may have seen what was before.
    AFTER = plain "
        update connectors
           set last_check_at = $3, last_check_ok = $4, last_check_ms = $5, last_check_error = $6,
               consecutive_failures = $7, check_lease_until = null,
               next_check_at = case when next_check_at = check_lease_until then $8 else next_check_at end,
               auth_status = $9, auth_error = $10, auth_expires_at = $11, auth_checked_at = $3,
               status = $12, status_reasons = $13,
               status_since = case when status = $12 then status_since else $3 end
         where customer_id = $1 and connector_id = $2";
    // Whoever holds a connector's row is not waited for: it is about to say how the connector is.
    CHECK_SOON = plain "
        update connectors c
           set next_check_at = $3
          from (select u.connector_id from connectors u
                  join runs r on r.customer_id = $1 and r.run_id = $2
                   and ((u.connector_id = r.source_connector_id and $4 <> 'destination')
                     or (u.connector_id = r.destination_connector_id and $4 <> 'source'))
                 where u.customer_id = $1 and u.enabled and u.next_check_at > $3
                   for no key update of u skip locked) due
         where c.customer_id = $1 and c.connector_id = due.connector_id";
}

/// The right to check one connector until the lease runs out.
#[derive(Debug)]
#[must_use = "a dropped lease keeps its connector from being checked until it expires"]
pub struct CheckLease {
    tenancy: Tenancy,
    connector: ConnectorId,
    until: DateTime<Utc>,
}

/// An allowance at the other system, as a check saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct QuotaSeen {
    /// Its name there.
    pub name: String,
    /// What is counted.
    pub unit: String,
    /// How much is used.
    pub used: i64,
    /// How much there is.
    pub limit: i64,
    /// When it starts anew.
    pub resets_at: Option<DateTime<Utc>>,
    /// Throttled answers in the last hour.
    pub throttled_1h: i32,
}

/// What a check observed.
#[derive(Clone, Debug)]
pub struct CheckSeen {
    /// What went wrong with reaching it, in a redacted sentence; `None` when it answered.
    pub error: Option<String>,
    /// What is known of the authorization; `None` when the check could not tell.
    pub auth: Option<AuthSeen>,
    /// Its allowances, all of them when it answered.
    pub quotas: Vec<QuotaSeen>,
    /// How long it took, in milliseconds.
    pub took_ms: i32,
}

/// What a check learnt of the authorization.
#[derive(Clone, Debug)]
pub struct AuthSeen {
    /// Whether it works.
    pub status: AuthStatus,
    /// What the other side said, redacted.
    pub error: Option<String>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

#[derive(FromRow)]
struct BeforeRow {
    check_interval_s: i32,
    consecutive_failures: i32,
    auth_status: String,
    auth_error: Option<String>,
    auth_expires_at: Option<DateTime<Utc>>,
    status: String,
    status_reasons: Json<Vec<StatusReason>>,
}

impl Store {
    /// Leases up to `most` connectors that are due for a check, until `lease` from now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_checks(&self, most: i32, lease: TimeDelta) -> Result<Vec<CheckLease>, StoreError> {
        let until = self.now() + lease;
        let rows: Vec<(String, String)> =
            sqlx::query_as(CLAIM).bind(self.now()).bind(until).bind(most).fetch_all(self.pool()).await?;
        rows.into_iter()
            .map(|(customer, connector)| {
                let connector = ConnectorId::parse(&connector)
                    .map_err(|_| StoreError::inconsistent("connectors", "connector_id"))?;
                Ok(CheckLease { tenancy: Tenancy::of_row(&customer)?, connector, until })
            })
            .collect()
    }

    /// The connector that a check is for.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when it is gone; otherwise when the database fails.
    pub async fn checked_connector(&self, lease: &CheckLease) -> Result<ConnectorConfig, StoreError> {
        let row: Option<(Json<ConnectorConfig>,)> = self
            .read(&lease.tenancy)
            .query_as(CONNECTOR)
            .bind(lease.connector.as_str().to_owned())
            .fetch_optional(self.pool())
            .await?;
        row.map(|(connector,)| connector.0).ok_or(StoreError::LeaseLost)
    }

    /// Writes what a check observed, the connector's status after it, and the health of its flows where that
    /// status changed. `jitter` (0 to 1) spreads the next check over ± 10 % of the interval.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when the connector was switched off meanwhile, or someone else checks it.
    pub async fn save_check(
        &self,
        lease: CheckLease,
        seen: &CheckSeen,
        jitter: f64,
    ) -> Result<ConnectorStatus, StoreError> {
        let mut tx = self.begin(&lease.tenancy).await?;
        let now = tx.now();
        let id = lease.connector.as_str();
        let before: Option<BeforeRow> =
            tx.query_as(BEFORE).bind(id.to_owned()).bind(lease.until).fetch_optional(tx.conn()).await?;
        let before = before.ok_or(StoreError::LeaseLost)?;
        for quota in &seen.quotas {
            tx.put_quota(id, quota, now).await?;
        }
        if seen.error.is_none() {
            let names: Vec<String> = seen.quotas.iter().map(|quota| quota.name.clone()).collect();
            tx.query(FORGET_QUOTAS).bind(id.to_owned()).bind(names).execute(tx.conn()).await?;
        }
        let quotas: Vec<(String, i64, i64, i32)> =
            tx.query_as(QUOTAS).bind(id.to_owned()).fetch_all(tx.conn()).await?;
        let known = AuthStatus::parse(&before.auth_status)
            .ok_or(StoreError::inconsistent("connectors", "auth_status"))?;
        let (auth_status, auth_error, auth_expires_at) = match &seen.auth {
            Some(auth) => (auth.status, auth.error.clone(), auth.expires_at),
            None => (known, before.auth_error, before.auth_expires_at),
        };
        let failures = if seen.error.is_some() { before.consecutive_failures + 1 } else { 0 };
        let (status, reasons) = connector_status(&ConnectorCheck {
            auth_status,
            auth_error: auth_error.clone(),
            consecutive_failures: failures,
            last_error: seen.error.clone(),
            quotas: quotas.iter().map(|(name, used, limit, _)| (name.clone(), *used, *limit)).collect(),
            throttled_1h: quotas.iter().map(|quota| quota.3).sum(),
        });
        tx.query(AFTER)
            .bind(id.to_owned())
            .bind(now)
            .bind(seen.error.is_none())
            .bind(seen.took_ms)
            .bind(seen.error.clone())
            .bind(failures)
            .bind(now + until_next(before.check_interval_s, failures, jitter))
            .bind(auth_status.as_str())
            .bind(auth_error)
            .bind(auth_expires_at)
            .bind(status.as_str())
            .bind(Json(dated(reasons, &before.status_reasons, now)))
            .execute(tx.conn())
            .await?;
        if status.as_str() != before.status {
            tx.refresh_flows_of(&lease.connector).await?;
        }
        tx.commit().await?;
        Ok(status)
    }
}

impl TenantTx {
    /// Writes an allowance of a connector, as it was seen at `at`.
    pub(super) async fn put_quota(
        &mut self,
        connector: &str,
        quota: &QuotaSeen,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        self.query(QUOTA)
            .bind(connector.to_owned())
            .bind(quota.name.clone())
            .bind(quota.unit.clone())
            .bind(quota.used)
            .bind(quota.limit)
            .bind(quota.resets_at)
            .bind(quota.throttled_1h)
            .bind(at)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Has the connector checked at once that `failure` of a run says something of: the side it comes from, or both
    /// where that is not known.
    pub(super) async fn check_connectors_of(
        &mut self,
        run: &RunId,
        failure: &Failure,
    ) -> Result<(), StoreError> {
        if !failure.class.is_of_the_connector() {
            return Ok(());
        }
        let now = self.now();
        let origin: Origin = failure.stage.origin();
        self.query(CHECK_SOON)
            .bind(run.as_str().to_owned())
            .bind(now)
            .bind(origin.as_str())
            .execute(self.conn())
            .await?;
        Ok(())
    }
}

/// The time to the next check: the interval, or less after failures; ± 10 %.
fn until_next(interval_s: i32, failures: i32, jitter: f64) -> TimeDelta {
    let seconds = match failures {
        0 => interval_s,
        1 => interval_s.min(30),
        2 => interval_s.min(60),
        3 => interval_s.min(120),
        _ => interval_s.min(300),
    };
    TimeDelta::milliseconds((f64::from(seconds) * 1_000.0 * (0.9 + 0.2 * jitter)) as i64)
}

/// Each reason since when it holds: as before where it held then, else now.
fn dated(reasons: Vec<StatusReason>, before: &[StatusReason], now: DateTime<Utc>) -> Vec<StatusReason> {
    let since = |code: &str| before.iter().find(|reason| reason.code == code).and_then(|reason| reason.since);
    reasons
        .into_iter()
        .map(|reason| StatusReason { since: Some(since(&reason.code).unwrap_or(now)), ..reason })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_looked_at_sooner() {
        let seconds = |failures| until_next(300, failures, 0.5).num_seconds();
        assert_eq!([0, 1, 2, 3, 4, 9].map(seconds), [300, 30, 60, 120, 300, 300]);
        assert_eq!(until_next(10, 1, 0.5).num_seconds(), 10);
        assert_eq!(until_next(300, 0, 0.0).num_seconds(), 270);
        assert_eq!(until_next(300, 0, 1.0).num_seconds(), 330);
    }

    #[test]
    fn a_reason_keeps_its_beginning() {
        let then = DateTime::from_timestamp(1_000, 0).unwrap();
        let now = DateTime::from_timestamp(2_000, 0).unwrap();
        let old = [StatusReason::new("POLL_FAILED", "the last check failed: x", Some(then))];
        let new = vec![
            StatusReason::new("POLL_FAILED", "the last check failed: y", None),
            StatusReason::new("THROTTLED", "", None),
        ];
        let since: Vec<_> = dated(new, &old, now).into_iter().map(|reason| reason.since).collect();
        assert_eq!(since, [Some(then), Some(now)]);
    }
}
