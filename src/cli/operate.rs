//! What an operator does to customers, flows and runs. All of it stands in the audit log.

use anyhow::{anyhow, bail};
use chrono_tz::Tz;
use clap::Args;

use super::session::{As, customer, operator, told, with};
use super::table::{MINUTE, print_table};
use crate::config::Config;
use crate::domain::ids::{FlowId, RunId};
use crate::domain::names::{self, Match};
use crate::domain::person::Email;
use crate::domain::run::RunStatus;
use crate::domain::untrusted::line;
use crate::store::customers::{NewCustomer, Target};
use crate::store::{Store, Tenancy};
use crate::view::text;

#[derive(Debug, Args)]
pub(super) struct NewCustomerArgs {
    /// Its short name for the command line: lower-case letters, digits and hyphens
    #[arg(long)]
    slug: String,
    /// Its name
    #[arg(long)]
    name: String,
    /// The e-mail address of its first user, who owns it
    #[arg(long, value_name = "ADDRESS", value_parser = super::people::email)]
    owner_email: Email,
    /// The time zone it lives by, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: Tz,
    /// Its plan: free, team, business or one that you added
    #[arg(long, default_value = "team")]
    plan: String,
}

#[derive(Debug, Args)]
pub(super) struct SetCustomerArgs {
    /// The customer's short name
    #[arg(long, value_name = "SLUG")]
    customer: String,
    /// Its plan from now on
    #[arg(long, required_unless_present = "status")]
    plan: Option<String>,
    /// Whether its tokens and its people are let in
    #[arg(long, value_parser = ["active", "suspended"])]
    status: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct FlowArgs {
    /// The customer's short name
    #[arg(long, value_name = "SLUG")]
    customer: String,
    /// The flow's id, name or alias
    flow: String,
    /// Why, for those who will wonder
    #[arg(long)]
    reason: Option<String>,
}

pub(super) async fn create_customer(config: Config, args: NewCustomerArgs) -> anyhow::Result<()> {
    let new = NewCustomer {
        id: None,
        slug: args.slug,
        name: args.name,
        timezone: args.timezone,
        plan: args.plan,
        owner_name: args.owner_email.as_str().split('@').next().unwrap_or_default().to_owned(),
        owner_email: args.owner_email.to_string(),
    };
    with(&config, As::Server, async |store| {
        let mut tx = store.begin_customer(&new).await.map_err(told)?;
        tx.audit(&operator(), "customer.requested", Target::Customer, None).await.map_err(told)?;
        let id = tx.tenancy().customer().clone();
        tx.commit().await.map_err(told)?;
        let slug = &new.slug;
        say!("{id} {slug}");
        say!("next: apixx-mcp token create --customer {slug} --name \"…\"");
        say!("  or: apixx-mcp user reset --email {}, and make tokens on the pages", new.owner_email);
        Ok(())
    })
    .await
}

pub(super) async fn set_customer(config: Config, args: SetCustomerArgs) -> anyhow::Result<()> {
    with(&config, As::Server, async |store| {
        let mut tx = store.begin(&customer(store, &args.customer).await?).await.map_err(told)?;
        let (plan, status) = tx.set_customer(args.plan, args.status).await.map_err(told)?;
        let now = format!("plan {plan}, {status}");
        tx.audit(&operator(), "customer.changed", Target::Customer, Some(&now)).await.map_err(told)?;
        tx.commit().await.map_err(told)?;
        say!("{}: {now}", args.customer);
        Ok(())
    })
    .await
}

pub(super) async fn list_customers(config: Config) -> anyhow::Result<()> {
    with(&config, As::Owner, async |store| {
        let rows = store.customers().await.map_err(told)?.into_iter().map(|customer| {
            let row = customer.row;
            let made = row.created_at.format(MINUTE).to_string();
            [row.slug, row.customer_id, row.plan_code, row.status, row.timezone, made, line(&row.name)]
        });
        print_table(["SLUG", "ID", "PLAN", "STATUS", "TIME ZONE", "MADE", "NAME"], rows.collect());
        Ok(())
    })
    .await
}

pub(super) async fn pause_flow(config: Config, args: FlowArgs) -> anyhow::Result<()> {
    with(&config, As::Server, async |store| {
        let tenancy = customer(store, &args.customer).await?;
        let (flow, name) = flow(store, &tenancy, &args.flow).await?;
        let mut tx = store.begin(&tenancy).await.map_err(told)?;
        let paused = tx.pause_flow(&flow, &operator(), args.reason.as_deref()).await.map_err(told)?;
        let Some(cancelled) = paused else { bail!("{name} is not active: there is nothing to pause") };
        tx.commit().await.map_err(told)?;
        match cancelled as i64 {
            0 => say!("{name} is paused"),
            runs => {
                let runs = text::counted(runs, "run that waited is", "runs that waited are");
                say!("{name} is paused; {runs} cancelled");
            }
        }
        Ok(())
    })
    .await
}

pub(super) async fn resume_flow(config: Config, args: FlowArgs) -> anyhow::Result<()> {
    with(&config, As::Server, async |store| {
        let tenancy = customer(store, &args.customer).await?;
        let (flow, name) = flow(store, &tenancy, &args.flow).await?;
        let mut tx = store.begin(&tenancy).await.map_err(told)?;
        if !tx.resume_flow(&flow, &operator(), args.reason.as_deref()).await.map_err(told)? {
            bail!("{name} is not paused: there is nothing to resume");
        }
        tx.commit().await.map_err(told)?;
        say!("{name} is active");
        Ok(())
    })
    .await
}

/// The flow that `text` names exactly, with its name.
async fn flow(store: &Store, tenancy: &Tenancy, text: &str) -> anyhow::Result<(FlowId, String)> {
    let reader = store.read(tenancy);
    let id = FlowId::parse(text).ok();
    if let Some(named) = reader.flow_named(id.as_ref(), &names::exact_key(text)).await.map_err(told)? {
        return Ok((named.id, line(&named.name)));
    }
    let all = reader.flow_names().await.map_err(told)?;
    let near = match names::resolve(text, &all, false) {
        Match::One(named, _) => vec![named],
        Match::Several { named: near, .. } | Match::None(near) => near,
    };
    let near: Vec<String> = near.iter().map(|named| format!("\"{}\"", line(&named.name))).collect();
    let meant =
        if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
    bail!("no flow is called \"{text}\"{meant}")
}

pub(super) async fn cancel_run(config: Config, slug: String, run: String) -> anyhow::Result<()> {
    let run = RunId::parse(&run).map_err(|_| anyhow!("that is no run's id (run_…)"))?;
    with(&config, As::Server, async |store| {
        let mut tx = store.begin(&customer(store, &slug).await?).await.map_err(told)?;
        let actor = operator();
        let Some(status) = tx.request_cancel(&run, &actor).await.map_err(told)? else {
            bail!("{slug} has no run {run} that runs here");
        };
        tx.commit().await.map_err(told)?;
        match status {
            RunStatus::Cancelling => say!("{run} stops at its next batch"),
            RunStatus::Cancelled => say!("{run} is cancelled"),
            ended => say!("{run} has ended already ({ended})"),
        }
        Ok(())
    })
    .await
}
