//! A PostgreSQL of our own, kept from schedule to schedule, with a workspace to copy for each.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use apixx_mcp::embedded::{self, Embedded, EmbeddedConfig};
use apixx_mcp::store::migrate;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::PgConnectOptions;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant, sleep};

use crate::process::run;
use crate::time::Liar;
use crate::world::{CUSTOMER, definitions};

/// The role of the flows' own databases.
pub const FLOWS_ROLE: &str = "faults_flows";

/// What our own connections are called.
pub const OURS: &str = "faults";

const PATIENCE: Duration = Duration::from_secs(30);

/// How long the server may take to stop in an orderly way.
const STOP: Duration = Duration::from_secs(10);

/// Everything that happens to a run's row is written down, as its owner sees it.
pub const WITNESS: &str = "
    insert into plans values ('faults', 600000, 100000, null, 100000, null, 50, 1000, 90, 30);
    create table witness (seq bigint generated always as identity primary key, run_id text, attempt integer,
        status text, batch bigint, records_read bigint, records_written bigint, records_failed bigint,
        records_skipped bigint);
    create function witness() returns trigger language plpgsql security definer as $$
    begin
        insert into public.witness (run_id, attempt, status, batch, records_read, records_written, records_failed, records_skipped)
        values (new.run_id, new.attempt, new.status, coalesce((new.checkpoint ->> 'batch')::bigint, 0),
                new.records_read, new.records_written, new.records_failed, new.records_skipped);
        return null;
    end $$;
    create trigger witness after insert or update on runs for each row execute function witness();";

/// A PostgreSQL of our own.
pub struct Lane {
    pub dir: PathBuf,
    server: Embedded,
    /// What moves the server's clock.
    pub liar: Option<Liar>,
    /// Who moves it moves it alone.
    jumping: Mutex<()>,
    /// The main token of the workspace.
    pub token: String,
}

impl Lane {
    /// Starts the server and makes what schedules copy.
    pub async fn start(dir: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let liar = Liar::make(&dir.join("bin"))?;
        let bin_dir = liar.as_ref().map(|liar| liar.dir.clone());
        let server = Embedded::start(EmbeddedConfig { data_dir: dir.join("pg"), bin_dir }).await?;
        server.ensure_role(FLOWS_ROLE).await?;
        let mut lane = Self { dir, server, liar, jumping: Mutex::default(), token: String::new() };
        lane.admin(format!("create database workspace owner {}", embedded::OWNER)).await?;
        let addresses = lane.server.addresses();
        migrate(&addresses.owner_options("workspace"), embedded::SERVER, None).await?;
        let mut owner = addresses.owner_options("workspace").connect().await?;
        sqlx::raw_sql(WITNESS).execute(&mut owner).await?;
        owner.close().await?;
        let config = lane.dir.join("make.toml");
        let url = |role| addresses.url(role, "workspace");
        std::fs::write(
            &config,
            format!(
                "[database]\nurl = \"{}\"\nowner_url = \"{}\"\n[engine.files_roots]\nmine = \"/nonexistent\"\n\
                 [engine.postgres_dsns.flows]\nurl = \"postgres://x@localhost/x\"\n",
                url(embedded::SERVER),
                url(embedded::OWNER)
            ),
        )?;
        let definitions_file = lane.dir.join("flows.toml");
        std::fs::write(&definitions_file, definitions())?;
        let file = definitions_file.display().to_string();
        let made = ["--name", "North", "--owner-email", "ana@north.example", "--plan", "faults"];
        told(&config, &[&["customer", "create", "--slug", CUSTOMER], made.as_slice()].concat()).await?;
        told(&config, &["apply", "--customer", CUSTOMER, &file]).await?;
        let token =
            told(&config, &["token", "create", "--customer", CUSTOMER, "--name", "main", "--json"]).await?;
        lane.token = secret(&token)?.1;
        Ok(lane)
    }

    pub async fn stop(self) {
        self.server.stop().await;
    }

    /// The server's own socket.
    pub fn socket(&self) -> anyhow::Result<PathBuf> {
        let options = self.server.addresses().server_options("x");
        Ok(options.get_socket().context("a unix socket")?.join(".s.PGSQL.5432"))
    }

