//! A scripted system: it answers checks, gives records and takes them as its configuration says, without a
//! network. The demo workspaces run on it, and tests script their faults with it.
//!
//! What happens to record `n` of a run depends on the run's id and `n` alone, so a resumed run goes on as the
//! interrupted one would have.

use std::time::Duration;

use chrono::{NaiveTime, TimeDelta};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::sim_script::{Config, Fault, Quota, Script};
use super::{
    CheckReport, Connector, Fields, Item, Pacer, Page, ReadRequest, Sink, Source, WriteReport, WriteRequest,
    configuration,
};
use crate::domain::clock::Clock;
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::store::checks::{AuthSeen, QuotaSeen};

/// Most records of one run.
const MAX_RECORDS: i64 = 10_000_000;

/// A scripted system.
#[derive(Debug)]
pub(super) struct Sim {
    script: Script,
    pacer: Pacer,
    clock: Clock,
}

impl Sim {
    pub(super) fn open(config: &Value, pacer: Pacer, clock: Clock) -> Result<Self, Failure> {
        let Config { sim: script, .. } = configuration(config)?;
        let counts = script.objects.values().filter_map(|object| object.records).chain(script.records);
        if counts.into_iter().any(|records| !(0..=MAX_RECORDS).contains(&records)) {
            return Err(Failure::config(&format!("a scripted source gives 0 to {MAX_RECORDS} records")));
        }
        Ok(Self { script, pacer, clock })
    }

    /// Why nothing can be done with it, as a run would see it.
    fn refusal(&self, stage: Stage) -> Result<(), Failure> {
        let broken = self.script.auth_status.filter(|status| status.is_broken());
        if let Some(status) = broken {
            let said =
                self.script.auth_error.clone().unwrap_or_else(|| format!("the authorization is {status}"));
            return Err(Failure::new(ErrorClass::Auth, "AUTH_EXPIRED", stage, &said));
        }
        match &self.script.down {
            Some(why) => Err(Failure::new(ErrorClass::Connectivity, "CONNECTION_FAILED", stage, why)),
            None => Ok(()),
        }
    }
}

impl Connector for Sim {
    fn check(&self) -> BoxFuture<'_, CheckReport> {
        let now = self.clock.now();
        let later = |seconds: Option<i32>| seconds.map(|seconds| now + TimeDelta::seconds(seconds.into()));
        let auth = self.script.auth_status.map(|status| AuthSeen {
            status,
            error: self.script.auth_error.clone(),
            expires_at: later(self.script.auth_expires_in_s),
        });
        let midnight = (now + TimeDelta::days(1)).date_naive().and_time(NaiveTime::MIN).and_utc();
        let quota = |quota: &Quota| QuotaSeen {
            name: quota.name.clone(),
            unit: quota.unit.clone(),
            used: quota.used,
            limit: quota.limit,
            resets_at: if quota.resets_daily { Some(midnight) } else { later(quota.resets_in_s) },
            throttled_1h: quota.throttled_1h,
        };
        let report = CheckReport {
            error: self.script.down.clone(),
            auth,
            quotas: self.script.quotas.iter().map(quota).collect(),
        };
        std::future::ready(report).boxed()
    }

    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Box<dyn Source>, Failure>> {
        async move {
            self.refusal(Stage::Extract)?;
            let name = &request.stream.source_object;
            let own = self.script.objects.get(name).cloned().unwrap_or_default();
            let seed = Dice::new(request.run.as_str(), name);
            let median = own.records.or(self.script.records).unwrap_or(100);
            let spread = own.spread.or(self.script.spread).unwrap_or(0.0);
            let total = (median as f64 * (1.0 + spread * (2.0 * seed.roll(0, "total") - 1.0)))
                .round()
                .max(0.0) as i64;
            let seconds = own.seconds.or(self.script.seconds).unwrap_or(0.0).clamp(0.0, 86_400.0);
            let template = own.template.or_else(|| self.script.template.clone());
            let source = SimSource {
                template: template.unwrap_or_else(|| {
                    let plain = json!({"id": "{n}", "name": format!("{name} {{n}}")});
                    plain.as_object().cloned().unwrap_or_default()
                }),
                given: request.position.and_then(|position| position["given"].as_i64()).unwrap_or(0),
                total,
                pause: Duration::from_secs_f64(seconds / total.max(1) as f64),
                // Progress shows in some forty steps.
                page: request.page_records.min(usize::try_from(total / 40).unwrap_or(0).max(1)),
                fault: self.script.fail_read.clone(),
                attempt: request.attempt,
                pacer: if seconds > 0.0 { self.pacer } else { Pacer::Instant },
                page_records: request.page_records,
                dice: seed,
            };
            Ok(Box::new(source) as Box<dyn Source>)
        }
        .boxed()
    }

    fn write<'a>(&'a self, request: WriteRequest<'a>) -> BoxFuture<'a, Result<Box<dyn Sink>, Failure>> {
        async move {
            self.refusal(Stage::Load)?;
            let sink = SimSink {
                dice: Dice::new(request.run.as_str(), &request.stream.destination_object),
                key: request.key.to_vec(),
                script: self.script.clone(),
                attempt: request.attempt,
                taken: 0,
            };
            Ok(Box::new(sink) as Box<dyn Sink>)
        }
        .boxed()
    }
}

