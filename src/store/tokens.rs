//! Tokens: whose a secret is, and the making, listing and revoking of tokens.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::customers::Actor;
use super::{Reader, Store, StoreError, Tenancy, TenantTx};
use crate::domain::ids::{TokenId, UserId};
use crate::domain::scope::{Scope, Scopes};
use crate::domain::token::{PlainToken, TokenDigest};

statements! {
    OWNER = plain "select * from token_owner($1, $2)";
    TOKENS = tenant "
        select t.token_id, t.name, t.last_four, t.scopes, t.created_at, t.expires_at, t.revoked_at, t.last_used_at,
               t.last_used_client, t.last_used_ip, u.email
          from (select l.*
                  from tokens l
                 where l.customer_id = $1 and caller.id = $1 and l.ends_at > $3
                union all
                (select e.*
                   from tokens e
                  where e.customer_id = $1 and caller.id = $1 and e.ends_at <= $3
                  order by e.ends_at desc
                  limit 50)) t
          join users u on u.customer_id = t.customer_id and u.user_id = t.user_id
         order by t.created_at, t.token_id
        offset 0";
    CALLS = tenant "
        select h.token_id, date_trunc('day', h.hour, 'UTC') as day, sum(h.calls)::bigint as calls
          from usage_hourly h
         where h.customer_id = $1 and caller.id = $1 and h.hour >= $4
         group by 1, 2
        offset 0";
    ADD = plain "
        insert into tokens (customer_id, token_id, user_id, name, digest, last_four, scopes, created_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    REVOKE = plain "
        update tokens set revoked_at = $3
         where customer_id = $1 and token_id = $2 and revoked_at is null";
    IS_LIVE = plain "
        select revoked_at is null and (expires_at is null or expires_at > $3)
          from tokens
         where customer_id = $1 and digest = $2";
}

/// Tokens that have ended, of those that a list has beside the live ones: it stays readable however many there were.
pub const ENDED: usize = 50;

/// Who calls, on the word of a live token or as somebody who is signed in, with what their plan allows.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The right to touch the customer's rows.
    pub tenancy: Tenancy,
    /// The token, or the person.
    pub actor: Actor,
    /// What they may do.
    pub scopes: Scopes,
    /// When a token ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// The workspace.
    pub workspace: Workspace,
    /// What the plan allows.
    pub plan: Plan,
}

impl Caller {
    /// The token, if it is one that calls.
    pub fn token(&self) -> Option<&TokenId> {
        match &self.actor {
            Actor::Token { id, .. } => Some(id),
            _ => None,
        }
    }
}

/// What a workspace is called and which clock it lives by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its name.
    pub name: String,
    /// Its short name, as operators type it.
    pub slug: String,
    /// Its time zone.
    pub zone: chrono_tz::Tz,
}

impl Workspace {
    /// As its row says.
    pub(super) fn of_row(name: String, slug: String, zone: &str) -> Result<Self, StoreError> {
        let zone = zone.parse().map_err(|_| StoreError::inconsistent("customers", "timezone"))?;
        Ok(Self { name, slug, zone })
    }
}

/// What a customer's plan allows, shared by all its tokens.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Plan {
    /// The plan's name.
    pub plan_code: String,
    /// Requests a minute in the long run.
    pub requests_per_minute: i32,
    /// Requests at once.
    pub burst: i32,
    /// Requests a day (UTC); `None` is unlimited.
    pub daily_requests: Option<i64>,
    /// Runs started by `trigger_sync` in a minute.
    pub triggers_per_minute: i32,
    /// Runs a day (UTC); `None` is unlimited.
    pub daily_runs: Option<i32>,
    /// Runs at the same time.
    pub max_concurrent_runs: i32,
    /// Runs waiting.
    pub max_queued_runs: i32,
    /// Days that runs are kept.
    pub run_retention_days: i32,
    /// Since when, where the plan before it kept them for a shorter time.
    pub runs_kept_since: Option<DateTime<Utc>>,
}

/// What is known of a token that somebody presents.
#[derive(Clone, Debug)]
pub enum Presented {
    /// It opens its owner's workspace.
    Live(Box<Caller>),
    /// It was one: `revoked_token`, `expired_token` or `suspended_customer`.
    Dead {
        /// Why it opens nothing.
        cause: &'static str,
        /// Its id.
        token: String,
    },
    /// Nobody made it.
    Unknown,
}

