//! Rejected records of a run, written: exact counts by group, and capped, redacted samples.

use std::collections::HashMap;

use sqlx::types::Json;

use super::{StoreError, TenantTx};
use crate::domain::failure::Failure;
use crate::domain::fingerprint::{GROUPING_VERSION, fingerprint, template};
use crate::domain::ids::{ErrorGroupId, ErrorId, FlowId, RunId};
use crate::domain::redact::Excerpt;

/// Most samples kept of one group in one run.
pub const MAX_SAMPLES: i64 = 100;

statements! {
    GROUP = plain "
        insert into error_groups as g (customer_id, group_id, flow_id, fingerprint, grouping_version, error_class, code,
               stage, origin, field, message, first_seen_at, last_seen_at, last_seen_run_id)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13)
            on conflict (customer_id, flow_id, fingerprint) do update
           set last_seen_at = greatest(g.last_seen_at, excluded.last_seen_at), last_seen_run_id = excluded.last_seen_run_id
        returning group_id";
    COUNT = plain "
        insert into run_error_counts as c (customer_id, run_id, group_id, flow_id, count, first_at, last_at)
        values ($1, $2, $3, $4, $5, $6, $6)
            on conflict (customer_id, run_id, group_id) do update
           set count = c.count + excluded.count, last_at = excluded.last_at
        returning count";
    SAMPLES = plain "
        insert into run_errors (customer_id, run_id, group_id, error_id, occurred_at, stream, attempt, message, record_key,
               record_index, payload, payload_truncated)
        select $1, $2, $3, s.error_id, $4, s.stream, $5, s.message, s.record_key, s.record_index, s.payload, s.truncated
          from unnest($6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::jsonb[], $12::boolean[])
            as s (error_id, stream, message, record_key, record_index, payload, truncated)";
}

/// One rejected record, as it may be kept.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its stream.
    pub stream: String,
    /// The sentence for this record.
    pub message: String,
    /// What identifies the record, redacted.
    pub record_key: Option<String>,
    /// Its place in the source, from 0.
    pub record_index: i64,
    /// What may be kept of it.
    pub payload: Option<Excerpt>,
}

#[derive(Clone, Debug)]
struct Group {
    failure: Failure,
    template: String,
    fingerprint: [u8; 16],
    count: i64,
    samples: Vec<Sample>,
}

/// Errors of one batch, grouped as they will be kept.
#[derive(Clone, Debug, Default)]
pub struct FoundErrors {
    groups: Vec<Group>,
    places: HashMap<[u8; 16], usize>,
}

impl FoundErrors {
    /// Counts one error. `sample` is asked for only while its group has room.
    pub fn add(&mut self, failure: Failure, sample: impl FnOnce(&Failure) -> Sample) {
        let group = self.group(failure.clone());
        group.count += 1;
        if (group.samples.len() as i64) < MAX_SAMPLES {
            group.samples.push(sample(&failure));
        }
    }

    fn group(&mut self, failure: Failure) -> &mut Group {
        let template = template(&failure.message);
        let print =
            fingerprint(failure.class, &failure.code, failure.stage, failure.field.as_deref(), &template);
        let groups = &mut self.groups;
        let place = *self.places.entry(print).or_insert_with(|| {
            groups.push(Group { failure, template, fingerprint: print, count: 0, samples: Vec::new() });
            groups.len() - 1
        });
        &mut self.groups[place]
    }

    /// What is said of the first error found, without the particulars of its record.
    pub fn first(&self) -> Option<&str> {
        self.groups.first().map(|group| group.template.as_str())
    }
}

impl TenantTx {
    /// Adds the errors of a batch to a run's.
    pub(super) async fn add_errors(
        &mut self,
        run: &RunId,
        flow: &FlowId,
        attempt: i32,
        errors: &FoundErrors,
    ) -> Result<(), StoreError> {
        for group in &errors.groups {
            let (id, total) = self.count_errors(run, flow, group).await?;
            let room = (MAX_SAMPLES - (total - group.count)).clamp(0, MAX_SAMPLES);
            let samples = &group.samples[..group.samples.len().min(usize::try_from(room).unwrap_or(0))];
            if !samples.is_empty() {
                self.add_samples(run, &id, attempt, samples).await?;
            }
        }
        Ok(())
    }

    /// Adds the failure that ended a run, which no record stands for, so that its errors say why it failed.
    pub(super) async fn add_run_failure(
        &mut self,
        run: &RunId,
        flow: &FlowId,
        attempt: i32,
        failure: &Failure,
    ) -> Result<(), StoreError> {
        let mut errors = FoundErrors::default();
        errors.group(failure.clone()).count = 1;
        self.add_errors(run, flow, attempt, &errors).await
    }

    async fn count_errors(
        &mut self,
        run: &RunId,
        flow: &FlowId,
        group: &Group,
    ) -> Result<(String, i64), StoreError> {
        let now = self.now();
        let new = ErrorGroupId::new(self.ids());
        let failure = &group.failure;
        let (id,): (String,) = self
            .query_as(GROUP)
            .bind(new.as_str().to_owned())
            .bind(flow.as_str().to_owned())
            .bind(group.fingerprint.to_vec())
            .bind(GROUPING_VERSION)
            .bind(failure.class.as_str())
            .bind(failure.code.to_string())
            .bind(failure.stage.as_str())
            .bind(failure.stage.origin().as_str())
            .bind(failure.field.clone())
            .bind(group.template.clone())
            .bind(now)
            .bind(run.as_str().to_owned())
            .fetch_one(self.conn())
            .await?;
        let (total,): (i64,) = self
            .query_as(COUNT)
            .bind(run.as_str().to_owned())
            .bind(id.clone())
            .bind(flow.as_str().to_owned())
            .bind(group.count)
            .bind(now)
            .fetch_one(self.conn())
            .await?;
        Ok((id, total))
    }

    async fn add_samples(
        &mut self,
        run: &RunId,
        group: &str,
        attempt: i32,
        samples: &[Sample],
    ) -> Result<(), StoreError> {
        let now = self.now();
        let ids: Vec<String> = samples.iter().map(|_| ErrorId::new(self.ids()).as_str().to_owned()).collect();
        let payload = |sample: &Sample| sample.payload.as_ref().map(|excerpt| Json(excerpt.value.clone()));
        self.query(SAMPLES)
            .bind(run.as_str().to_owned())
            .bind(group.to_owned())
            .bind(now)
            .bind(attempt)
            .bind(ids)
            .bind(samples.iter().map(|sample| sample.stream.clone()).collect::<Vec<_>>())
            .bind(samples.iter().map(|sample| sample.message.clone()).collect::<Vec<_>>())
            .bind(samples.iter().map(|sample| sample.record_key.clone()).collect::<Vec<_>>())
            .bind(samples.iter().map(|sample| sample.record_index).collect::<Vec<_>>())
            .bind(samples.iter().map(payload).collect::<Vec<_>>())
            .bind(
                samples
                    .iter()
                    .map(|s| s.payload.as_ref().is_some_and(|excerpt| excerpt.truncated))
                    .collect::<Vec<_>>(),
            )
            .execute(self.conn())
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::error_class::{ErrorClass, Stage};

    #[test]
    fn the_first_error_is_told_without_its_particulars() {
        let mut errors = FoundErrors::default();
        assert_eq!(errors.first(), None);
        for message in ["'Ana Example' is not a whole number", "another"] {
            errors.group(Failure::new(ErrorClass::Type, "INVALID_INTEGER", Stage::Transform, message));
        }
        assert_eq!(errors.first(), Some("<str> is not a whole number"));
    }
}