/// Chance that is the same for the same run, object, place and purpose.
#[derive(Clone, Debug)]
struct Dice(String);

impl Dice {
    fn new(run: &str, object: &str) -> Self {
        Self(format!("{run}\u{1f}{object}"))
    }

    /// A number in `0..1`.
    fn roll(&self, place: i64, purpose: &str) -> f64 {
        self.roll_text(&place.to_string(), purpose)
    }

    fn roll_text(&self, place: &str, purpose: &str) -> f64 {
        let digest: [u8; 32] = Sha256::digest(format!("{}\u{1f}{purpose}\u{1f}{place}", self.0)).into();
        let bits = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

struct SimSource {
    template: Fields,
    given: i64,
    total: i64,
    pause: Duration,
    page: usize,
    page_records: usize,
    fault: Option<Fault>,
    attempt: i32,
    pacer: Pacer,
    dice: Dice,
}

impl Source for SimSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Page>, Failure>> {
        async move {
            if let Some(fault) = self.fault.as_ref().filter(|fault| fault.strikes(self.given, self.attempt)) {
                return Err(fault.failure(Stage::Extract));
            }
            let paced = self.pacer == Pacer::Real;
            let most = if paced { self.page } else { self.page_records };
            let mut count = i64::try_from(most).unwrap_or(1).min(self.total - self.given);
            if let Some(fault) =
                self.fault.as_ref().filter(|fault| fault.strikes(self.given + count, self.attempt))
            {
                count = count.min(fault.after - self.given);
            }
            if count <= 0 {
                return Ok(None);
            }
            self.pacer.pause(self.pause * u32::try_from(count).unwrap_or(1)).await;
            let items: Vec<Item> =
                (0..count).map(|place| Item::Record(self.record(self.given + place + 1))).collect();
            let bytes = items.iter().map(|item| match item {
                Item::Record(fields) => serde_json::to_string(fields).map_or(0, |text| text.len() as i64),
                Item::Bad(..) => 0,
            });
            let page = Page {
                bytes: bytes.sum(),
                first_index: self.given,
                position: json!({"given": self.given + count}),
                cursor: None,
                estimated: Some(self.total),
                note: None,
                items,
            };
            self.given += count;
            Ok(Some(page))
        }
        .boxed()
    }
}

impl SimSource {
    fn record(&self, n: i64) -> Fields {
        self.template.iter().map(|(name, value)| (name.clone(), self.fill(value, n, name))).collect()
    }

