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
use tokio::sync::{Mutex, watch};
use tokio::time::{Duration, Instant, sleep, timeout};

/// The program that is tested: the one that was built along, unless another one is named.
pub static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// How long a process may take to become ready, or to end when asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a signal can hit: a process, while there is one.
#[derive(Default)]
pub struct Target {
    pid: AtomicI32,
    /// Whether it was killed by us, and so may be gone.
    killed: AtomicBool,
    /// Whether it is not there, or about to go: connections to it may fail.
    disturbed: AtomicBool,
    asleep: watch::Sender<bool>,
}

impl Target {
    /// Sends a signal to the process; false where there is none.
    pub fn signal(&self, signal: Signal) -> bool {
        let pid = self.pid.load(Ordering::SeqCst);
        if signal == Signal::SIGKILL {
            self.killed.store(true, Ordering::SeqCst);
            self.disturbed.store(true, Ordering::SeqCst);
        }
        self.asleep.send_replace(signal == Signal::SIGSTOP && pid > 0);
        pid > 0 && kill(Pid::from_raw(pid), signal).is_ok()
    }

    /// Returns once the process is not, or no longer, stopped.
    pub async fn awake(&self) {
        let mut asleep = self.asleep.subscribe();
        // (who says so lives as long as we do)
        let _said = asleep.wait_for(|asleep| !asleep).await;
    }
}

/// One place for a process: killed ones are followed by others.
pub struct Seat {
    pub name: String,
    dir: PathBuf,
    config: PathBuf,
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
    pub target: Arc<Target>,
    starts: AtomicU32,
    /// How many of its processes became ready.
    generation: AtomicU32,
    /// Where its server listens now.
    url: std::sync::Mutex<String>,
}

impl Seat {
    pub fn new(name: &str, dir: &Path, config: &Path, arguments: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            config: config.to_owned(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            child: Mutex::default(),
            target: Arc::default(),
            starts: 0.into(),
            generation: 0.into(),
            url: std::sync::Mutex::default(),
        })
    }

    /// Which of its processes is there, if one is: a connection that fails while the same one was is its own fault.
    pub fn present(&self) -> Option<u32> {
        let there = !self.target.disturbed.load(Ordering::SeqCst);
        there.then(|| self.generation.load(Ordering::SeqCst))
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
            self.target.killed.store(false, Ordering::SeqCst);
            match self.try_start().await {
                Ok(started) => {
                    *child = Some(started);
                    self.generation.fetch_add(1, Ordering::SeqCst);
                    self.target.disturbed.store(false, Ordering::SeqCst);
                    if self.target.killed.load(Ordering::SeqCst) {
                        self.target.disturbed.store(true, Ordering::SeqCst);
                    }
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
        let mut child = command.stdout(Stdio::null()).spawn()?;
        self.target.pid.store(child.id().unwrap_or(0).cast_signed(), Ordering::SeqCst);
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

    /// Sends a signal to the process; false where there is none.
    pub fn signal(&self, signal: Signal) -> bool {
        self.target.signal(signal)
    }

    /// Kills it; returns once it is gone, false where there was none.
    pub async fn kill(&self) -> bool {
        let there = self.signal(Signal::SIGKILL);
        self.reap().await;
        there
    }

    async fn reap(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            // Killed while there was none or while it started, a process was followed by another one meanwhile.
            self.target.disturbed.store(true, Ordering::SeqCst);
            let _ended = child.kill().await;
            self.target.pid.store(0, Ordering::SeqCst);
        }
    }

    /// Asks it to end and waits for that; false where there was none.
    pub async fn end(&self) -> anyhow::Result<bool> {
        // (held, so that nobody starts another one before this one's pid is forgotten)
        let mut held = self.child.lock().await;
        let Some(mut child) = held.take() else { return Ok(false) };
        self.target.disturbed.store(true, Ordering::SeqCst);
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        let ended = timeout(PATIENCE, child.wait()).await;
        self.target.pid.store(0, Ordering::SeqCst);
        match ended {
            // A fault at a step may still kill it meanwhile.
            Ok(Ok(status)) if status.success() || self.target.killed.load(Ordering::SeqCst) => Ok(true),
            Ok(status) => bail!("{} was asked to end and ended as {status:?}", self.name),
            Err(_) => {
                child.kill().await.context("cannot kill")?;
                bail!("{} was asked to end and did not within {PATIENCE:?}", self.name)
            }
        }
    }

    /// Starts it if it was killed; an error if it ended by itself.
    pub async fn revive(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT);
        let ended = match self.child.lock().await.as_mut() {
            None => true,
            Some(_) if self.target.killed.load(Ordering::SeqCst) => true,
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
    run_as(&Target::default(), config, arguments).await
}

/// Runs a command as a process that can be hit.
pub async fn run_as(
    target: &Target,
    config: &Path,
    arguments: &[&str],
) -> anyhow::Result<Result<String, String>> {
    let child = program(config).args(arguments).spawn()?;
    target.pid.store(child.id().unwrap_or(0).cast_signed(), Ordering::SeqCst);
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    target.pid.store(0, Ordering::SeqCst);
    let output = output.with_context(|| format!("{arguments:?} does not end"))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

/// Processes of others that are still at work on what is in `dir` once they had so much time to go.
pub async fn left_on(dir: &Path, patience: Duration) -> Vec<String> {
    let deadline = Instant::now() + patience;
    loop {
        let left = at_work_on(dir);
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Processes whose command line, configuration or own directory is in `dir`.
fn at_work_on(dir: &Path) -> Vec<String> {
    let mark = format!("{}/", dir.display());
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let at_work = entries.filter(|entry| entry.file_name().to_string_lossy() != own).filter_map(|entry| {
        let text = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let line = String::from_utf8_lossy(&text("cmdline")).replace('\0', " ");
        let named = line.contains(&mark) || String::from_utf8_lossy(&text("environ")).contains(&mark);
        let inside = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|at| at.starts_with(dir));
        (named || inside).then(|| format!("{} {line}", entry.file_name().to_string_lossy()))
    });
    at_work.collect()
}
