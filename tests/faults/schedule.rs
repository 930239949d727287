//! One schedule: a fresh workspace, processes, callers, faults, quiet, checks.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use anyhow::bail;
use apixx_mcp::embedded;
use nix::sys::signal::Signal;
use sqlx::PgConnection;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::callers::Callers;
use crate::lane::{FLOWS_ROLE, Lane, patient};
use crate::plan::{AtStep, Fault, Kind, Plan, SEATS};
use crate::process::{Seat, Target, left_on};
use crate::proxy::{Action, Mode, Moment, Proxy, Step, Trap};
use crate::remains::{self, nobody_connected};
use crate::tokens::token_life;
use crate::world::{FLOWS, World};
use crate::{answers, checks};

/// How long everything may take to become quiet once it works again.
pub const QUIET: Duration = Duration::from_secs(60);
/// The shortest lease, in seconds: what is lost is found again soon.
const LEASE: f64 = 2.5;
/// How much longer than the making of two databases a lease is: on a machine with much else to do a lease of usual
/// length runs out before a batch is done, and no run ever ends.
const SLOWNESS: f64 = 5.0;
/// How long it takes at most until all processes go by the database's clock, after it jumped.
const AGREED: Duration = Duration::from_secs(15);

/// What came of a schedule.
#[derive(Default)]
pub struct Report {
    /// The faults that came about.
    pub faults: Vec<String>,
    /// Those that waited for a step that did not come, or found nobody to hit.
    pub missed: Vec<String>,
    /// The steps that were struck, when and how.
    pub steps: Vec<(Step, Moment, AtStep)>,
    pub violations: Vec<String>,
    pub runs: u64,
    /// How often a worker found out that the run it worked on was no longer its own.
    pub stale: u64,
    pub answers: u64,
    pub come_again: u64,
}

/// Where a schedule is played.
pub struct Stage {
    pub lane: Arc<Lane>,
    database: String,
    seats: Vec<Arc<Seat>>,
    proxies: Vec<Proxy>,
    /// The way of the commands to the database, and their configuration.
    pub cli: (Proxy, PathBuf),
    /// Ids of traps that sprang.
    pub sprung: broadcast::Sender<usize>,
    /// How long everything may take to become quiet.
    quiet: Duration,
    lease: Duration,
    happened: Mutex<Vec<String>>,
    missed: Mutex<Vec<String>>,
    steps: Mutex<Vec<(Step, Moment, AtStep)>>,
}

impl Stage {
    /// A fault was to happen; did it?
    fn tried(&self, what: String, happened: bool) {
        let list = if happened { &self.happened } else { &self.missed };
        list.lock().unwrap().push(what);
    }

    /// A trap was set for a step; it sprang, or the step did not come.
    pub fn trapped(&self, step: Step, commit: bool, moment: Moment, what: AtStep, sprang: bool) {
        if sprang {
            self.steps.lock().unwrap().push((step, moment, what));
        }
        let commit = if commit { " (commit)" } else { "" };
        self.tried(format!("{what:?} {moment:?} {step:?}{commit}"), sprang);
    }

    /// What hits a process, or the database, at a step.
    pub fn action(&self, what: AtStep, target: &Arc<Target>) -> Action {
        match what {
            AtStep::Cut => Action::Cut,
            AtStep::Kill => Action::Signal(target.clone(), Signal::SIGKILL),
            AtStep::Freeze => Action::Signal(target.clone(), Signal::SIGSTOP),
            AtStep::Crash => Action::Crash(self.lane.clone()),
        }
    }
}

/// Whether a trap springs within that time.
pub async fn springs(sprung: &mut broadcast::Receiver<usize>, id: usize, within: Duration) -> bool {
    let sprang = async { while sprung.recv().await.is_ok_and(|sprang| sprang != id) {} };
    timeout(within, sprang).await.is_ok()
}

