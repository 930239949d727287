//! Faults, at random but repeatable: real processes on a real PostgreSQL that is cut off, stopped, killed and restarted
//! under them, and what must be true afterwards.
//!
//!     cargo test --test faults                              a short share
//!     cargo test --test faults -- --schedules 1000          more
//!     cargo test --test faults -- --seed 17                 that schedule again
//!     … --program target/release/apixx-mcp                  of another build; faster
//!
//! A seed decides what is asked for and what goes wrong when; how the machine interleaves it is chance.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a harness that cannot go on panics")]

mod answers;
mod callers;
mod checks;
mod lane;
mod plan;
mod private;
mod process;
mod proxy;
mod remains;
mod schedule;
mod time;
mod tokens;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use lane::Lane;
use plan::{AT_STEP, KINDS, MOMENTS, NAMED};
use process::left_on;
use proxy::Step;
use schedule::Report;

/// Schedules of a run that nobody asked more of.
const FEW: u64 = 4;
/// From so many on the private PostgreSQL has its turn too, once.
const MANY: u64 = 20;
/// From so many on everything must have been struck, and workers must have been stale.
const ENOUGH: u64 = 100;
/// The largest share of the faults that may not come about.
const MISSED: f64 = 0.3;

struct Arguments {
    first: u64,
    count: u64,
    lanes: usize,
}

/// `--schedules N`, `--from SEED`, `--seed SEED`, `--lanes N`, `--program PATH`; what `cargo test` says to all its tests is not for us.
fn arguments() -> anyhow::Result<Option<Arguments>> {
    let mut wanted = Arguments { first: 1, count: FEW, lanes: 4 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number =
            || -> anyhow::Result<u64> { Ok(words.next().context("a number is missing")?.parse()?) };
        match word.as_str() {
            "--schedules" => wanted.count = number()?,
            "--from" => wanted.first = number()?,
            // The private PostgreSQL alone.
            "--private" => wanted.count = 0,
            "--seed" => (wanted.first, wanted.count) = (number()?, 1),
            "--lanes" => wanted.lanes = usize::try_from(number()?)?.max(1),
            "--program" => {
                let path = words.next().context("a path is missing")?;
                process::PROGRAM.set(std::fs::canonicalize(path)?).ok().context("one program")?;
            }
            "--list" => return Ok(None),
            filter if !filter.starts_with('-') && !"faults".contains(filter) => return Ok(None),
            _ => {}
        }
    }
    // A server of its own for each lane is worth it for several schedules only.
    wanted.lanes = wanted.lanes.min(usize::try_from(wanted.count.div_ceil(2))?);
    Ok(Some(wanted))
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(faults()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn faults() -> anyhow::Result<()> {
    let Some(Arguments { first, count, lanes }) = arguments()? else { return Ok(()) };
    proxy::words_are_of_one_statement().map_err(anyhow::Error::msg)?;
    let place = tempfile::Builder::new().prefix("apixx-faults-").tempdir()?;
    open_to_postgres(place.path())?;
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let reports: Mutex<Vec<(u64, Report)>> = Mutex::default();
    let lanes = (0..lanes).map(|number| {
        let dir = place.path().join(format!("l{number}"));
        let (next, reports) = (&next, &reports);
        async move {
            let lane = Arc::new(Lane::start(dir.clone()).await.context("a PostgreSQL of our own")?);
            if lane.liar.is_none() && number == 0 {
                println!("faults: no clock jumps: libfaketime is not installed (Debian: apt-get install libfaketime)");
            }
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    break;
                }
                let (started, at) = (Instant::now(), dir.join(format!("seed-{seed}")));
                let played = schedule::play(&lane, seed, &at).await;
                let broken = |error| Report { violations: vec![format!("{error:#}")], ..Report::default() };
                let report = played.unwrap_or_else(broken);
                tell(seed, &report, started);
                if report.violations.is_empty() {
                    std::fs::remove_dir_all(&at)?;
                }
                reports.lock().unwrap().push((seed, report));
            }
            if let Ok(lane) = Arc::try_unwrap(lane) {
                lane.stop().await;
                let left = left_on(&dir.join("pg"), Duration::from_secs(20)).await;
                ensure!(left.is_empty(), "there are processes that outlived their PostgreSQL: {left:?}");
            }
            anyhow::Ok(())
        }
    });
    futures_util::future::try_join_all(lanes).await?;
    if count == 0 || count >= MANY {
        let started = Instant::now();
        let played = private::play(&place.path().join("private"), first).await;
        let broken = |error| Report { violations: vec![format!("{error:#}")], ..Report::default() };
        let report = played.unwrap_or_else(broken);
        tell(first, &report, started);
        reports.lock().unwrap().push((first, report));
    }
    let reports = std::mem::take(&mut *reports.lock().unwrap());
    let failed: Vec<u64> =
        reports.iter().filter(|(_, report)| !report.violations.is_empty()).map(|(seed, _)| *seed).collect();
    summary(&reports, began);
    let gaps = gaps(&reports);
    for gap in gaps.iter().filter(|_| count >= MANY) {
        println!("faults: {gap}");
    }
    if failed.is_empty() && (count < ENOUGH || gaps.is_empty()) {
        return Ok(());
    }
    let kept = place.keep();
    bail!(
        "{} of {} schedules failed: seeds {failed:?}; {} gaps; logs are in {}",
        failed.len(),
        reports.len(),
        gaps.len(),
        kept.display()
    )
}

