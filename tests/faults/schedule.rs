//! One schedule: a fresh workspace, processes, callers, faults, quiet, checks.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{anyhow, bail};
use apixx_mcp::embedded;
use nix::sys::signal::Signal;
use sqlx::PgConnection;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::callers::Callers;
use crate::checks;
use crate::lane::{FLOWS_ROLE, Lane, patient, secret};
use crate::plan::{AtStep, Fault, Kind, Plan, SEATS};
use crate::process::{Seat, run};
use crate::proxy::{Action, Mode, Moment, Proxy, Step, Trap};
use crate::world::{CUSTOMER, FLOWS, World};

/// How long everything may take to become quiet once it works again.
const QUIET: Duration = Duration::from_secs(60);
/// The shortest lease, in seconds: what is lost is found again soon.
const LEASE: f64 = 2.5;
/// How much longer than the making of two databases a lease is: on a machine with much else to do a lease of usual
/// length runs out before a batch is done, and no run ever ends.
const SLOWNESS: f64 = 5.0;

/// What came of a schedule.
#[derive(Default)]
pub struct Report {
    /// The faults that came about.
    pub faults: Vec<String>,
    /// Those that waited for a step that did not come.
    pub missed: Vec<String>,
    /// The steps that were struck, and how.
    pub steps: Vec<(Step, String)>,
    pub violations: Vec<String>,
    pub runs: u64,
    pub answers: u64,
    pub come_again: u64,
}

struct Stage {
    lane: Arc<Lane>,
    database: String,
    seats: Vec<Arc<Seat>>,
    proxies: Vec<Proxy>,
    cli: (Proxy, PathBuf),
    /// Ids of traps that sprang.
    sprung: broadcast::Sender<usize>,
    /// How long everything may take to become quiet.
    quiet: Duration,
    lease: Duration,
    happened: Mutex<Vec<String>>,
    missed: Mutex<Vec<String>>,
    steps: Mutex<Vec<(Step, String)>>,
}

impl Stage {
    /// A trap was set for a step; it sprang, or the step did not come.
    fn trapped(&self, step: Step, what: String, sprang: bool) {
        if sprang {
            self.steps.lock().unwrap().push((step, what.clone()));
            self.happened.lock().unwrap().push(what);
        } else {
            self.missed.lock().unwrap().push(what);
        }
    }
}

/// Whether a trap springs within that time.
async fn springs(sprung: &mut broadcast::Receiver<usize>, id: usize, within: Duration) -> bool {
    let sprang = async { while sprung.recv().await.is_ok_and(|sprang| sprang != id) {} };
    timeout(within, sprang).await.is_ok()
}

/// Plays the schedule of a seed in `dir`.
pub async fn play(lane: &Arc<Lane>, seed: u64, dir: &Path, liar: Option<&Path>) -> anyhow::Result<Report> {
    let plan = Plan::of(seed, FLOWS.len());
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("plan.txt"), format!("{plan:#?}\n"))?;
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

    let stage = Arc::new(set(lane, &plan, dir, &files, &flows_database, lease, liar)?);
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
    violations.extend(nobody_left(&mut control, &database).await?);
    violations.extend(panics(dir)?);
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
    liar: Option<&Path>,
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
                "[server]\nlisten = \"127.0.0.1:0\"\n\
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
        // Time is changed only for those that a fault will hit: the library costs a little.
        let number = seats.len();
        let lies =
            plan.faults.iter().any(|fault| matches!(fault.kind, Kind::Clock(seat, _) if seat == number));
        seats.push(Seat::new(name, dir, &config, arguments, liar.filter(|_| lies)));
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
    callers.enough.store(true, Ordering::Relaxed);
    while let Some(read) = reading.join_next().await {
        read?;
    }
    Ok(())
}

