//! One claimed run, from its checkpoint to its end: read a page, map it, write it, save what happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::EngineSettings;
use super::connectors::{Connector, Connectors, Fields, Item, Page, ReadRequest, WriteRequest};
use super::insist::insist;
use super::mapping::{self, Plan};
use super::pages::{MappedPage, Repeats, map_aside};
use super::resume::{Resumed, resume};
use crate::domain::definition::{FieldType, Stream, WriteMode};
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::domain::redact;
use crate::domain::run::{ReasonCode, Records};
use crate::store::lease_writes::{Batch, Standing};
use crate::store::leases::{Checkpoint, ClaimedRun, Lease};
use crate::store::{Ending, FoundErrors, Sample, Store, StoreError, Wakes};

/// Records after which the share of rejected ones may end a run early.
const MIN_JUDGED: i64 = 100;

/// What is to be done with a run once its execution stops.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It ends.
    End(Ending),
    /// It failed in a way that ends it, unless trying again may help.
    Fail(Failure),
    /// This process ends; another one goes on.
    Release,
    /// Nothing: another worker has it, or the database is gone and will give it to one.
    Leave,
}

/// Executes runs.
#[derive(Clone, Debug)]
pub(super) struct Executor {
    pub(super) store: Store,
    pub(super) wakes: Wakes,
    pub(super) connectors: Arc<Connectors>,
    pub(super) settings: EngineSettings,
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Fail(failure.of_a_run())
    }
}

impl From<StoreError> for Outcome {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost => tracing::warn!("the run is no longer this worker's"),
            error => tracing::error!(%error, "a run cannot be kept; it goes on once its lease ran out"),
        }
        Self::Leave
    }
}

impl Executor {
    /// Executes a run until it is done, fails, is cancelled, takes too long, or `stop`.
    pub(super) async fn execute(&self, lease: &Lease, stop: &CancellationToken) -> Outcome {
        let run = match insist(&self.store, lease, || self.store.load_run(lease)).await {
            Ok(run) => run,
            Err(error) => return error.into(),
        };
        let progress = AtomicI64::new(lease.claimed_at().timestamp_micros());
        let work = Work { executor: self, lease, run: &run, progress: &progress };
        tokio::select! {
            end = work.streams() => end.unwrap_or_else(|outcome| outcome),
            cut = self.watch(lease, &run, &progress, stop) => cut,
        }
    }

    /// Keeps the lease; returns when the run must be cut short.
    async fn watch(
        &self,
        lease: &Lease,
        run: &ClaimedRun,
        progress: &AtomicI64,
        stop: &CancellationToken,
    ) -> Outcome {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Outcome::Release,
                () = tokio::time::sleep(self.settings.heartbeat.min(lease.left(self.store.now()))) => {}
            }
            let now = self.store.now();
            if let Some(late) = too_late(run, now) {
                return Outcome::End(late);
            }
            let last = DateTime::from_timestamp_micros(progress.load(Ordering::Relaxed)).unwrap_or(now);
            if now - last > self.settings.no_progress {
                let message =
                    format!("no record moved for {} minutes", self.settings.no_progress.num_minutes());
                return Outcome::End(timed_out(&message));
            }
            let beat = insist(&self.store, lease, || self.store.heartbeat(lease, self.settings.lease));
            match beat.await {
                Ok(true) => return Outcome::End(Ending::Cancelled),
                Ok(false) => {}
                // Somebody else may have the run by now, and nothing more may be written in its name.
                Err(error) => return error.into(),
            }
        }
    }
}

/// The end of a run that takes longer than its flow allows.
fn too_late(run: &ClaimedRun, now: DateTime<Utc>) -> Option<Ending> {
    let most = TimeDelta::seconds(i64::from(run.timeout_s));
    (now - run.started_at > most)
        .then(|| timed_out(&format!("it took longer than the {} s that its flow allows", run.timeout_s)))
}

fn timed_out(message: &str) -> Ending {
    let failure = Failure::new(ErrorClass::Unavailable, "TIMEOUT", Stage::Platform, message);
    Ending::Failed { reason: ReasonCode::Timeout, failure }
}

/// The end of a run that rejects more records than its flow allows, once `least` were judged.
fn too_many_rejected(run: &ClaimedRun, records: &Records, least: i64) -> Option<Ending> {
    let (judged, most) = (records.attempted(), run.max_error_rate);
    let rate = records.error_rate().filter(|rate| judged >= least && *rate > most)?;
    let message = format!(
        "{} of {judged} records were rejected ({:.1} % > {:.1} %)",
        records.failed,
        rate * 100.0,
        most * 100.0
    );
    Some(Ending::TooManyRejected { message })
}

/// One execution.
struct Work<'a> {
    executor: &'a Executor,
    lease: &'a Lease,
    run: &'a ClaimedRun,
    /// When a record moved last, in microseconds.
    progress: &'a AtomicI64,
}

