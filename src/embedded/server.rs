//! The PostgreSQL process: made, started, watched, ended.
//!
//! Three things keep it from outliving us. Our own stop sends it SIGINT. If we are killed, a pipe that only
//! we hold open closes, and a tiny shell waiting at its other end sends the SIGINT. If the shell died too,
//! the next start ends the survivor before it starts its own.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::account::Account;
use super::binaries::Binaries;
use super::error::EmbeddedError;
use super::home::{Home, PORT, write};
use super::process;

/// How the server runs. Given on its command line, so that no file in the cluster can say otherwise.
const SETTINGS: &[&str] = &[
    // Reached through the private socket only.
    "listen_addresses=",
    "unix_socket_permissions=0700",
    // What is committed survives a power cut.
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    // A small machine that it shares with us.
    "shared_buffers=128MB",
    "max_connections=100",
    "max_wal_size=512MB",
    // Our statements are short: compiling them or sharing them out costs more than it brings.
    "jit=off",
    "max_parallel_workers_per_gather=0",
    // Solid-state disks, where jumping is nearly as cheap as reading on.
    "random_page_cost=1.1",
    "timezone=UTC",
    "log_timezone=UTC",
    "lc_messages=C",
    // Statements that fail are reported to us, who sent them; their values are nothing for a file. What
    // happens to the server itself is logged.
    "log_min_messages=log",
    "log_checkpoints=off",
];

/// Reads process ids until our end of the pipe closes, then ends the last one.
const WATCHDOG: &str = r#"
while read -r line; do pid=$line; done
kill -INT "$pid"
"#;

/// Between two looks at something that takes milliseconds.
const POLL: Duration = Duration::from_millis(20);

/// How long a survivor or its children may take to end before we give up or force it.
const SURVIVOR_PATIENCE: Duration = Duration::from_secs(30);

/// How long PostgreSQL may take to stop by itself when nobody said.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// What every start needs.
pub(super) struct Setup {
    pub(super) home: Home,
    pub(super) account: Account,
    pub(super) binaries: Binaries,
    /// How the supervisor itself connects.
    pub(super) admin: PgConnectOptions,
}

/// A running server and what guards it.
pub(super) struct Server {
    setup: Setup,
    postmaster: Child,
    watchdog: Watchdog,
}

/// The shell at the other end of the pipe, and our end.
struct Watchdog {
    shell: Child,
    pipe: ChildStdin,
}

