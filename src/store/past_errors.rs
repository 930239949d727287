//! The errors of a past that is put in place: their groups, counts and samples, and what their runs and groups say of
//! them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::history::{add, short};
use super::past::{PastErrors, PastRun};
use super::{StoreError, TenantTx};
use crate::domain::error_class::ErrorClass;
use crate::domain::fingerprint::{GROUPING_VERSION, fingerprint, template};
use crate::domain::ids::hex;

statements! {
    ADD_GROUPS = plain add!("error_groups"), " on conflict (customer_id, flow_id, fingerprint) do nothing";
    ADD_COUNTS = plain "
        insert into run_error_counts (customer_id, run_id, group_id, flow_id, window_at, count, first_at, last_at)
        select $1, c.run_id, g.group_id, c.flow_id, r.window_at, c.count, c.first_at, c.last_at
          from jsonb_to_recordset($2) as c (run_id text, flow_id text, fingerprint bytea, count bigint,
                   first_at timestamptz, last_at timestamptz)
          join runs r on r.customer_id = $1 and r.run_id = c.run_id
          join error_groups g on g.customer_id = $1 and g.flow_id = c.flow_id and g.fingerprint = c.fingerprint";
    ADD_SAMPLES = plain "
        insert into run_errors (customer_id, run_id, group_id, error_id, occurred_at, attempt, message, record_key,
               payload)
        select $1, s.run_id, g.group_id, s.error_id, s.occurred_at, 1, s.message, s.record_key, s.payload
          from jsonb_to_recordset($2) as s (run_id text, flow_id text, fingerprint bytea, error_id text,
                   occurred_at timestamptz, message text, record_key text, payload jsonb)
          join error_groups g on g.customer_id = $1 and g.flow_id = s.flow_id and g.fingerprint = s.fingerprint";
    FORGET_GROUPS = plain "
        delete from error_groups g
         where g.customer_id = $1
           and not exists (select 1 from run_error_counts c where c.customer_id = $1 and c.group_id = g.group_id)";
    GROUPS_SEEN = plain "
        update error_groups g
           set first_seen_at = c.first_at, last_seen_at = c.last_at, last_seen_run_id = c.run_id
          from (select group_id, min(first_at) as first_at, max(last_at) as last_at,
                       (array_agg(run_id order by last_at desc, run_id desc))[1] as run_id
                  from run_error_counts
                 where customer_id = $1
                 group by group_id) c
         where g.customer_id = $1 and g.group_id = c.group_id";
    RUN_GROUPS = plain "
        update runs r
           set error_groups = c.groups, top_error_class = c.top
          from (select k.run_id, sum(k.groups)::integer as groups,
                       (array_agg(k.error_class order by k.errors desc, k.error_class))[1] as top
                  from (select c.run_id, g.error_class, count(*) as groups, sum(c.count) as errors
                          from run_error_counts c
                          join error_groups g on g.customer_id = $1 and g.group_id = c.group_id
                         where c.customer_id = $1
                         group by c.run_id, g.error_class) k
                 group by k.run_id) c
         where r.customer_id = $1 and r.run_id = c.run_id and r.worker_id = 'demo'";
}

#[derive(Serialize)]
struct GroupRow {
    group_id: String,
    flow_id: &'static str,
    fingerprint: String,
    grouping_version: i16,
    error_class: ErrorClass,
    code: &'static str,
    stage: &'static str,
    origin: &'static str,
    field: Option<&'static str>,
    message: String,
    first_seen_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
    last_seen_run_id: String,
}

#[derive(Serialize)]
struct CountRow<'a> {
    run_id: &'a str,
    flow_id: &'static str,
    fingerprint: String,
    count: i64,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct SampleRow<'a> {
    run_id: &'a str,
    flow_id: &'static str,
    fingerprint: String,
    error_id: String,
    occurred_at: DateTime<Utc>,
    message: &'a str,
    record_key: Option<&'a str>,
    payload: Option<&'a Value>,
}

impl TenantTx {
    /// Adds the errors of `runs`, whose rows are written already.
    pub(super) async fn add_past_errors(&mut self, runs: &[&PastRun]) -> Result<(), StoreError> {
        let mut groups: BTreeMap<(&str, String), GroupRow> = BTreeMap::new();
        let (mut counts, mut samples) = (Vec::new(), Vec::new());
        for (run, errors) in runs.iter().flat_map(|run| run.errors.iter().map(move |errors| (*run, errors))) {
            let print = print_of(errors);
            groups.entry((run.flow_id, print.clone())).or_insert_with(|| group(run, errors, &print));
            for (n, sample) in errors.samples.iter().enumerate() {
                samples.push(SampleRow {
                    run_id: &run.run_id,
                    flow_id: run.flow_id,
                    fingerprint: print.clone(),
                    error_id: format!(
                        "err_{}",
                        short(&[&run.run_id, &print, &format!("{n:03}")], &format!("{n:03}"))
                    ),
                    occurred_at: sample.at,
                    message: &sample.message,
                    record_key: sample.record_key.as_deref(),
                    payload: sample.payload.as_ref(),
                });
            }
            counts.push(CountRow {
                run_id: &run.run_id,
                flow_id: run.flow_id,
                fingerprint: print,
                count: errors.count,
                first_at: errors.first_at,
                last_at: errors.last_at,
            });
        }
        self.query(FORGET_GROUPS).execute(self.conn()).await?;
        self.add_rows(ADD_GROUPS, &groups.into_values().collect::<Vec<_>>()).await?;
        self.add_rows(ADD_COUNTS, &counts).await?;
        self.add_rows(ADD_SAMPLES, &samples).await?;
        for text in [GROUPS_SEEN, RUN_GROUPS] {
            self.query(text).execute(self.conn()).await?;
        }
        Ok(())
    }
}

/// The fingerprint of errors that were, as PostgreSQL reads it.
fn print_of(errors: &PastErrors) -> String {
    let template = template(&errors.message);
    format!("\\x{}", hex(&fingerprint(errors.class, errors.code, errors.stage, errors.field, &template)))
}

fn group(run: &PastRun, errors: &PastErrors, print: &str) -> GroupRow {
    GroupRow {
        group_id: format!("eg_{}", short(&[run.flow_id, print], "")),
        flow_id: run.flow_id,
        fingerprint: print.to_owned(),
        grouping_version: GROUPING_VERSION,
        error_class: errors.class,
        code: errors.code,
        stage: errors.stage.as_str(),
        origin: errors.stage.origin().as_str(),
        field: errors.field,
        message: template(&errors.message),
        first_seen_at: errors.first_at,
        last_seen_at: errors.last_at,
        last_seen_run_id: run.run_id.clone(),
    }
}