/// Plays the schedule of a seed in `dir`.
pub async fn play(lane: &Arc<Lane>, seed: u64, dir: &Path) -> anyhow::Result<Report> {
    let plan = Plan::of(seed, FLOWS.len());
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("plan.txt"), format!("{plan:#?}\n"))?;
    lane.set_clock(0).await?;
    let began = Instant::now();
    let (database, flows_database) = (format!("s{seed}"), format!("f{seed}"));
    for name in [&database, &flows_database] {
        lane.admin(format!("drop database if exists {name} with (force)")).await?;
    }
    lane.admin(format!("create database {database} template workspace owner {}", embedded::OWNER)).await?;
    lane.admin(format!("create database {flows_database} owner {FLOWS_ROLE}")).await?;
    let lease = (SLOWNESS * began.elapsed().as_secs_f64()).clamp(LEASE, 30.0);
    let world = World::new(seed, plan.size);
    let files = dir.join("files");
    let mut tables = patient(&lane.flows(&flows_database)).await?;
    world.make(&files, &mut tables).await?;
    drop(tables);

    let stage = Arc::new(set(lane, &plan, dir, &files, &flows_database, lease)?);
    let mut starting = JoinSet::new();
    for seat in &stage.seats {
        let seat = Arc::clone(seat);
        starting.spawn(async move { seat.start().await });
    }
    while let Some(started) = starting.join_next().await {
        started??;
    }
    let callers = Callers::new(stage.seats[..2].to_vec())?;
    let played = perform(&stage, &plan, &callers).await;
    callers.enough.store(true, Ordering::Relaxed);
    played?;

    let mut violations = Vec::new();
    let ended = futures_util::future::join_all(stage.seats.iter().map(|seat| seat.end())).await;
    violations.extend(ended.into_iter().filter_map(|ended| ended.err().map(|error| format!("{error:#}"))));
    let mut control = patient(&lane.owner(&database)).await?;
    let mut tables = patient(&lane.flows(&flows_database)).await?;
    violations.extend(checks::all(&mut control, &mut tables, &files, &world, &callers).await?);
    violations.extend(nobody_connected(&mut control, &database).await?);
    let left = left_on(dir, Duration::from_secs(10)).await;
    violations.extend(left.into_iter().map(|line| format!("still there: {line}")));
    violations.extend(remains::panics(dir)?);
    violations.append(&mut callers.violations.lock().unwrap());
    let runs: i64 = sqlx::query_scalar("select count(*) from runs").fetch_one(&mut control).await?;
    drop((control, tables));
    for name in [&database, &flows_database] {
        lane.admin(format!("drop database {name} with (force)")).await?;
    }
    Ok(Report {
        faults: std::mem::take(&mut *stage.happened.lock().unwrap()),
        missed: std::mem::take(&mut *stage.missed.lock().unwrap()),
        steps: std::mem::take(&mut *stage.steps.lock().unwrap()),
        violations,
        runs: runs.cast_unsigned(),
        stale: remains::stale(dir)?,
        answers: callers.answers.load(Ordering::Relaxed),
        come_again: callers.come_again.load(Ordering::Relaxed),
    })
}