impl Work<'_> {
    async fn streams(&self) -> Result<Outcome, Outcome> {
        let definition = &self.run.definition;
        let plans = mapping::compile(definition).map_err(|errors| {
            let first = errors.first().map_or_else(String::new, ToString::to_string);
            Failure::config(&format!("the flow's definition is wrong: {first}"))
        })?;
        if let Some(name) = &self.run.switched_off {
            return Err(Failure::config(&format!("the connector '{name}' is switched off")).into());
        }
        let source = self.executor.connectors.open(&self.run.source)?;
        let destination = self.executor.connectors.open(&self.run.destination)?;
        let mut standing = Standing { cancel_requested: false, records: self.run.records };
        let Resumed { mut checkpoint, mut note } = resume(self.run)?;
        let count = definition.streams.len();
        for (place, (stream, plan)) in
            definition.streams.iter().zip(plans).enumerate().skip(checkpoint.stream)
        {
            let mut line = StreamWork {
                work: self,
                stream,
                name: stream.name(),
                cursor_key: self.run.cursor_key(stream),
                plan: Arc::new(plan),
                repeats: Repeats::of(stream),
                standing,
                checkpoint,
            };
            if note.is_some() {
                line.save(Records::default(), None, FoundErrors::default(), note.take()).await?;
            }
            line.copy(source.as_ref(), destination.as_ref()).await?;
            let event =
                (count > 1).then(|| format!("stream {} of {count} is done: {}", place + 1, line.name));
            line.checkpoint.stream += 1;
            line.checkpoint.position = None;
            line.save(Records::default(), None, FoundErrors::default(), event).await?;
            (standing, checkpoint) = (line.standing, line.checkpoint);
        }
        // However few there were: none follow that could make up for them.
        if let Some(ending) = too_many_rejected(self.run, &standing.records, 1) {
            return Ok(Outcome::End(ending));
        }
        Ok(Outcome::End(Ending::Completed { message: in_words(&standing.records) }))
    }
}

/// What a whole run did, in words.
fn in_words(records: &Records) -> String {
    match records {
        Records { read: 0, .. } => "nothing changed: there was nothing to read".to_owned(),
        Records { written: 0, failed: 0, skipped, .. } => {
            format!("nothing changed: the destination had all that was wanted of {skipped} records")
        }
        Records { written, .. } => format!("{written} records changed at the destination"),
    }
}

/// One stream under way.
struct StreamWork<'a> {
    work: &'a Work<'a>,
    stream: &'a Stream,
    name: String,
    cursor_key: String,
    plan: Arc<Plan>,
    repeats: Repeats,
    standing: Standing,
    checkpoint: Checkpoint,
}

