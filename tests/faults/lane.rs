//! A PostgreSQL of our own, kept from schedule to schedule, with a workspace to copy for each.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use apixx_mcp::embedded::{self, Embedded, EmbeddedConfig};
use apixx_mcp::store::migrate;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio::time::{Duration, Instant, sleep};

use crate::process::run;
use crate::world::{CUSTOMER, definitions};

/// The role of the flows' own databases.
pub const FLOWS_ROLE: &str = "faults_flows";

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
    /// The main token of the workspace.
    pub token: String,
}

impl Lane {
    /// Starts the server and makes what schedules copy.
    pub async fn start(dir: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let server = Embedded::start(EmbeddedConfig { data_dir: dir.join("pg"), bin_dir: None }).await?;
        server.ensure_role(FLOWS_ROLE).await?;
        let mut lane = Self { dir, server, token: String::new() };
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
        self.server.addresses().owner_options(database)
    }

    pub fn flows(&self, database: &str) -> PgConnectOptions {
        self.server.addresses().role_options(FLOWS_ROLE, database)
    }

    /// Runs a statement as the administrator, once the server answers.
    pub async fn admin(&self, statement: String) -> anyhow::Result<()> {
        let mut admin = patient(&self.server.addresses().role_options("postgres", "postgres")).await?;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await?;
        admin.close().await?;
        Ok(())
    }

    /// Ends the server's main process; the supervisor starts another one.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = postmaster(&self.dir) {
            let _gone = kill(pid, signal);
        }
    }

    /// Ends the server in an orderly way. A server that is told so while it recovers from the death of one of its
    /// processes may never come to an end of it; whoever operates one then stops it at once.
    pub fn restart(&self) {
        let Some(pid) = postmaster(&self.dir) else { return };
        let _gone = kill(pid, Signal::SIGINT);
        let dir = self.dir.clone();
        tokio::spawn(async move {
            sleep(STOP).await;
            if postmaster(&dir) == Some(pid) {
                let _gone = kill(pid, Signal::SIGQUIT);
            }
        });
    }

    /// Kills one of the server's processes that serve a connection to `database`, which brings all of them down.
    pub async fn kill_backend(&self, database: &str) -> anyhow::Result<()> {
        let mut admin = patient(&self.server.addresses().role_options("postgres", "postgres")).await?;
        let pid: Option<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where datname = $1 order by state = 'active' desc limit 1",
        )
        .bind(database)
        .fetch_optional(&mut admin)
        .await?;
        if let Some(pid) = pid {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
        Ok(())
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