/// Proxies, configurations and seats.
fn set(
    lane: &Arc<Lane>,
    plan: &Plan,
    dir: &Path,
    files: &Path,
    flows_database: &str,
    lease: f64,
) -> anyhow::Result<Stage> {
    let database = format!("s{}", plan.seed);
    let (told, mut tells) = mpsc::unbounded_channel();
    let (sprung, _) = broadcast::channel(64);
    let forward = sprung.clone();
    tokio::spawn(async move {
        while let Some(id) = tells.recv().await {
            let _nobody = forward.send(id);
        }
    });
    let socket = lane.socket()?;
    let (mut seats, mut proxies) = (Vec::new(), Vec::new());
    let place = |name: &str| -> anyhow::Result<(Proxy, PathBuf)> {
        // Sockets have short names, whatever the directory is called.
        let proxy = Proxy::start(&lane.dir.join(format!("{}.{name}", plan.seed)), &socket, told.clone())?;
        let config = dir.join(format!("{name}.toml"));
        std::fs::write(
            &config,
            format!(
                "[server]\nlisten = \"127.0.0.1:0\"\n[auth]\nfailed_attempts_per_minute = 100000\n\
                 [database]\nurl = \"{}\"\nowner_url = \"{}\"\npool_size = 4\nacquire_timeout_ms = 2000\n\
                 [engine]\nlease_s = {lease}\nheartbeat_s = {}\npoll_ms = 200\nbatch_records = 25\n\
                 [engine.files_roots]\nmine = \"{}\"\n[engine.postgres_dsns.flows]\nurl = \"{}\"\n",
                proxy.url(embedded::SERVER, &database),
                proxy.url(embedded::OWNER, &database),
                lease / 5.0,
                files.display(),
                proxy.url(FLOWS_ROLE, flows_database),
            ),
        )?;
        Ok((proxy, config))
    };
    for name in SEATS {
        let (proxy, config) = place(name)?;
        let arguments: &[&str] = if name.starts_with("serve") { &["serve"] } else { &["worker"] };
        seats.push(Seat::new(name, dir, &config, arguments));
        proxies.push(proxy);
    }
    let cli = place("cli")?;
    Ok(Stage {
        lane: lane.clone(),
        database,
        seats,
        proxies,
        cli,
        sprung,
        quiet: QUIET.max(Duration::from_secs_f64(lease * 20.0)),
        lease: Duration::from_secs_f64(lease),
        happened: Mutex::default(),
        missed: Mutex::default(),
        steps: Mutex::default(),
    })
}

/// Callers call, faults strike, then everything is put right and becomes quiet.
async fn perform(stage: &Arc<Stage>, plan: &Plan, callers: &Arc<Callers>) -> anyhow::Result<()> {
    let mut asking = JoinSet::new();
    for (place, wanted) in plan.wanted.iter().cloned().enumerate() {
        let (callers, token, seed) = (callers.clone(), stage.lane.token.clone(), plan.seed);
        asking.spawn(async move { callers.want(seed, place, wanted, &token).await });
    }
    let mut reading = JoinSet::new();
    for number in 0..2 {
        let (callers, token, seed) = (callers.clone(), stage.lane.token.clone(), plan.seed + number);
        reading.spawn(async move { callers.read(seed, &token).await });
    }
    let token = {
        let (stage, plan, callers) = (stage.clone(), plan.clone(), callers.clone());
        tokio::spawn(async move { token_life(&stage, &plan, &callers).await })
    };
    let mut striking = JoinSet::new();
    for (id, fault) in plan.faults.iter().cloned().enumerate() {
        let stage = stage.clone();
        striking.spawn(async move { strike(&stage, id, fault).await });
    }
    while let Some(struck) = striking.join_next().await {
        struck??;
    }
    for (seat, proxy) in stage.seats.iter().zip(&stage.proxies) {
        proxy.heal();
        seat.revive().await?;
    }
    token.await??;
    while let Some(asked) = asking.join_next().await {
        asked?;
    }
    quiet(stage).await?;
    let jumped = stage.lane.liar.as_ref().is_some_and(|liar| liar.offset() != 0);
    let patience = if jumped { AGREED } else { Duration::ZERO };
    let mut owner = patient(&stage.lane.owner(&stage.database)).await?;
    answers::all(&mut owner, callers, &stage.lane.token, patience).await?;
    callers.enough.store(true, Ordering::Relaxed);
    while let Some(read) = reading.join_next().await {
        read?;
    }
    Ok(())
}