    pub fn owner(&self, database: &str) -> PgConnectOptions {
        self.server.addresses().owner_options(database).application_name(OURS)
    }

    pub fn flows(&self, database: &str) -> PgConnectOptions {
        self.server.addresses().role_options(FLOWS_ROLE, database).application_name(OURS)
    }

    /// Runs a statement as the administrator, once the server answers.
    pub async fn admin(&self, statement: String) -> anyhow::Result<()> {
        let mut admin = self.administrator().await?;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await?;
        admin.close().await?;
        Ok(())
    }

    /// The administrator, once the server answers.
    async fn administrator(&self) -> anyhow::Result<PgConnection> {
        patient(&self.server.addresses().role_options("postgres", "postgres").application_name(OURS)).await
    }

    /// What time it is on the server's machine, once it answers.
    async fn time(&self) -> anyhow::Result<DateTime<Utc>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut admin = self.administrator().await?;
            match sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut admin).await {
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(50)).await,
                Ok(time) => return Ok(time),
            }
        }
    }

    /// Lets the clock of the server's machine jump to so many seconds from the true time; false where it cannot.
    pub async fn set_clock(&self, seconds: i64) -> anyhow::Result<bool> {
        let Some(liar) = &self.liar else { return Ok(false) };
        let _alone = self.jumping.lock().await;
        let asked = Instant::now();
        let before = self.time().await?;
        let by = liar.set(seconds)?;
        let passed = (self.time().await? - before).num_milliseconds() - by * 1_000;
        let most = i64::try_from(asked.elapsed().as_millis())?;
        ensure!(
            (-20..=most + 20).contains(&passed),
            "the clock moved by {passed} ms, of {most}, and not by {by} s"
        );
        Ok(true)
    }

    /// Ends the server's main process, if there is one; the supervisor starts another one.
    pub fn signal(&self, signal: Signal) -> bool {
        postmaster(&self.dir).is_some_and(|pid| {
            let there = kill(pid, signal).is_ok();
            Liar::forget(pid);
            there
        })
    }

    /// Ends the server in an orderly way, if it is there. A server that is told so while it recovers from the death of
    /// one of its processes may never come to an end of it; whoever operates one then stops it at once.
    pub fn restart(&self) -> bool {
        let Some(pid) = postmaster(&self.dir) else { return false };
        let there = kill(pid, Signal::SIGINT).is_ok();
        let dir = self.dir.clone();
        tokio::spawn(async move {
            sleep(STOP).await;
            if postmaster(&dir) == Some(pid) {
                let _gone = kill(pid, Signal::SIGQUIT);
                Liar::forget(pid);
            }
        });
        there
    }

    /// Kills one of the server's processes that serve a connection to `database`, which brings all of them down; false
    /// where there is none.
    pub async fn kill_backend(&self, database: &str) -> anyhow::Result<bool> {
        let mut admin = self.administrator().await?;
        // (another fault may take the server down just then: there is none to kill)
        let pid: Option<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where datname = $1 order by state = 'active' desc limit 1",
        )
        .bind(database)
        .fetch_optional(&mut admin)
        .await
        .unwrap_or(None);
        Ok(pid.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()))
    }
}

/// The server's main process.
fn postmaster(dir: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(dir.join("pg/cluster/postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok()?;
    (pid > 1).then(|| Pid::from_raw(pid))
}

/// Connects, however long the server takes to come back.
pub async fn patient(options: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match options.connect().await {
            Ok(connection) => return Ok(connection),
            Err(error) if Instant::now() >= deadline => {
                return Err(anyhow!(error).context("the database does not come back"));
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What a command printed; it must succeed.
pub async fn told(config: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    run(config, arguments).await?.map_err(|said| anyhow!("{arguments:?}: {said}"))
}

/// The id and the secret of a new token.
pub fn secret(printed: &str) -> anyhow::Result<(String, String)> {
    let made: serde_json::Value = serde_json::from_str(printed)?;
    let text = |key: &str| made[key].as_str().map(str::to_owned).context("a token");
    Ok((text("token_id")?, text("token")?))
}
