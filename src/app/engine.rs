//! The engine, as the operator configured it.

use chrono::TimeDelta;
use secrecy::ExposeSecret;

use super::process::StartError;
use crate::config::{Config, RetentionConfig};
use crate::engine::connectors::{Connectors, Pacer};
use crate::engine::{Engine, EngineSettings};
use crate::service::Serving;
use crate::store::retention::Retention;

/// An engine over `serving`.
pub(super) async fn engine(serving: &Serving, config: &Config) -> Result<Engine, StartError> {
    let (store, engine) = (&serving.store, &config.engine);
    let mut connectors = Connectors {
        files_roots: engine.files_roots.clone(),
        postgres_dsns: Default::default(),
        own: store.identity().await?,
        pacer: Pacer::Real,
        clock: store.clock().clone(),
    };
    for (name, dsn) in &engine.postgres_dsns {
        let options = dsn.url.as_ref().and_then(|url| url.expose_secret().parse().ok());
        let options = options.ok_or_else(|| StartError::Dsn { name: name.clone() })?;
        connectors.postgres_dsns.insert(name.clone(), options);
    }
    let settings = EngineSettings {
        workers: engine.workers.get(),
        lease: whole(engine.lease),
        heartbeat: engine.heartbeat,
        poll: engine.poll,
        seen_every: TimeDelta::seconds(5),
        page_records: engine.batch_records.get(),
        no_progress: whole(engine.no_progress),
        retention: retention(&config.retention),
    };
    // The timeline of a run, which customers read, names its worker: nothing of our machines stands in it.
    let name = format!("worker-{}", store.ids().process_name());
    Ok(Engine::new(store.clone(), serving.wakes.clone(), settings, connectors, &name))
}

fn whole(time: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX)
}

fn retention(config: &RetentionConfig) -> Retention {
    let days = |time: TimeDelta| i32::try_from(time.num_days()).unwrap_or(i32::MAX);
    Retention {
        audit_days: days(config.audit),
        usage_days: days(config.usage),
        stats_days: days(config.rollups),
    }
}