#[derive(FromRow)]
struct OwnerRow {
    standing: String,
    customer_id: String,
    token_id: String,
    token_name: String,
    scopes: Vec<String>,
    expires_at: Option<DateTime<Utc>>,
    customer_name: String,
    slug: String,
    timezone: String,
    #[sqlx(flatten)]
    plan: Plan,
}

impl Store {
    /// Whose the token with this digest is, if it is live.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token_owner(&self, digest: TokenDigest) -> Result<Presented, StoreError> {
        let row: Option<OwnerRow> = sqlx::query_as(OWNER)
            .bind(digest.as_bytes())
            .bind(self.now())
            .fetch_optional(self.reads())
            .await?;
        let Some(row) = row else { return Ok(Presented::Unknown) };
        if row.standing != "live" {
            let cause = ["revoked_token", "expired_token", "suspended_customer"]
                .into_iter()
                .find(|cause| *cause == row.standing)
                .ok_or(StoreError::inconsistent("tokens", "standing"))?;
            return Ok(Presented::Dead { cause, token: row.token_id });
        }
        let customer = Tenancy::of_row(&row.customer_id)?.customer().clone();
        Ok(Presented::Live(Box::new(Caller {
            tenancy: Tenancy::of_token(customer, digest),
            actor: Actor::Token {
                id: TokenId::parse(&row.token_id)
                    .map_err(|_| StoreError::inconsistent("tokens", "token_id"))?,
                name: row.token_name,
            },
            scopes: scopes(&row.scopes)?,
            expires_at: row.expires_at,
            workspace: Workspace::of_row(row.customer_name, row.slug, &row.timezone)?,
            plan: row.plan,
        })))
    }
}

fn scopes(texts: &[String]) -> Result<Scopes, StoreError> {
    texts.iter().map(|text| Scope::parse(text).ok_or(StoreError::inconsistent("tokens", "scopes"))).collect()
}

/// A token as its owner sees it in a list.
#[derive(Clone, Debug, FromRow)]
pub struct TokenRow {
    /// Its id.
    pub token_id: String,
    /// Its name.
    pub name: String,
    /// The last four characters of the secret.
    pub last_four: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used (to the second).
    pub last_used_at: Option<DateTime<Utc>>,
    /// The client that used it, as the client calls itself.
    pub last_used_client: Option<String>,
    /// From which address.
    pub last_used_ip: Option<String>,
    /// Whose it is.
    pub email: String,
}

impl TokenRow {
    /// Whether it is neither revoked nor past its end.
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}

impl Reader<'_> {
    /// Every live token of the customer and the [`ENDED`] that ended last, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        Ok(self.query_as(TOKENS).fetch_all(self.store().reads()).await?)
    }

    /// Tool calls of every token on each day (UTC) since `since`: its id, the day, how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn calls_by_day(
        &self,
        since: DateTime<Utc>,
    ) -> Result<Vec<(String, DateTime<Utc>, i64)>, StoreError> {
        Ok(self.query_as(CALLS).bind(since).fetch_all(self.store().reads()).await?)
    }
}

impl TenantTx {
    /// Whether the customer's token with this digest is live; `None` when it has no such token.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token_is_live(&mut self, digest: TokenDigest) -> Result<Option<bool>, StoreError> {
        let now = self.now();
        let row: Option<(bool,)> = self
            .query_as(IS_LIVE)
            .bind(digest.as_bytes().to_vec())
            .bind(now)
            .fetch_optional(self.conn())
            .await?;
        Ok(row.map(|(live,)| live))
    }

    /// Stores a token of `user`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_token(
        &mut self,
        user: &UserId,
        name: &str,
        token: &PlainToken,
        scopes: Scopes,
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<TokenId, StoreError> {
        let id = TokenId::new(self.ids());
        let scopes: Vec<String> = scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
        self.query(ADD)
            .bind(id.as_str().to_owned())
            .bind(user.as_str().to_owned())
            .bind(name.to_owned())
            .bind(token.digest().as_bytes().to_vec())
            .bind(token.last_four().to_owned())
            .bind(scopes)
            .bind(self.now())
            .bind(expires_at)
            .execute(self.conn())
            .await?;
        Ok(id)
    }

    /// Revokes a token; false when the customer has no live token with that id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_token(&mut self, token: &TokenId) -> Result<bool, StoreError> {
        let now = self.now();
        let done = self.query(REVOKE).bind(token.as_str().to_owned()).bind(now).execute(self.conn()).await?;
        Ok(done.rows_affected() == 1)
    }
}
