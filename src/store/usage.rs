//! What callers use: permits leased from the customer's bucket, and usage counted per token and tool.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::FromRow;

use super::connections::ANSWER;
use super::{Reader, Store, StoreError, Tenancy};
use crate::domain::ids::TokenId;

/// How long the bucket may take to answer: all of a customer wait for it.
const PATIENCE: Duration = Duration::from_secs(2);

statements! {
    LEASE = plain "select granted, retry_after_s, left_over from lease_permits($1, $2, $3, $4, $5, $6)";
    RETURN = plain "select return_permits($1, $2, $3, $4)";
    BY_TOOL = tenant "
        select h.tool, sum(h.calls)::bigint as calls, sum(h.errors)::bigint as errors,
               sum(h.duration_ms)::bigint as duration_ms
          from usage_hourly h
         where h.customer_id = $1 and caller.id = $1 and h.hour >= $4
         group by h.tool
         order by 2 desc, 1
        offset 0";
    FLUSH = plain "select flush_usage($1, $2, $3, $4, $5, $6, $7, $8, $9)";
}

/// What came of asking for permits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Permits {
    /// Some requests may be served.
    Granted {
        /// How many.
        permits: u32,
        /// How many the bucket still holds.
        left: u32,
    },
    /// None now; the wait until one is.
    Exhausted(Duration),
}

/// What one token did with one tool since the last flush.
#[derive(Clone, Debug)]
pub struct Used {
    /// Whose token.
    pub tenancy: Tenancy,
    /// Which token.
    pub token: TokenId,
    /// Which tool; `-` for requests that called none.
    pub tool: String,
    /// How many calls.
    pub calls: i64,
    /// Of these, answered with an error.
    pub errors: i64,
    /// Their time in all, in milliseconds.
    pub duration_ms: i64,
    /// When the last was.
    pub last_used_at: DateTime<Utc>,
    /// By which client, as it calls itself.
    pub client: Option<String>,
    /// From which address.
    pub ip: Option<String>,
}

/// What all tokens of a customer did with one tool.
#[derive(Clone, Debug, FromRow)]
pub struct ToolUse {
    /// Which tool; `-` for requests that called none.
    pub tool: String,
    /// How many calls.
    pub calls: i64,
    /// Of these, answered with an error; of those that called no tool, refused by the limits of the plan.
    pub errors: i64,
    /// Their time in all, in milliseconds.
    pub duration_ms: i64,
}

impl Reader<'_> {
    /// What was done with each tool since `since`, the busiest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn use_by_tool(&self, since: DateTime<Utc>) -> Result<Vec<ToolUse>, StoreError> {
        Ok(self.query_as(BY_TOOL).bind(since).fetch_all(self.store().reads()).await?)
    }
}

impl Store {
    /// Takes up to `wanted` permits from the customer's bucket, for a process of this name, once it has given back
    /// what it did not use of its last ones. They count as the process's until it comes again, or for `length`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lease_permits(
        &self,
        tenancy: &Tenancy,
        process: &str,
        wanted: u32,
        returned: u32,
        length: TimeDelta,
    ) -> Result<Permits, StoreError> {
        let now = self.now();
        let asked = sqlx::query_as(LEASE)
            .bind(tenancy.customer().as_str())
            .bind(process)
            .bind(i32::try_from(wanted).unwrap_or(i32::MAX))
            .bind(i32::try_from(returned).unwrap_or(i32::MAX))
            .bind(now)
            .bind(now + length);
        let lent = self.pool().lend().await?;
        let asked = lent.within(PATIENCE, async |connection| asked.fetch_optional(connection).await).await;
        let row: Option<(i32, f64, f64)> = asked.map_err(StoreError::of_commit)?;
        let (granted, retry_after_s, left) = row.ok_or(StoreError::NotLive)?;
        Ok(match u32::try_from(granted) {
            Ok(permits) if permits > 0 => Permits::Granted { permits, left: left.max(0.0) as u32 },
            _ => Permits::Exhausted(Duration::from_secs_f64(retry_after_s.clamp(0.001, 86_400.0))),
        })
    }

    /// Gives back what a process of this name leased and did not use, for all customers in one statement.
    ///
    /// # Errors
    /// When the database fails; nothing was given back then, unless it is [`StoreError::Unknown`].
    pub async fn return_permits(&self, process: &str, unused: &[(Tenancy, u32)]) -> Result<(), StoreError> {
        let customers: Vec<&str> = unused.iter().map(|(tenancy, _)| tenancy.customer().as_str()).collect();
        let permits: Vec<i32> =
            unused.iter().map(|(_, permits)| i32::try_from(*permits).unwrap_or(i32::MAX)).collect();
        let returned = sqlx::query(RETURN).bind(customers).bind(permits).bind(process).bind(self.now());
        let lent = self.pool().lend().await?;
        let done = lent.within(PATIENCE, async |connection| returned.execute(connection).await).await;
        done.map(drop).map_err(StoreError::of_commit)
    }

    /// Adds what this process counted since its last flush, in one statement for all customers.
    ///
    /// # Errors
    /// When the database fails; nothing was added then, unless it is [`StoreError::Unknown`].
    pub async fn flush_usage(&self, used: &[Used]) -> Result<(), StoreError> {
        let texts = |of: fn(&Used) -> String| used.iter().map(of).collect::<Vec<_>>();
        let numbers = |of: fn(&Used) -> i64| used.iter().map(of).collect::<Vec<_>>();
        let flushed = sqlx::query(FLUSH)
            .bind(texts(|u| u.tenancy.customer().to_string()))
            .bind(texts(|u| u.token.to_string()))
            .bind(texts(|u| u.tool.clone()))
            .bind(numbers(|u| u.calls))
            .bind(numbers(|u| u.errors))
            .bind(numbers(|u| u.duration_ms))
            .bind(used.iter().map(|u| u.last_used_at).collect::<Vec<_>>())
            .bind(used.iter().map(|u| u.client.clone()).collect::<Vec<_>>())
            .bind(used.iter().map(|u| u.ip.clone()).collect::<Vec<_>>());
        let lent = self.pool().lend_well().await?;
        let done = lent.within(ANSWER, async |connection| flushed.execute(connection).await).await;
        done.map(drop).map_err(StoreError::of_commit)
    }
}