impl Setup {
    /// Makes the cluster: under a temporary name, so that a killed start leaves none rather than half of one.
    pub(super) async fn make_cluster(&self) -> Result<(), EmbeddedError> {
        let failed = |source| EmbeddedError::Directory { dir: self.home.named(), source };
        let unfinished = self.home.unfinished();
        info!("making a new PostgreSQL {} cluster", self.binaries.major);
        let mut command = self.command(&self.binaries.initdb());
        command
            .arg("--pgdata")
            .arg(&unfinished)
            .args(["--username", super::ADMIN, "--encoding", "UTF8", "--data-checksums"])
            .args(["--auth-local", "reject", "--auth-host", "reject", "--no-instructions"]);
        // From 17 on PostgreSQL brings this locale itself, wherever it runs.
        if self.binaries.major >= 17 {
            command.args(["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]);
        } else {
            // In the order of their bytes, as by C.UTF-8; said as C, texts are compared without asking the C library.
            command.args(["--locale", "C.UTF-8", "--lc-collate", "C"]);
        }
        let log = self.home.fresh_log().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        let mut initdb = tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(failed)?;
        if !initdb.wait().await.map_err(failed)?.success() {
            return Err(self.did_not_start());
        }
        self.home.adopt(&unfinished).map_err(failed)
    }

    /// Starts the server and waits until it answers.
    pub(super) async fn start(self) -> Result<(Server, PgConnection), EmbeddedError> {
        let failed = |source| EmbeddedError::Directory { dir: self.home.named(), source };
        let mut watchdog = self.watch().map_err(failed)?;
        let (postmaster, admin) = self.launch(&mut watchdog).await?;
        Ok((Server { setup: self, postmaster, watchdog }, admin))
    }

    /// One postmaster that answers. The processes of one that died may hold its shared memory for another
    /// moment, which is worth waiting for.
    async fn launch(&self, watchdog: &mut Watchdog) -> Result<(Child, PgConnection), EmbeddedError> {
        let failed = |source| EmbeddedError::Directory { dir: self.home.named(), source };
        self.end_survivor().await.map_err(failed)?;
        let mut left = SURVIVOR_PATIENCE.as_millis() / POLL.as_millis();
        loop {
            let mut postmaster = self.spawn().map_err(failed)?;
            watchdog.guard(&postmaster).await.map_err(failed)?;
            if let Some(admin) = self.answer(&mut postmaster).await? {
                return Ok((postmaster, admin));
            }
            left = left.saturating_sub(1);
            if left == 0 || !self.last_words().contains("is still in use") {
                return Err(self.did_not_start());
            }
            sleep(POLL).await;
        }
    }

    /// Waits for the first connection; `None` if the process ended instead. Recovery after a crash takes
    /// as long as it takes.
    async fn answer(&self, postmaster: &mut Child) -> Result<Option<PgConnection>, EmbeddedError> {
        loop {
            let unexpected = match self.admin.connect().await {
                Ok(admin) => return Ok(Some(admin)),
                Err(error) if is_starting(&error) => None,
                Err(error) => Some(error),
            };
            if postmaster.try_wait().ok().flatten().is_some() {
                return Ok(None);
            }
            if let Some(error) = unexpected {
                end(postmaster, PATIENCE).await;
                return Err(error.into());
            }
            sleep(POLL).await;
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        // A left-over lock of the socket names a process as well, and nobody else can be using it.
        self.home.clear_run()?;
        let log = self.home.fresh_log()?;
        let mut command = self.command(&self.binaries.postgres());
        command.arg("-D").arg(self.home.cluster()).arg("-p").arg(PORT.to_string());
        command.arg("-k").arg(self.home.run());
        for setting in SETTINGS {
            command.arg("-c").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C in a terminal goes to a whole process group; PostgreSQL ends when we say so.
        tokio::process::Command::from(command).process_group(0).spawn()
    }

    fn watch(&self) -> io::Result<Watchdog> {
        let mut command = self.command("/bin/sh".as_ref());
        command.args(["-c", WATCHDOG]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut shell = tokio::process::Command::from(command).process_group(0).spawn()?;
        let pipe = shell.stdin.take().ok_or_else(|| io::Error::other("no pipe to the watchdog"))?;
        Ok(Watchdog { shell, pipe })
    }

    fn command(&self, program: &std::path::Path) -> Command {
        self.account.command(program, self.home.root())
    }

    /// Ends a server that outlived the process that started it.
    async fn end_survivor(&self) -> io::Result<()> {
        let path = self.home.pid_file();
        let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let Some(pid) = first.trim().parse().ok().filter(|pid| *pid > 1) else { return Ok(()) };
        if !process::is_alive(pid) {
            return Ok(());
        }
        if !self.is_ours(pid) {
            // The number belongs to somebody else by now, which happens at every restart of a container.
            // PostgreSQL takes a file that names its parent for a left-over one, and still checks from the
            // other lines that no process of the old server uses the data.
            return write(&path, &format!("{}\n{rest}", std::process::id()), &self.account);
        }
        warn!(pid, "ending a PostgreSQL that outlived its parent");
        process::send(pid, Signal::SIGINT);
        let gone = async {
            while self.is_ours(pid) {
                sleep(POLL).await;
            }
        };
        if timeout(SURVIVOR_PATIENCE, gone).await.is_err() {
            process::send(pid, Signal::SIGQUIT);
            while self.is_ours(pid) {
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Whether the process is a postmaster that was started on our cluster.
    fn is_ours(&self, pid: i32) -> bool {
        process::command_line(pid)
            .is_some_and(|line| line.contains(&format!("-D {} ", self.home.cluster().display())))
    }

    /// Hands PostgreSQL's last words to our log and says in general what happened.
    fn did_not_start(&self) -> EmbeddedError {
        let words = self.last_words();
        error!("PostgreSQL did not start; it said:\n{}", words.trim_end());
        if words.contains("No space left on device") {
            EmbeddedError::DiskFull { dir: self.home.named() }
        } else {
            EmbeddedError::Start { log: self.home.log() }
        }
    }

    /// The end of the server's log.
    fn last_words(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = fs::File::open(self.home.log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        read().unwrap_or_default()
    }
}

impl Server {
    /// Keeps the server running until told to stop, or until whoever could tell is gone.
    pub(super) async fn supervise(mut self, mut stop: oneshot::Receiver<Duration>) {
        loop {
            tokio::select! {
                patience = &mut stop => return self.stop(patience.unwrap_or(PATIENCE)).await,
                status = self.postmaster.wait() => error!("PostgreSQL ended by itself ({})", describe(status)),
            }
            tokio::select! {
                patience = &mut stop => return self.stop(patience.unwrap_or(PATIENCE)).await,
                postmaster = relaunch(&self.setup, &mut self.watchdog) => self.postmaster = postmaster,
            }
        }
    }

    async fn stop(mut self, patience: Duration) {
        end(&mut self.postmaster, patience).await;
        // A relaunch cut short leaves a server that nobody holds.
        if let Err(error) = self.setup.end_survivor().await {
            error!("cannot look for a surviving PostgreSQL: {error}");
        }
        if let Err(error) = self.watchdog.shell.kill().await {
            warn!("cannot end the watchdog of PostgreSQL: {error}");
        }
        info!("PostgreSQL has stopped");
    }
}

impl Watchdog {
    /// From now on our death ends this one.
    async fn guard(&mut self, postmaster: &Child) -> io::Result<()> {
        let pid = postmaster.id().map(|pid| pid.to_string()).unwrap_or_default();
        self.pipe.write_all(format!("{pid}\n").as_bytes()).await
    }
}

/// Tries until the server runs again, waiting longer each time.
async fn relaunch(setup: &Setup, watchdog: &mut Watchdog) -> Child {
    let mut pause = Duration::from_millis(250);
    loop {
        match setup.launch(watchdog).await {
            Ok((postmaster, _)) => {
                info!("PostgreSQL runs again");
                return postmaster;
            }
            Err(error) => error!("cannot start PostgreSQL again: {error}"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// Ends a server: open sessions are cut off and everything is written down; when that takes longer than
/// `patience` it ends at once, and the next start recovers.
async fn end(postmaster: &mut Child, patience: Duration) {
    signal_child(postmaster, Signal::SIGINT);
    if timeout(patience, postmaster.wait()).await.is_err() {
        warn!("PostgreSQL takes too long to stop: ending it at once");
        signal_child(postmaster, Signal::SIGQUIT);
        let _ended = postmaster.wait().await;
    }
}

/// Signals a child that was not reaped yet.
fn signal_child(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        process::send(pid, signal);
    }
}

/// Whether a failed connection means only that the server is not there yet.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // cannot_connect_now, admin_shutdown, crash_shutdown
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("57P03" | "57P01" | "57P02")),
        _ => false,
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}
