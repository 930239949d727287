//! The private PostgreSQL: its disk fills up and is emptied again, and the process that started it is killed at any
//! moment, the making of the cluster included.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, ensure};
use apixx_mcp::embedded::{Addresses, DATABASE};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sqlx::ConnectOptions;
use tokio::time::{Duration, Instant, sleep};

use crate::callers::{Callers, Heard};
use crate::lane::{WITNESS, patient, secret, told};
use crate::process::{Seat, left_on, run};
use crate::remains::{panics, stale};
use crate::world::{CUSTOMER, World, definitions};
use crate::{Report, checks};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// The flow that is run: from a file to a file, neither of them on the disk that fills up.
const FLOW: &str = "csv to lines";

/// A small file system.
struct Disk(PathBuf);

impl Disk {
    fn mount(dir: PathBuf, megabytes: u32) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let size = format!("size={megabytes}m,mode=755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&dir).status()?;
        ensure!(mounted.success(), "cannot mount a small file system");
        Ok(Self(dir))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all room there is.
    fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.ballast())?;
        let block = vec![1; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..512]).is_ok() {}
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Plays both; the disk only as root, who may mount one.
pub async fn play(dir: &Path, seed: u64) -> anyhow::Result<Report> {
    std::fs::create_dir_all(dir)?;
    let mut report = Report::default();
    let disk = if nix::unistd::geteuid().is_root() {
        Some(Disk::mount(dir.join("disk"), 256)?)
    } else {
        println!("faults: no full disk: only root may mount a small one");
        None
    };
    let home = disk.as_ref().map_or(dir, |disk| &disk.0);
    let (data, files, config) = (home.join("data"), dir.join("files"), dir.join("private.toml"));
    std::fs::write(
        &config,
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[auth]\nfailed_attempts_per_minute = 100000\n[database]\ndata_dir = \"{}\"\n\
             [engine]\nlease_s = 2\nheartbeat_s = 0.4\npoll_ms = 200\nbatch_records = 25\n\
             [engine.files_roots]\nmine = \"{}\"\n[engine.postgres_dsns.flows]\nurl = \"postgres://x@localhost/x\"\n",
            data.display(),
            files.display()
        ),
    )?;
    let seat = Seat::new("private", dir, &config, &["serve", "--with-worker"]);
    let mut dice = StdRng::seed_from_u64(seed);
    for _ in 0..3 {
        killed_while_starting(&seat, &data, &mut dice, &mut report).await?;
    }
    seat.start().await?;
    let owner = Addresses::of_running(&data)?.owner_options(DATABASE);
    let mut control = owner.connect().await?;
    sqlx::raw_sql(WITNESS).execute(&mut control).await?;
    std::fs::write(dir.join("flows.toml"), definitions())?;
    let file = dir.join("flows.toml").display().to_string();
    let made = ["--name", "North", "--owner-email", "ana@north.example", "--plan", "faults"];
    told(&config, &[&["customer", "create", "--slug", CUSTOMER], made.as_slice()].concat()).await?;
    told(&config, &["apply", "--customer", CUSTOMER, &file]).await?;
    let (_, token) = secret(&told(&config, &create("main")).await?)?;
    let world = World::new(seed, 1_200);
    world.make_files(&files)?;
    let callers = Callers::new(vec![seat.clone()])?;

    ask(&callers, &token, "before", Duration::from_secs(1)).await;
    if let Some(disk) = &disk {
        let (doomed, doomed_token) = secret(&told(&config, &create("doomed")).await?)?;
        disk.fill()?;
        let before = callers.put_off.load(Ordering::Relaxed);
        ask(&callers, &token, "full", Duration::from_secs(6)).await;
        let made = run(&config, &create("made while full")).await?;
        let revoked = run(&config, &["token", "revoke", &doomed]).await?;
        let put_off = callers.put_off.load(Ordering::Relaxed) - before;
        let bit = put_off > 0 || full(&data);
        std::fs::remove_file(disk.ballast())?;
        if !bit {
            report.violations.push("the disk was full, and nobody felt it".to_owned());
        }
        let went = |done: bool| if done { "done" } else { "refused" };
        report.faults.push("disk full".to_owned());
        report.faults.push(format!("disk full, a token to be made: {}", went(made.is_ok())));
        report.faults.push(format!("disk full, a token to be revoked: {}", went(revoked.is_ok())));
        // What was said to be done is done, and stays so.
        if let Ok(made) = &made {
            let (_, token) = secret(made)?;
            lives(&callers, &token, true).await?;
        }
        if revoked.is_ok() {
            lives(&callers, &doomed_token, false).await?;
        } else {
            revoke(&config, &doomed).await?;
            lives(&callers, &doomed_token, false).await?;
        }
    }
    ended(&callers, &token, &mut report).await;
    for number in 0..3 {
        ask(&callers, &token, &format!("kill {number}"), Duration::from_millis(dice.random_range(50..900)))
            .await;
        seat.kill().await;
        report.faults.push("kill -9 with the private PostgreSQL".to_owned());
        nobody_left(&data, &mut report).await;
        killed_while_starting(&seat, &data, &mut dice, &mut report).await?;
        seat.start().await?;
    }
    ended(&callers, &token, &mut report).await;
    drop(control);
    let mut control = patient(&owner).await?;
    let mut same = patient(&owner).await?;
    report.violations.extend(checks::all(&mut control, &mut same, &files, &world, &callers).await?);
    report.runs = callers.accepted.lock().unwrap().len() as u64;
    drop((control, same));
    seat.end().await?;
    nobody_left(&data, &mut report).await;
    report.stale = stale(dir)?;
    report.violations.extend(panics(dir)?);
    report.violations.append(&mut callers.violations.lock().unwrap());
    report.answers = callers.answers.load(Ordering::Relaxed);
    report.come_again = callers.come_again.load(Ordering::Relaxed);
    Ok(report)
}