impl StreamWork<'_> {
    async fn copy(&mut self, source: &dyn Connector, destination: &dyn Connector) -> Result<(), Outcome> {
        let plan = Arc::clone(&self.plan);
        let fields: Vec<(&str, Option<FieldType>)> = plan.fields().collect();
        let (run, attempt) = (self.work.lease.run(), self.work.lease.attempt());
        let position = self.checkpoint.position.clone();
        let request = ReadRequest {
            run,
            attempt,
            stream: self.stream,
            position: position.as_ref(),
            cursor: self.work.run.cursors.get(&self.cursor_key),
            page_records: self.work.executor.settings.page_records,
        };
        let discreet = |failure| plan.discreet(failure);
        let mut pages = source.read(request).await.map_err(discreet)?;
        let target = WriteRequest { run, attempt, stream: self.stream, fields: &fields, key: plan.key() };
        let mut sink = destination.write(target).await.map_err(discreet)?;
        while let Some(mut page) = pages.next().await.map_err(discreet)? {
            if page.items.is_empty() && page.cursor.is_none() && page.note.is_none() {
                continue;
            }
            let estimated =
                page.estimated.map(|stream| self.standing.records.read - page.first_index + stream);
            let note = page.note.take();
            let mut mapped = self.map(page).await?;
            let (mut written, mut unchanged, mut bytes) = (0, 0, 0);
            let batch: Vec<Fields> =
                mapped.wanted.iter_mut().map(|(_, fields)| std::mem::take(fields)).collect();
            if !batch.is_empty() {
                let report = sink.write(&batch).await.map_err(discreet)?;
                (written, unchanged, bytes) = (report.written, report.unchanged, report.bytes);
                let refused = report.rejected.into_iter();
                mapped.rejected.extend(
                    refused.filter_map(|(place, why)| Some((mapped.wanted.get(place)?.0, discreet(why)))),
                );
            }
            let failed = mapped.rejected.len() as i64;
            let read = mapped.page.items.len() as i64;
            let records =
                Records::new(read, written, failed, mapped.skipped + unchanged).with_unchanged(unchanged);
            let (mapped, errors) = self.errors(mapped).await?;
            self.checkpoint.position = Some(mapped.page.position.clone());
            let amounts =
                Amounts { read: mapped.page.bytes, written: bytes, estimated, cursor: mapped.page.cursor };
            self.save(records, Some(amounts), errors, note).await?;
            for (result, records) in
                [("written", records.written), ("failed", records.failed), ("skipped", records.skipped)]
            {
                let records = u64::try_from(records).unwrap_or_default();
                metrics::counter!("apixx_records_total", "result" => result).increment(records);
            }
            self.judge()?;
        }
        Ok(())
    }

    async fn map(&mut self, page: Page) -> Result<MappedPage, Outcome> {
        let mapped = map_aside(Arc::clone(&self.plan), page, CancellationToken::new()).await;
        let mut mapped = mapped.map_err(|_| {
            tracing::error!("a mapping broke");
            Failure::internal()
        })?;
        self.repeats.sort_out(&mut mapped, self.plan.key());
        Ok(mapped)
    }

    async fn save(
        &mut self,
        records: Records,
        amounts: Option<Amounts>,
        errors: FoundErrors,
        event: Option<String>,
    ) -> Result<(), Outcome> {
        let executor = self.work.executor;
        let mut amounts = amounts.unwrap_or_default();
        self.checkpoint.batch += 1;
        // What was appended must not be appended again, however the run ends.
        if self.stream.write_mode == WriteMode::Upsert
            && let Some(cursor) = amounts.cursor.take()
        {
            self.checkpoint.reached.insert(self.cursor_key.clone(), cursor);
        }
        let batch = Batch {
            checkpoint: self.checkpoint.clone(),
            records,
            bytes_read: amounts.read,
            bytes_written: amounts.written,
            estimated: amounts.estimated,
            cursor: amounts.cursor.as_ref().map(|cursor| (self.cursor_key.as_str(), cursor)),
            errors,
            event,
        };
        let (store, lease) = (&executor.store, self.work.lease);
        self.standing = insist(store, lease, || store.save_batch(lease, &batch)).await?;
        self.work.progress.store(executor.store.now().timestamp_micros(), Ordering::Relaxed);
        executor.wakes.run_changed();
        Ok(())
    }

    /// Whether the run goes on after a batch.
    fn judge(&self) -> Result<(), Outcome> {
        if self.standing.cancel_requested {
            return Err(Outcome::End(Ending::Cancelled));
        }
        if let Some(late) = too_late(self.work.run, self.work.executor.store.now()) {
            return Err(Outcome::End(late));
        }
        match too_many_rejected(self.work.run, &self.standing.records, MIN_JUDGED) {
            Some(ending) => Err(Outcome::End(ending)),
            None => Ok(()),
        }
    }

    /// What is kept of the records that were rejected, found away from the threads that wait.
    async fn errors(&self, mapped: MappedPage) -> Result<(MappedPage, FoundErrors), Outcome> {
        let (plan, stream) = (Arc::clone(&self.plan), self.name.clone());
        let found = tokio::task::spawn_blocking(move || {
            let errors = found_errors(&plan, &stream, &mapped);
            (mapped, errors)
        });
        found.await.map_err(|_| {
            tracing::error!("an excerpt broke");
            Failure::internal().into()
        })
    }
}

fn found_errors(plan: &Plan, stream: &str, mapped: &MappedPage) -> FoundErrors {
    let mut errors = FoundErrors::default();
    for (place, failure) in mapped.rejected.iter().chain(&mapped.warnings) {
        errors.add(failure.clone(), |failure| {
            let (record_key, payload) = match mapped.page.items.get(*place) {
                Some(Item::Record(fields) | Item::Bad(_, Some(Value::Object(fields)))) => {
                    (plan.record_key(fields), plan.excerpt(fields, failure.field.as_deref()))
                }
                // Nobody knows which part of a broken record is a sensitive one.
                Some(Item::Bad(_, Some(Value::String(text)))) if !plan.has_sensitive() => {
                    (None, Some(redact::line(text)))
                }
                _ => (None, None),
            };
            Sample {
                stream: stream.to_owned(),
                message: failure.message.clone(),
                record_key,
                record_index: mapped.page.first_index + *place as i64,
                payload,
            }
        });
    }
    errors
}

#[derive(Default)]
struct Amounts {
    read: i64,
    written: i64,
    estimated: Option<i64>,
    cursor: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_did_is_said_in_words() {
        assert_eq!(in_words(&Records::new(0, 0, 0, 0)), "nothing changed: there was nothing to read");
        assert!(in_words(&Records::new(7, 0, 0, 7)).starts_with("nothing changed: the destination had"));
        assert_eq!(in_words(&Records::new(7, 6, 1, 0)), "6 records changed at the destination");
    }
}