    fn fill(&self, value: &Value, n: i64, name: &str) -> Value {
        match value {
            Value::String(text) if text == "{n}" => n.into(),
            Value::String(text) => text.replace("{n}", &n.to_string()).into(),
            Value::Array(items) => items.iter().map(|item| self.fill(item, n, name)).collect(),
            Value::Object(fields) => match fields.get("$pick").and_then(Value::as_array) {
                Some(choices) if !choices.is_empty() => {
                    let place = (self.dice.roll(n, name) * choices.len() as f64) as usize;
                    choices[place.min(choices.len() - 1)].clone()
                }
                _ => fields
                    .iter()
                    .map(|(name, value)| (name.clone(), self.fill(value, n, name)))
                    .collect::<Fields>()
                    .into(),
            },
            other => other.clone(),
        }
    }
}

struct SimSink {
    dice: Dice,
    key: Vec<String>,
    script: Script,
    attempt: i32,
    taken: i64,
}

impl Sink for SimSink {
    fn write<'a>(&'a mut self, batch: &'a [Fields]) -> BoxFuture<'a, Result<WriteReport, Failure>> {
        self.taken += batch.len() as i64;
        let result =
            match self.script.fail_write.as_ref().filter(|fault| fault.strikes(self.taken, self.attempt)) {
                Some(fault) => Err(fault.failure(Stage::Load)),
                None => Ok(self.report(batch)),
            };
        std::future::ready(result).boxed()
    }
}

impl SimSink {
    fn report(&self, batch: &[Fields]) -> WriteReport {
        let mut report = WriteReport::default();
        for (place, record) in batch.iter().enumerate() {
            let text = serde_json::to_string(record).unwrap_or_default();
            // The key names a record; without one its whole text does.
            let keyed: Vec<String> =
                self.key.iter().filter_map(|key| record.get(key)).map(Value::to_string).collect();
            let name = if keyed.is_empty() { text.clone() } else { keyed.join("\u{1f}") };
            let mut roll = self.dice.roll_text(&name, "fate");
            let rejects = self.script.errors.iter().find(|rejects| {
                roll -= rejects.rate;
                roll < 0.0
            });
            if let Some(rejects) = rejects {
                let number: String = name.chars().filter(char::is_ascii_digit).collect();
                let message = rejects.message.replace("{n}", &number);
                let failure = Failure::new(rejects.class, rejects.code.clone(), Stage::Load, &message)
                    .in_foreign_words();
                let failure =
                    rejects.field.as_deref().map_or(failure.clone(), |field| failure.at_field(field));
                report.rejected.push((place, failure));
            } else if self.dice.roll_text(&name, "unchanged") < self.script.unchanged {
                report.unchanged += 1;
            } else {
                report.written += 1;
                report.bytes += text.len() as i64;
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::definition::Stream;
    use crate::domain::ids::RunId;

    fn sim(script: Value) -> Sim {
        let clock = Clock::fixed(chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        Sim::open(&json!({ "sim": script }), Pacer::Instant, clock).unwrap()
    }

    fn stream(source: &str) -> Stream {
        let plain = json!({"source_object": source, "destination_object": "b", "sync_mode": "full_refresh", "write_mode": "upsert"});
        serde_json::from_value(plain).unwrap()
    }

    async fn read(sim: &Sim, run: &str, source: &str, position: Option<Value>) -> Vec<Fields> {
        let (run, stream) = (RunId::parse(run).unwrap(), stream(source));
        let request = ReadRequest {
            run: &run,
            attempt: 1,
            stream: &stream,
            position: position.as_ref(),
            cursor: None,
            page_records: 7,
        };
        let mut source = sim.read(request).await.unwrap();
        let mut records = Vec::new();
        while let Some(page) = source.next().await.unwrap() {
            records.extend(page.items.into_iter().filter_map(|item| match item {
                Item::Record(fields) => Some(fields),
                Item::Bad(..) => None,
            }));
        }
        records
    }

    #[tokio::test]
    async fn a_run_gives_the_same_records_again() {
        let script = json!({"records": 20, "template": {"id": "{n}", "name": "#{n}", "status": {"$pick": ["paid", "open"]}},
                            "objects": {"few": {"records": 2, "template": {"id": "few-{n}"}}}});
        let sim = sim(script);
        let all = read(&sim, "run_one", "many", None).await;
        assert_eq!(all.len(), 20);
        assert_eq!((&all[6]["id"], &all[6]["name"]), (&json!(7), &json!("#7")));
        assert!(
            all.iter().any(|record| record["status"] == "paid")
                && all.iter().any(|record| record["status"] == "open")
        );
        assert_eq!(read(&sim, "run_one", "many", Some(json!({"given": 13}))).await, all[13..]);
        assert_ne!(read(&sim, "run_two", "many", None).await, all);
        assert_eq!(read(&sim, "run_one", "few", None).await[1]["id"], "few-2");
    }

    #[tokio::test]
    async fn runs_differ_in_size_within_the_spread() {
        let sim = sim(json!({"records": 1000, "spread": 0.1}));
        let mut sizes = Vec::new();
        for run in ["run_aaa", "run_bbb", "run_ccc"] {
            sizes.push(read(&sim, run, "a", None).await.len());
        }
        assert!(sizes.iter().all(|size| (900..=1100).contains(size)), "{sizes:?}");
        assert!(sizes[0] != sizes[1] || sizes[1] != sizes[2], "{sizes:?}");
    }

    #[tokio::test]
    async fn the_script_of_the_example_file_is_one() {
        let example: toml::Table = include_str!("../../../config/flows.example.toml").parse().unwrap();
        let connectors = example["connector"].as_array().unwrap();
        let script = connectors.iter().find_map(|connector| connector.get("sim")).unwrap();
        let mut script = serde_json::to_value(script).unwrap();
        let _whole = sim(script.clone());
        script.as_object_mut().unwrap().remove("fail_read").unwrap();
        let records = read(&sim(script), "run_one", "orders", None).await;
        assert!((387..=473).contains(&records.len()) && records[6]["id"] == 7, "{records:?}");
    }

    #[tokio::test]
    async fn a_misspelt_script_is_refused() {
        for script in [json!({"recrods": 1}), json!({"auth_status": "fine"}), json!({"records": -1})] {
            let clock = Clock::fixed(chrono::DateTime::UNIX_EPOCH);
            assert!(Sim::open(&json!({ "sim": script }), Pacer::Instant, clock).is_err(), "{script}");
        }
    }
}
