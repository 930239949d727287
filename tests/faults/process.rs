//! The program's processes, started, stopped, killed and watched.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant, sleep, timeout};

/// The program that is tested: the one that was built along, unless another one is named.
pub static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// How long a process may take to become ready, or to end when asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// One place for a process: killed ones are followed by others.
pub struct Seat {
    pub name: String,
    dir: PathBuf,
    config: PathBuf,
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
    pid: AtomicI32,
    /// Whether it was killed by us, and so may be gone.
    killed: AtomicBool,
    starts: AtomicU32,
    /// Where its server listens now.
    url: std::sync::Mutex<String>,
    /// Whether it was ever not there: connections to it may have failed.
    pub disturbed: AtomicBool,
    /// A library that lies about the time, and the file that says by how much.
    clock: Option<(PathBuf, PathBuf)>,
}

impl Seat {
    pub fn new(name: &str, dir: &Path, config: &Path, arguments: &[&str], liar: Option<&Path>) -> Arc<Self> {
        let clock = liar.map(|library| (library.to_owned(), dir.join(format!("{name}.clock"))));
        Arc::new(Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            config: config.to_owned(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            child: Mutex::default(),
            pid: 0.into(),
            killed: AtomicBool::new(false),
            starts: 0.into(),
            url: std::sync::Mutex::default(),
            disturbed: AtomicBool::new(false),
            clock,
        })
    }

    /// The address of its server, empty before it first listened.
    pub fn url(&self) -> String {
        self.url.lock().unwrap().clone()
    }

    /// Starts it, again and again while the database is away, until it is ready.
    pub async fn start(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut child = self.child.lock().await;
        if child.is_some() {
            return Ok(());
        }
        loop {
            match self.try_start().await {
                Ok(started) => {
                    self.killed.store(false, Ordering::SeqCst);
                    *child = Some(started);
                    return Ok(());
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn try_start(&self) -> anyhow::Result<Child> {
        let number = self.starts.fetch_add(1, Ordering::Relaxed);
        let log = self.dir.join(format!("{}.{number}.log", self.name));
        let mut command = program(&self.config);
        command.args(&self.arguments).stderr(File::create(&log)?);
        if let Some((library, file)) = &self.clock {
            std::fs::write(file, "+0\n")?;
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", file);
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command.env("DONT_FAKE_MONOTONIC", "1");
        }
        let mut child = command.stdout(Stdio::null()).spawn()?;
        self.pid.store(child.id().unwrap_or(0).cast_signed(), Ordering::SeqCst);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some((_, rest)) = said.split_once("serving MCP at ") {
                if let Some((url, _)) = rest.split_once('\n') {
                    url.trim().clone_into(&mut self.url.lock().unwrap());
                    return Ok(child);
                }
            } else if self.arguments == ["worker"] && said.contains("working") {
                return Ok(child);
            }
            if let Some(status) = child.try_wait()? {
                bail!("{} did not start ({status}); see {}", self.name, log.display());
            }
            if Instant::now() >= deadline {
                bail!("{} is not ready after {PATIENCE:?}; see {}", self.name, log.display());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a signal to the process, if there is one.
    pub fn signal(&self, signal: Signal) {
        if signal == Signal::SIGKILL {
            self.killed.store(true, Ordering::SeqCst);
            self.disturbed.store(true, Ordering::SeqCst);
        }
        let pid = self.pid.load(Ordering::SeqCst);
        if pid > 0 {
            let _gone = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills it; returns once it is gone.
    pub async fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.reap().await;
    }

    async fn reap(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            // Killed while it started, a process was followed by another one meanwhile.
            let _ended = child.kill().await;
            self.pid.store(0, Ordering::SeqCst);
        }
    }

    /// Asks it to end and waits for that.
    pub async fn end(&self) -> anyhow::Result<()> {
        self.disturbed.store(true, Ordering::SeqCst);
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        let Some(mut child) = self.child.lock().await.take() else { return Ok(()) };
        let ended = timeout(PATIENCE, child.wait()).await;
        match ended {
            // A fault at a step may still kill it meanwhile.
            Ok(Ok(status)) if status.success() || self.killed.load(Ordering::SeqCst) => Ok(()),
            Ok(status) => bail!("{} was asked to end and ended as {status:?}", self.name),
            Err(_) => {
                child.kill().await.context("cannot kill")?;
                bail!("{} was asked to end and did not within {PATIENCE:?}", self.name)
            }
        }
    }

    /// Makes the process see another time from now on; false where that cannot be done.
    pub fn jump(&self, seconds: i64) -> bool {
        let Some((_, file)) = &self.clock else { return false };
        std::fs::write(file, format!("{seconds:+}\n")).is_ok()
    }

    /// Starts it if it was killed; an error if it ended by itself.
    pub async fn revive(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT);
        let ended = match self.child.lock().await.as_mut() {
            None => true,
            Some(_) if self.killed.load(Ordering::SeqCst) => true,
            Some(child) => match child.try_wait()? {
                None => false,
                Some(status) => bail!("{} ended by itself: {status}", self.name),
            },
        };
        if ended {
            self.reap().await;
            self.start().await?;
        }
        Ok(())
    }
}

/// The program with a configuration and nothing of our environment.
pub fn program(config: &Path) -> Command {
    let mut command = Command::new(PROGRAM.get_or_init(|| env!("CARGO_BIN_EXE_apixx-mcp").into()));
    command.env_clear().env("APIXX_CONFIG", config).env("HOME", "/nonexistent");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a command of the program: what it printed, or what it said was wrong.
pub async fn run(config: &Path, arguments: &[&str]) -> anyhow::Result<Result<String, String>> {
    let output = timeout(PATIENCE, program(config).args(arguments).output())
        .await
        .with_context(|| format!("{arguments:?} does not end"))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}