/// Wants runs for a while.
async fn ask(callers: &Callers, token: &str, what: &str, time: Duration) {
    let until = Instant::now() + time;
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let key = format!("{what} {number}");
        let arguments = json!({ "flow": FLOW, "if_running": "queue", "idempotency_key": key });
        match callers.tool(0, token, "trigger_sync", arguments).await {
            Heard::Result(result) => {
                let run = result["structuredContent"]["run_id"].as_str().unwrap_or_default().to_owned();
                callers.accept(FLOW, run, Some(key));
            }
            Heard::ComeAgain => {}
            other => callers.violation(format!("trigger_sync, {what}: {other:?}")),
        }
        let known = callers.accepted.lock().unwrap().clone();
        match callers.tool(0, token, "list_runs", json!({ "limit": 100 })).await {
            Heard::Result(result) => callers.all_there(&result, &known),
            Heard::ComeAgain => {}
            other => callers.violation(format!("list_runs, {what}: {other:?}")),
        }
        sleep(Duration::from_millis(60)).await;
    }
}

/// Waits until every run that somebody was told of has ended.
async fn ended(callers: &Arc<Callers>, token: &str, report: &mut Report) {
    let deadline = Instant::now() + PATIENCE;
    let wanted = json!({ "status": ["queued", "running", "retrying", "cancelling"] });
    while Instant::now() < deadline {
        if let Heard::Result(result) = callers.tool(0, token, "list_runs", wanted.clone()).await
            && result["structuredContent"]["runs"].as_array().is_some_and(Vec::is_empty)
        {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
    report.violations.push("runs are stuck, or the database does not come back".to_owned());
}

/// Kills the process somewhere between its first moment and being ready.
async fn killed_while_starting(
    seat: &Arc<Seat>,
    data: &Path,
    dice: &mut StdRng,
    report: &mut Report,
) -> anyhow::Result<()> {
    let time = Duration::from_millis(dice.random_range(20..2_500));
    tokio::select! {
        started = seat.start() => started?,
        () = sleep(time) => {}
    }
    seat.kill().await;
    report.faults.push("kill -9 while starting".to_owned());
    nobody_left(data, report).await;
    Ok(())
}

/// Waits until nobody works on the data any more: no PostgreSQL, nobody who made or watched one.
async fn nobody_left(data: &Path, report: &mut Report) {
    let left = left_on(data, Duration::from_secs(20)).await;
    if !left.is_empty() {
        report.violations.push(format!("there are processes that outlived who started them: {left:?}"));
    }
}

fn create(name: &str) -> [&str; 7] {
    ["token", "create", "--customer", CUSTOMER, "--name", name, "--json"]
}

/// Whether the server said that there was no room.
fn full(data: &Path) -> bool {
    let logs = ["postgres.log", "postgres.log.old"].map(|name| std::fs::read_to_string(data.join(name)));
    logs.iter().flatten().any(|log| log.contains("No space left") || log.contains("could not extend"))
}

/// Revokes a token, however often that takes.
async fn revoke(config: &Path, id: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match run(config, &["token", "revoke", id]).await? {
            Ok(_) => return Ok(()),
            Err(said) if said.contains("there is no live token") => return Ok(()),
            Err(said) => ensure!(Instant::now() < deadline, "a token could not be revoked: {said}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Looks whether a token is one that lives, once the database answers.
async fn lives(callers: &Callers, token: &str, expected: bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lives = match callers.tool(0, token, "list_flows", json!({})).await {
            Heard::Result(_) => true,
            Heard::Unauthorized => false,
            Heard::Refused(code) if code == "TOKEN_REVOKED" => false,
            Heard::ComeAgain if Instant::now() < deadline => {
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            other => return Err(anyhow::anyhow!("{other:?}")).context("a token after the disk was full"),
        };
        if lives != expected {
            callers.violation(format!(
                "a token lives: {lives}; its command said while the disk was full: {expected}"
            ));
        }
        return Ok(());
    }
}