/// What these schedules leave unproven, however well they went.
fn gaps(reports: &[(u64, Report)]) -> Vec<String> {
    let struck: BTreeSet<_> = reports.iter().flat_map(|(_, report)| &report.steps).copied().collect();
    let kinds: BTreeSet<&str> =
        reports.iter().flat_map(|(_, report)| &report.faults).map(String::as_str).collect();
    let mut gaps = Vec::new();
    for step in Step::all().filter(|step| !struck.iter().any(|(at, _, _)| at == step)) {
        gaps.push(format!("never struck at {step:?}"));
    }
    for step in NAMED {
        for moment in
            MOMENTS.iter().filter(|moment| !struck.iter().any(|(at, when, _)| (*at, when) == (step, *moment)))
        {
            gaps.push(format!("never struck {moment:?} {step:?}"));
        }
        for what in
            AT_STEP.iter().filter(|what| !struck.iter().any(|(at, _, how)| (*at, how) == (step, *what)))
        {
            gaps.push(format!("no {what:?} at {step:?}"));
        }
    }
    for kind in KINDS.iter().filter(|kind| !kinds.contains(**kind)) {
        gaps.push(format!("no {kind}"));
    }
    let sum = |of: fn(&Report) -> usize| reports.iter().map(|(_, report)| of(report)).sum::<usize>() as f64;
    let (missed, happened) = (sum(|report| report.missed.len()), sum(|report| report.faults.len()));
    if missed > MISSED * (missed + happened) {
        gaps.push(format!("{missed} of {} faults did not come about", missed + happened));
    }
    if reports.iter().all(|(_, report)| report.stale == 0) {
        gaps.push("no worker was ever stale".to_owned());
    }
    gaps
}

fn tell(seed: u64, report: &Report, started: Instant) {
    let faults = report.faults.join(", ");
    let verdict = if report.violations.is_empty() { "ok" } else { "FAILED" };
    let stale = if report.stale == 0 { String::new() } else { format!(", {} times stale", report.stale) };
    println!(
        "seed {seed}: {verdict} in {:.1} s, {} runs{stale}: {faults}",
        started.elapsed().as_secs_f64(),
        report.runs
    );
    for violation in report.violations.iter().take(12) {
        println!("  {violation}");
    }
}

fn summary(reports: &[(u64, Report)], began: Instant) {
    let (mut kinds, mut missed): (BTreeMap<&str, u64>, BTreeMap<&str, u64>) = Default::default();
    for fault in reports.iter().flat_map(|(_, report)| &report.faults) {
        *kinds.entry(fault).or_default() += 1;
    }
    for what in reports.iter().flat_map(|(_, report)| &report.missed) {
        *missed.entry(what).or_default() += 1;
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(|(_, report)| of(report)).sum::<u64>();
    for (kind, times) in &kinds {
        println!("  {times:5} {kind}");
    }
    for (what, times) in &missed {
        println!("  {times:5} did not come about: {what}");
    }
    println!(
        "faults: {} schedules, {} faults, {} did not come about, {} runs, {} times a worker was stale, \
         {} answers ({} come again), {} failed, {:.0} s",
        reports.len(),
        kinds.values().sum::<u64>(),
        missed.values().sum::<u64>(),
        sum(|report| report.runs),
        sum(|report| report.stale),
        sum(|report| report.answers),
        sum(|report| report.come_again),
        reports.iter().filter(|(_, report)| !report.violations.is_empty()).count(),
        began.elapsed().as_secs_f64()
    );
}

/// PostgreSQL's own user must be able to pass.
fn open_to_postgres(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?)
}
