//! What an operator does to tokens.

use anyhow::{anyhow, bail};
use chrono::TimeDelta;
use clap::Args;
use serde_json::json;

use super::session::{As, customer, operator, told, with};
use super::table::{MINUTE, print_table};
use crate::config::Config;
use crate::domain::ids::TokenId;
use crate::domain::scope::{Scope, Scopes};
use crate::domain::token::{self, LIFETIMES, PlainToken};
use crate::domain::untrusted::line;
use crate::store::customers::{Actor, Target};
use crate::store::tokens::TokenRow;
use crate::store::{Store, Tenancy};

#[derive(Debug, Args)]
pub(super) struct NewTokenArgs {
    /// The customer's short name
    #[arg(long, value_name = "SLUG")]
    customer: String,
    /// What to know it by, such as "Claude on Ana's laptop"
    #[arg(long, value_parser = name)]
    name: String,
    /// When it ends: 30d, 90d, 365d or never
    #[arg(long, value_name = "TIME", value_parser = lifetime, default_value = "90d")]
    expires_in: Lifetime,
    /// A right to give it; may be repeated [default: all]
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<Scope>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// How long a token lives: one of [`LIFETIMES`].
#[derive(Clone, Copy, Debug, PartialEq)]
struct Lifetime(Option<TimeDelta>);

fn lifetime(text: &str) -> Result<Lifetime, String> {
    let spelt = |days: &Option<i64>| days.map_or("never".to_owned(), |days| format!("{days}d"));
    let found = LIFETIMES.iter().find(|days| spelt(days) == text);
    let all = || LIFETIMES.iter().map(spelt).collect::<Vec<_>>().join(", ");
    found.map(|days| Lifetime(days.map(TimeDelta::days))).ok_or_else(|| format!("there are {}", all()))
}

fn scope(text: &str) -> Result<Scope, String> {
    let all = || Scope::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ");
    Scope::parse(text).ok_or_else(|| format!("the scopes are {}", all()))
}

fn name(text: &str) -> Result<String, &'static str> {
    token::name(text).map(str::to_owned).ok_or("1 to 200 characters")
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
        let expires_at = args.expires_in.0.map(|time| tx.now() + time);
        let id = tx.add_token(&owner, &args.name, &token, scopes, expires_at).await.map_err(told)?;
        tx.audit(&operator(), "token.created", Target::Token(&id), Some(&args.name)).await.map_err(told)?;
        tx.commit().await.map_err(told)?;
        if args.json {
            let scopes: Vec<_> = scopes.iter().map(Scope::as_str).collect();
            let shown = json!({
                "customer": args.customer, "token_id": id, "name": args.name, "token": token.reveal(),
                "scopes": scopes, "expires_at": expires_at,
            });
            say!("{shown}");
        } else {
            let until = expires_at
                .map_or_else(|| "never ends".to_owned(), |at| at.format("until %Y-%m-%d").to_string());
            say!("{}", token.reveal());
            say!("{id}, {until}. Keep the token now: it is not shown again.");
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
        print_table(["CUSTOMER", "ID", "ENDS WITH", "STATE", "LAST USED", "SCOPES", "MADE BY", "NAME"], rows);
        Ok(())
    })
    .await
}

fn token_row(store: &Store, slug: &str, token: TokenRow) -> [String; 8] {
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
    let (ends_with, made_by) = (format!("…{}", token.last_four), line(&token.email));
    [slug.to_owned(), token.token_id, ends_with, state, used, scopes, made_by, line(&token.name)]
}

pub(super) async fn revoke_token(config: Config, id: String) -> anyhow::Result<()> {
    let id = TokenId::parse(&id)
        .map_err(|_| anyhow!("that is no token's id: `apixx-mcp token list` shows them (mtk_…)"))?;
    with(&config, As::Owner, async |store| {
        let unknown = || anyhow!("there is no live token {id}: `apixx-mcp token list` shows all that live");
        let tenancy = store.customer_of_token(&id).await.map_err(told)?.ok_or_else(unknown)?;
        let mut tx = store.begin(&tenancy).await.map_err(told)?;
        if !tx.revoke_token(&id).await.map_err(told)? {
            return Err(unknown());
        }
        tx.audit(&operator(), "token.revoked", Target::Token(&id), None).await.map_err(told)?;
        tx.commit().await.map_err(told)?;
        say!("{id} is revoked");
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_times_and_scopes_are_looked_at() {
        assert_eq!(name(" x ").unwrap(), "x");
        assert!(name(" ").is_err());
        assert_eq!(lifetime("30d"), Ok(Lifetime(Some(TimeDelta::days(30)))));
        assert_eq!(lifetime("never"), Ok(Lifetime(None)));
        assert_eq!(lifetime("31d").unwrap_err(), "there are 30d, 90d, 365d, never");
        assert!(scope("flows:read").is_ok() && scope("flows:write").unwrap_err().contains("sync:trigger"));
    }
}
