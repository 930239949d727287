//! The life of a token, made and revoked by commands that are struck as they commit.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{anyhow, bail};
use nix::sys::signal::Signal;
use tokio::time::{Duration, Instant, sleep};

use crate::callers::Callers;
use crate::lane::secret;
use crate::plan::{AtStep, Plan};
use crate::process::{Target, run_as};
use crate::proxy::{Moment, Step, Trap};
use crate::schedule::{QUIET, Stage, springs};
use crate::world::CUSTOMER;

/// How long a command sleeps that falls asleep.
const ASLEEP: Duration = Duration::from_millis(900);

/// A token is made, used, revoked, and tried for a while longer.
pub async fn token_life(stage: &Arc<Stage>, plan: &Plan, callers: &Arc<Callers>) -> anyhow::Result<()> {
    let create = ["token", "create", "--customer", CUSTOMER, "--name", "second", "--json"];
    let printed = struck(stage, Step::TokenAdded, plan.token_faults[0], &create, |_| false)
        .await?
        .ok_or_else(|| anyhow!("no token"))?;
    let (id, token) = secret(&printed)?;
    let (revoked, maybe, until) =
        (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let holder = {
        let (callers, revoked, maybe, until) =
            (callers.clone(), revoked.clone(), maybe.clone(), until.clone());
        tokio::spawn(async move { callers.hold(&token, &revoked, &maybe, &until).await })
    };
    sleep(plan.revoke_after).await;
    maybe.store(true, Ordering::SeqCst);
    // A first try that was struck may have done it.
    let done = |said: &str| said.contains("there is no live token");
    struck(stage, Step::TokenRevoked, plan.token_faults[1], &["token", "revoke", &id], done).await?;
    *revoked.lock().unwrap() = Some(Instant::now());
    sleep(Duration::from_millis(1_800)).await;
    until.store(true, Ordering::Relaxed);
    holder.await?;
    Ok(())
}

/// Repeats a command, struck at the commit of its `step`, until it succeeds or says that there is nothing left to do.
async fn struck(
    stage: &Arc<Stage>,
    step: Step,
    fault: Option<(Moment, AtStep)>,
    arguments: &[&str],
    done: impl Fn(&str) -> bool,
) -> anyhow::Result<Option<String>> {
    let (proxy, config) = &stage.cli;
    let target = Arc::new(Target::default());
    let Some((moment, what)) = fault else { return until_done(&target, config, arguments, done).await };
    // Beyond the numbers of the plan's faults.
    let id = 1_000 + step as usize;
    let mut sprung = stage.sprung.subscribe();
    proxy.arm(Trap {
        step,
        commit: true,
        pass: 0,
        moment,
        action: stage.action(what, &target),
        id,
        met: false,
    });
    let waking = {
        let target = target.clone();
        tokio::spawn(async move {
            if springs(&mut sprung, id, QUIET).await {
                sleep(ASLEEP).await;
                target.signal(Signal::SIGCONT);
            }
        })
    };
    let printed = until_done(&target, config, arguments, done).await;
    stage.trapped(step, true, moment, what, proxy.disarm(id));
    waking.abort();
    printed
}

async fn until_done(
    target: &Target,
    config: &Path,
    arguments: &[&str],
    done: impl Fn(&str) -> bool,
) -> anyhow::Result<Option<String>> {
    let deadline = Instant::now() + QUIET;
    loop {
        match run_as(target, config, arguments).await? {
            Ok(printed) => return Ok(Some(printed)),
            Err(said) if done(&said) => return Ok(None),
            Err(said) if Instant::now() >= deadline => bail!("{arguments:?}: {said}"),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