/// Waits until every run has ended. The pauses before retries are skipped. Where runs move, if slowly, nothing is stuck.
async fn quiet(stage: &Stage) -> anyhow::Result<()> {
    let last = Instant::now() + stage.quiet * 5;
    let (mut deadline, mut seen) = (Instant::now() + stage.quiet, 0);
    let mut owner: Option<PgConnection> = None;
    loop {
        let conn = match &mut owner {
            Some(conn) => conn,
            None => owner.insert(patient(&stage.lane.owner(&stage.database)).await?),
        };
        let looked = async {
            sqlx::query("update runs set available_at = queued_at where status = 'retrying' and available_at > clock_timestamp()")
                .execute(&mut *conn)
                .await?;
            let open = sqlx::query_scalar::<_, i64>(checks::OPEN).fetch_one(&mut *conn).await?;
            let moves = "select count(distinct (run_id, batch)) from witness";
            anyhow::Ok((open, sqlx::query_scalar::<_, i64>(moves).fetch_one(&mut *conn).await?))
        };
        match looked.await {
            Ok((0, _)) => return Ok(()),
            Ok((_, moves)) if moves > seen => {
                seen = moves;
                deadline = last.min(Instant::now() + stage.quiet);
            }
            Ok((open, _)) if Instant::now() >= deadline => bail!("{open} runs are stuck"),
            Ok(_) => {}
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => owner = None,
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Lets a fault happen and puts it right after its time.
async fn strike(stage: &Arc<Stage>, id: usize, fault: Fault) -> anyhow::Result<()> {
    let lasts = fault.lasts(stage.lease);
    let Fault { kind, at, .. } = fault;
    sleep(at).await;
    let happened = match &kind {
        Kind::Kill(seat) => {
            let there = stage.seats[*seat].kill().await;
            sleep(lasts).await;
            stage.seats[*seat].revive().await?;
            there
        }
        Kind::End(seat) => {
            let there = stage.seats[*seat].end().await?;
            sleep(lasts).await;
            stage.seats[*seat].revive().await?;
            there
        }
        Kind::Freeze(seat) => {
            let there = stage.seats[*seat].signal(Signal::SIGSTOP);
            sleep(lasts).await;
            stage.seats[*seat].signal(Signal::SIGCONT);
            there
        }
        Kind::Cut(seat) => {
            stage.proxies[*seat].cut();
            true
        }
        Kind::Stall(seat) => {
            stage.proxies[*seat].set(Mode::Stalled);
            sleep(lasts).await;
            stage.proxies[*seat].set(Mode::Open);
            true
        }
        Kind::Unreachable(seat) => {
            stage.proxies[*seat].set(Mode::Refused);
            stage.proxies[*seat].cut();
            sleep(lasts).await;
            stage.proxies[*seat].set(Mode::Open);
            true
        }
        Kind::Clock(seat, to) => {
            // Where it cannot jump, that was said at the beginning.
            if !stage.lane.set_clock(*to).await? {
                return Ok(());
            }
            stage.seats[*seat].kill().await;
            stage.seats[*seat].revive().await?;
            true
        }
        Kind::Restart => stage.lane.restart(),
        Kind::Crash => stage.lane.signal(Signal::SIGKILL),
        Kind::Backend => stage.lane.kill_backend(&stage.database).await?,
        Kind::At { seats, step, commit, pass, moment, what } => {
            let mut sprung = stage.sprung.subscribe();
            for seat in seats.clone() {
                stage.proxies[seat].arm(Trap {
                    step: *step,
                    commit: *commit,
                    pass: *pass,
                    moment: *moment,
                    action: stage.action(*what, &stage.seats[seat].target),
                    id,
                    met: false,
                });
            }
            // What is taken from a silent worker is taken once its lease has run out; the end comes last.
            let late = matches!(step, Step::Reap | Step::Finish);
            let patience = stage.lease.mul_f64(if late { 2.0 } else { 1.0 });
            let mut sprang = springs(&mut sprung, id, patience + Duration::from_secs(4)).await;
            for seat in seats.clone() {
                sprang |= stage.proxies[seat].disarm(id);
            }
            if sprang {
                sleep(lasts).await;
                for seat in seats.clone() {
                    stage.seats[seat].revive().await?;
                }
            }
            stage.trapped(*step, *commit, *moment, *what, sprang);
            return Ok(());
        }
    };
    stage.tried(kind.to_string(), happened);
    Ok(())
}
