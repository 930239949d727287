//! The customer's own queue, and how the platform behind it does.

use sqlx::FromRow;

use super::{Reader, StoreError};

statements! {
    // What is ready is what the door `claim_runs` would take: a retry whose time has come, and no queued run of a flow that
    // has another one going.
    QUEUE = tenant "
        select count(*) filter (where r.status = 'queued') as queued,
               count(*) filter (where r.ready) as ready,
               count(*) filter (where r.status = 'retrying' and not r.ready) as delayed,
               count(*) filter (where r.status in ('running', 'cancelling')) as running,
               extract(epoch from $3 - min(r.available_at) filter (where r.ready))::bigint as oldest_wait_s,
               (select p.max_concurrent_runs from customers c join plans p on p.plan_code = c.plan_code
                 where c.customer_id = $1) as max_concurrent_runs,
               (select count(*) from workers w where w.seen_at > $3 - interval '2 minutes') as workers_alive,
               (select extract(epoch from $3 - min(c.next_check_at))::bigint
                  from (select c.next_check_at from connectors c
                         where c.customer_id = $1 and c.enabled and c.next_check_at <= $3
                         order by c.connector_id offset 0) c) as checker_lag_s,
               coalesce((select a.requests from allowances a
                          where a.customer_id = $1 and a.day = ($3 at time zone 'UTC')::date), 0) as requests_today
          from (select o.status, o.available_at,
                       o.origin = 'native' and o.available_at <= $3
                       and (o.status = 'retrying'
                            or o.status = 'queued'
                               and not bool_or(o.origin = 'native' and o.status <> 'queued') over (partition by o.flow_id)) as ready
                  from runs o
                 where o.customer_id = $1 and caller.id = $1
                   and o.status in ('queued', 'running', 'retrying', 'cancelling')) r
        having caller.id = $1
        offset 0";
}

/// The customer's own queue, and how the platform behind it does.
#[derive(Clone, Debug, FromRow)]
pub struct Queue {
    /// Runs waiting for their first attempt.
    pub queued: i64,
    /// Runs that may start now: those queued that no other run of their flow holds back, and retries whose time has come.
    pub ready: i64,
    /// Runs whose next attempt is to come later.
    pub delayed: i64,
    /// Runs going.
    pub running: i64,
    /// How long the oldest ready one has waited, in seconds.
    pub oldest_wait_s: Option<i64>,
    /// How many may go at once.
    pub max_concurrent_runs: Option<i32>,
    /// Worker processes heard of in the last two minutes.
    pub workers_alive: i64,
    /// How long the oldest due check has waited, in seconds.
    pub checker_lag_s: Option<i64>,
    /// Requests drawn today (UTC).
    pub requests_today: i64,
}

impl Reader<'_> {
    /// The customer's queue now.
    ///
    /// # Errors
    /// [`StoreError::NotLive`] when the token was revoked meanwhile; when the database fails.
    pub async fn queue(&self) -> Result<Queue, StoreError> {
        Ok(self.query_as(QUEUE).fetch_one(self.store().reads()).await?)
    }
}