/// Waits until every run has ended. The pauses before retries are skipped.
async fn quiet(stage: &Stage) -> anyhow::Result<()> {
    let deadline = Instant::now() + stage.quiet;
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
            sqlx::query_scalar::<_, i64>(checks::OPEN).fetch_one(&mut *conn).await
        };
        match looked.await {
            Ok(0) => return Ok(()),
            Ok(open) if Instant::now() >= deadline => bail!("{open} runs are stuck"),
            Ok(_) => {}
            Err(error) if Instant::now() >= deadline => return Err(error.into()),
            Err(_) => owner = None,
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// A token is made, used, revoked, and tried for a while longer.
async fn token_life(stage: &Arc<Stage>, plan: &Plan, callers: &Arc<Callers>) -> anyhow::Result<()> {
    let (proxy, config) = &stage.cli;
    let mut sprung = stage.sprung.subscribe();
    let trap = |moment: Option<Moment>, step, id| {
        if let Some(moment) = moment {
            proxy.arm(Trap { step, commit: true, pass: 0, moment, action: Action::Cut, id, met: false });
        }
    };
    let told = async |sprung: &mut _, moment: Option<Moment>, step, id| {
        if let Some(moment) = moment {
            // The command has ended; only the word of it may still be on its way.
            let sprang = springs(sprung, id, Duration::from_secs(1)).await;
            stage.trapped(step, format!("Cut {moment:?} {step:?} (commit)"), sprang);
        }
    };
    trap(plan.token_faults[0], Step::TokenAdded, 1_000);
    let create = ["token", "create", "--customer", CUSTOMER, "--name", "second", "--json"];
    let printed = until_done(config, &create, |_| false).await?.ok_or_else(|| anyhow!("no token"))?;
    told(&mut sprung, plan.token_faults[0], Step::TokenAdded, 1_000).await;
    proxy.heal();
    let (id, token) = secret(&printed)?;
    let (revoked, maybe, until) =
        (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let holder = {
        let (callers, revoked, maybe, until) =
            (callers.clone(), revoked.clone(), maybe.clone(), until.clone());
        tokio::spawn(async move { callers.hold(&token, &revoked, &maybe, &until).await })
    };
    sleep(plan.revoke_after).await;
    trap(plan.token_faults[1], Step::TokenRevoked, 1_001);
    maybe.store(true, Ordering::SeqCst);
    // A first try that was cut may have done it.
    until_done(config, &["token", "revoke", &id], |said| said.contains("there is no live token")).await?;
    *revoked.lock().unwrap() = Some(Instant::now());
    told(&mut sprung, plan.token_faults[1], Step::TokenRevoked, 1_001).await;
    sleep(Duration::from_millis(1_400)).await;
    until.store(true, Ordering::Relaxed);
    holder.await?;
    Ok(())
}

/// Repeats a command until it succeeds or says that there is nothing left to do.
async fn until_done(
    config: &Path,
    arguments: &[&str],
    done: impl Fn(&str) -> bool,
) -> anyhow::Result<Option<String>> {
    let deadline = Instant::now() + QUIET;
    loop {
        match run(config, arguments).await? {
            Ok(printed) => return Ok(Some(printed)),
            Err(said) if done(&said) => return Ok(None),
            Err(said) if Instant::now() >= deadline => bail!("{arguments:?}: {said}"),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Lets a fault happen and puts it right after its time.
async fn strike(stage: &Arc<Stage>, id: usize, fault: Fault) -> anyhow::Result<()> {
    let Fault { kind, at, lasts } = fault;
    sleep(at).await;
    let happened = || stage.happened.lock().unwrap().push(kind.to_string());
    match &kind {
        Kind::Kill(seat) => {
            stage.seats[*seat].kill().await;
            sleep(lasts).await;
            stage.seats[*seat].revive().await?;
        }
        Kind::End(seat) => {
            stage.seats[*seat].end().await?;
            sleep(lasts).await;
            stage.seats[*seat].revive().await?;
        }
        Kind::Freeze(seat) => {
            stage.seats[*seat].signal(Signal::SIGSTOP);
            sleep(lasts).await;
            stage.seats[*seat].signal(Signal::SIGCONT);
        }
        Kind::Cut(seat) => stage.proxies[*seat].cut(),
        Kind::Stall(seat) => {
            stage.proxies[*seat].set(Mode::Stalled);
            sleep(lasts).await;
            stage.proxies[*seat].set(Mode::Open);
        }
        Kind::Unreachable(seat) => {
            stage.proxies[*seat].set(Mode::Refused);
            stage.proxies[*seat].cut();
            sleep(lasts).await;
            stage.proxies[*seat].set(Mode::Open);
        }
        Kind::Clock(seat, by) => {
            if !stage.seats[*seat].jump(*by) {
                return Ok(());
            }
            sleep(lasts).await;
            stage.seats[*seat].jump(0);
        }
        Kind::Restart => stage.lane.restart(),
        Kind::Crash => stage.lane.signal(Signal::SIGKILL),
        Kind::Backend => stage.lane.kill_backend(&stage.database).await?,
        Kind::At { seats, step, commit, pass, moment, what } => {
            let mut sprung = stage.sprung.subscribe();
            for seat in seats.clone() {
                let (seat, proxy) = (&stage.seats[seat], &stage.proxies[seat]);
                let action = match what {
                    AtStep::Cut => Action::Cut,
                    AtStep::Kill => Action::Signal(seat.clone(), Signal::SIGKILL),
                    AtStep::Freeze => Action::Signal(seat.clone(), Signal::SIGSTOP),
                };
                proxy.arm(Trap {
                    step: *step,
                    commit: *commit,
                    pass: *pass,
                    moment: *moment,
                    action,
                    id,
                    met: false,
                });
            }
            // What is taken from a silent worker is taken once its lease has run out.
            let patience = if *step == Step::Reap { stage.lease * 2 } else { Duration::ZERO };
            let mut sprang = springs(&mut sprung, id, patience + Duration::from_secs(4)).await;
            for seat in seats.clone() {
                sprang |= stage.proxies[seat].disarm(id);
            }
            stage.trapped(*step, kind.to_string(), sprang);
            if sprang {
                sleep(lasts).await;
                for seat in seats.clone() {
                    stage.seats[seat].revive().await?;
                }
            }
            return Ok(());
        }
    }
    happened();
    Ok(())
}

/// Connections of the program that are still there once all its processes have ended.
async fn nobody_left(control: &mut PgConnection, database: &str) -> anyhow::Result<Vec<String>> {
    static LOOKS: AtomicU64 = AtomicU64::new(0);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        LOOKS.fetch_add(1, Ordering::Relaxed);
        let left: Vec<String> = sqlx::query_scalar(
            "select format('%s: %s %s', application_name, state, left(query, 60)) from pg_stat_activity
              where datname in ($1, 'f' || substr($1, 2)) and application_name like 'apixx-mcp%' and pid <> pg_backend_pid()
                and usename <> $2 and usename <> $3",
        )
        .bind(database)
        .bind(embedded::OWNER)
        .bind(FLOWS_ROLE)
        .fetch_all(&mut *control)
        .await?;
        if left.is_empty() {
            return Ok(Vec::new());
        }
        if Instant::now() >= deadline {
            return Ok(left.into_iter().map(|one| format!("still connected: {one}")).collect());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// What processes said before they broke.
pub fn panics(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let text = std::fs::read_to_string(&path)?;
            let fault = |line: &&str| line.contains("panicked") || line.contains("a fault of this program");
            let line = text.lines().find(fault);
            found.extend(line.map(|line| format!("{}: {line}", path.display())));
        }
    }
    Ok(found)
}
