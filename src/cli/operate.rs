//! What an operator does to customers, tokens, flows and runs. All of it stands in the audit log.

use anyhow::{anyhow, bail};
use chrono::TimeDelta;
use chrono_tz::Tz;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::session::{As, customer, operator, with};
use crate::config::Config;
use crate::domain::ids::{FlowId, RunId, TokenId};
use crate::domain::names::{self, Match};
use crate::domain::run::RunStatus;
use crate::domain::scope::{Scope, Scopes};
use crate::domain::token::PlainToken;
use crate::domain::untrusted::line;
use crate::store::customers::{Actor, NewCustomer, Target};
use crate::store::tokens::TokenRow;
use crate::store::{Store, StoreError, Tenancy};

/// How times are written.
const MINUTE: &str = "%Y-%m-%d %H:%M UTC";

#[derive(Debug, Args)]
pub(super) struct NewCustomerArgs {
    /// Its short name for the command line: lower-case letters, digits and hyphens
    #[arg(long)]
    slug: String,
    /// Its name
    #[arg(long)]
    name: String,
    /// The e-mail address of its first user, who owns it
    #[arg(long, value_name = "ADDRESS", value_parser = email)]
    owner_email: String,
    /// The time zone it lives by, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: Tz,
    /// Its plan: free, team or business
    #[arg(long, default_value = "team")]
    plan: String,
}

#[derive(Debug, Args)]
pub(super) struct NewTokenArgs {
    /// The customer's short name
    #[arg(long, value_name = "SLUG")]
    customer: String,
    /// What to know it by, such as "Claude on Ana's laptop"
    #[arg(long, value_parser = name)]
    name: String,
    /// When it ends
    #[arg(long, value_name = "TIME", default_value = "90d")]
    expires_in: Lifetime,
    /// A right to give it; may be repeated [default: all]
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<Scope>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
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

/// How long a token lives.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Lifetime {
    #[value(name = "30d")]
    Month,
    #[value(name = "90d")]
    Quarter,
    #[value(name = "365d")]
    Year,
    Never,
}

