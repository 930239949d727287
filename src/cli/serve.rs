//! `serve` and `worker`: any number of each on one database.

use std::pin::pin;

use anyhow::anyhow;

use crate::app::database::{Database, Sharing};
use crate::app::lifecycle::Lifecycle;
use crate::app::listen;
use crate::app::process::{Process, TimeOf};
use crate::config::Config;
use crate::domain::clock::Clock;

/// Whoever started this process starts it anew, and then the private PostgreSQL is its own.
const LEFT: &str = "the process that kept the private PostgreSQL running has ended: start this one again";

/// Serves MCP until told to end; with a worker in the same process if wanted.
pub(super) async fn serve(config: Config, with_worker: bool) -> anyhow::Result<()> {
    until_told(config, true, with_worker).await
}

/// Executes runs until told to end.
pub(super) async fn worker(config: Config) -> anyhow::Result<()> {
    until_told(config, false, true).await
}

async fn until_told(mut config: Config, serves: bool, works: bool) -> anyhow::Result<()> {
    let lifecycle = Lifecycle::new(config.server.shutdown);
    lifecycle.stop_on_signals()?;
    // An address that is taken is told before anything is started.
    let listener = if serves { Some(listen::bind(config.server.listen).await?) } else { None };
    let database = tokio::select! {
        database = Database::open(&config.database, Sharing::Welcome) => database?,
        () = lifecycle.stopping().cancelled() => return Ok(()),
    };
    let end = config.server.end();
    let ran = async {
        let operator = super::operator(&config.operator).await?;
        super::places::allow(&mut config)?;
        super::places::ensure_lab(&config, &database).await?;
        let clock = Clock::system();
        let stopping = lifecycle.stopping().clone();
        let process = Process::start(&database.server, config, clock, TimeOf::Database, stopping).await?;
        let engine = if works { Some(process.engine().await?) } else { None };
        if let Some(listener) = &listener {
            tracing::info!("serving MCP at http://{}/mcp", listener.local_addr()?);
        }
        if works {
            tracing::info!("working");
        }
        process.run(listener, operator, engine, &lifecycle).await;
        anyhow::Ok(())
    };
    let ran = {
        let mut ran = pin!(ran);
        tokio::select! {
            ran = &mut ran => ran,
            () = database.until_left() => {
                lifecycle.stop();
                ran.await.and(Err(anyhow!(LEFT)))
            }
        }
    };
    database.close(lifecycle.left_of(end)).await;
    ran
}