impl Lifetime {
    fn time(self) -> Option<TimeDelta> {
        match self {
            Self::Month => Some(TimeDelta::days(30)),
            Self::Quarter => Some(TimeDelta::days(90)),
            Self::Year => Some(TimeDelta::days(365)),
            Self::Never => None,
        }
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    let all = || Scope::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ");
    Scope::parse(text).ok_or_else(|| format!("the scopes are {}", all()))
}

fn name(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if (1..=200).contains(&text.chars().count()) { Ok(text.to_owned()) } else { Err("1 to 200 characters") }
}

fn email(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let parts = text.split_once('@').filter(|(who, host)| !who.is_empty() && host.contains('.'));
    let plain = !text.contains(char::is_whitespace) && text.len() <= 254;
    if parts.is_some() && plain { Ok(text.to_owned()) } else { Err("write it as ana@example.com") }
}

pub(super) async fn create_customer(config: Config, args: NewCustomerArgs) -> anyhow::Result<()> {
    let new = NewCustomer {
        id: None,
        slug: args.slug,
        name: args.name,
        timezone: args.timezone,
        plan: args.plan,
        owner_name: args.owner_email.split('@').next().unwrap_or_default().to_owned(),
        owner_email: args.owner_email,
    };
    with(&config, As::Server, async |store| {
        let mut tx = store.begin_customer(&new).await.map_err(told)?;
        tx.audit(&operator(), "customer.requested", Target::Customer, None).await.map_err(told)?;
        let id = tx.tenancy().customer().clone();
        tx.commit().await.map_err(told)?;
        let slug = &new.slug;
        println!("{id} {slug}");
        println!("next: apixx-mcp token create --customer {slug} --name \"…\"");
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

pub(super) async fn create_token(config: Config, args: NewTokenArgs) -> anyhow::Result<()> {
    let scopes: Scopes =
        if args.scopes.is_empty() { Scopes::all() } else { args.scopes.iter().copied().collect() };
    with(&config, As::Server, async |store| {
        let mut tx = store.begin(&customer(store, &args.customer).await?).await.map_err(told)?;
        let Actor::User { id: owner, .. } = tx.owner().await.map_err(told)? else {
            bail!("the customer has no owner")
        };
        let token = PlainToken::new(store.ids());
        let expires_at = args.expires_in.time().map(|time| tx.now() + time);
        let id = tx.add_token(&owner, &args.name, &token, scopes, expires_at).await.map_err(told)?;
        tx.audit(&operator(), "token.created", Target::Token(&id), Some(&args.name)).await.map_err(told)?;
        tx.commit().await.map_err(told)?;
        if args.json {
            let scopes: Vec<_> = scopes.iter().map(Scope::as_str).collect();
            let shown = json!({
                "customer": args.customer, "token_id": id, "name": args.name, "token": token.reveal(),
                "scopes": scopes, "expires_at": expires_at,
            });
            println!("{shown}");
        } else {
            let until = expires_at
                .map_or_else(|| "never ends".to_owned(), |at| at.format("until %Y-%m-%d").to_string());
            println!("{}", token.reveal());
            println!("{id}, {until}. Keep the token now: it is not shown again.");
        }
        Ok(())
    })
    .await
}

pub(super) async fn list_tokens(config: Config, slug: Option<String>) -> anyhow::Result<()> {
    let who = if slug.is_some() { As::Server } else { As::Owner };
    with(&config, who, async |store| {
        let customers: Vec<(String, Tenancy)> = match slug {
            Some(slug) => vec![(slug.clone(), customer(store, &slug).await?)],
            None => {
                let all = store.customers().await.map_err(told)?;
                all.into_iter().map(|customer| (customer.row.slug, customer.tenancy)).collect()
            }
        };
        let mut rows = Vec::new();
        for (slug, tenancy) in customers {
            let tokens = store.read(&tenancy).tokens().await.map_err(told)?;
            rows.extend(tokens.into_iter().map(|token| token_row(store, &slug, token)));
        }
        print_table(["CUSTOMER", "ID", "ENDS WITH", "STATE", "LAST USED", "SCOPES", "NAME"], rows);
        Ok(())
    })
    .await
}

fn token_row(store: &Store, slug: &str, token: TokenRow) -> [String; 7] {
    let state = match (token.revoked_at, token.expires_at) {
        (Some(at), _) => format!("revoked {}", at.format(MINUTE)),
        (None, Some(at)) if at <= store.now() => format!("expired {}", at.format(MINUTE)),
        (None, Some(at)) => format!("until {}", at.format(MINUTE)),
        (None, None) => "does not expire".to_owned(),
    };
    let client = token.last_used_client.map(|client| format!(" by {}", line(&client))).unwrap_or_default();
    let used = token.last_used_at.map_or("never".to_owned(), |at| format!("{}{client}", at.format(MINUTE)));
    let scopes =
        if token.scopes.len() == Scope::ALL.len() { "all".to_owned() } else { token.scopes.join(" ") };
    [slug.to_owned(), token.token_id, format!("…{}", token.last_four), state, used, scopes, line(&token.name)]
}

pub(super) async fn revoke_token(config: Config, id: String) -> anyhow::Result<()> {
    let id = TokenId::parse(&id)
        .map_err(|_| anyhow!("that is no token's id: `apixx-mcp token list` shows them (mtk_…)"))?;
    with(&config, As::Owner, async |store| {
        let unknown = || anyhow!("there is no live token {id}: `apixx-mcp token list` shows all");
        let tenancy = store.customer_of_token(&id).await.map_err(told)?.ok_or_else(unknown)?;
        let mut tx = store.begin(&tenancy).await.map_err(told)?;
        if !tx.revoke_token(&id).await.map_err(told)? {
            return Err(unknown());
        }
        tx.audit(&operator(), "token.revoked", Target::Token(&id), None).await.map_err(told)?;
        tx.commit().await.map_err(told)?;
        println!("{id} is revoked");
        Ok(())
    })
    .await
}

pub(super) async fn pause_flow(config: Config, args: FlowArgs) -> anyhow::Result<()> {
    with(&config, As::Server, async |store| {
        let tenancy = customer(store, &args.customer).await?;
        let (flow, name) = flow(store, &tenancy, &args.flow).await?;
        let mut tx = store.begin(&tenancy).await.map_err(told)?;
        if !tx.pause_flow(&flow, &operator(), args.reason.as_deref()).await.map_err(told)? {
            bail!("{name} is not active: there is nothing to pause");
        }
        tx.commit().await.map_err(told)?;
        println!("{name} is paused");
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
        println!("{name} is active");
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
        Match::Several(near) | Match::None(near) => near,
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
        let Some(status) = tx.request_cancel(&run, actor.label()).await.map_err(told)? else {
            bail!("{slug} has no run {run} that runs here");
        };
        tx.audit(&actor, "run.cancel_requested", Target::Run(&run), None).await.map_err(told)?;
        tx.commit().await.map_err(told)?;
        match status {
            RunStatus::Cancelling => println!("{run} stops at its next batch"),
            RunStatus::Cancelled => println!("{run} is cancelled"),
            ended => println!("{run} has ended already ({ended})"),
        }
        Ok(())
    })
    .await
}

/// What the store refuses for a reason is told as it is; the rest is the database's fault.
fn told(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Conflict(why) => anyhow!(why),
        other => anyhow::Error::new(other).context("the database failed; -v tells why"),
    }
}

fn print_table<const N: usize>(heads: [&str; N], rows: Vec<[String; N]>) {
    let heads = heads.map(str::to_owned);
    let all: Vec<&[String; N]> = std::iter::once(&heads).chain(&rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in all {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_looked_at() {
        for good in ["ana@example.com", " a.b+c@x.y "] {
            assert!(email(good).is_ok(), "{good}");
        }
        for bad in ["ana", "@example.com", "ana@localhost", "a b@example.com"] {
            assert!(email(bad).is_err(), "{bad}");
        }
        assert_eq!(name(" x ").unwrap(), "x");
        assert!(name(" ").is_err() && name(&"x".repeat(201)).is_err());
        assert!(scope("flows:read").is_ok() && scope("flows:write").unwrap_err().contains("sync:trigger"));
    }
}
