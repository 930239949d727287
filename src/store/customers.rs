//! Customers: their making, their people, and what the audit log keeps of what was done.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use sqlx::FromRow;

use super::tokens::Workspace;
use super::{Reader, Store, StoreError, Tenancy, TenantTx};
use crate::domain::ids::{AuditId, ConnectorId, CustomerId, FlowId, RunId, TokenId, UserId};
use crate::domain::person::Role;

statements! {
    ADD = plain "
        insert into customers (customer_id, slug, name, timezone, plan_code, created_at)
        values ($1, $2, $3, $4, $5, $6)";
    PUT_USER = plain "
        insert into users (customer_id, user_id, email, name, role, created_at)
        values ($1, $2, $3, $4, $5, $6)
            on conflict (customer_id, email) do update
           set name = coalesce($7, users.name), role = excluded.role, ended_at = null
        returning user_id";
    OWNER = plain "
        select user_id, name
          from users
         where customer_id = $1 and role = 'owner' and ended_at is null
         order by created_at, user_id
         limit 1";
    SET = plain "
        update customers
           set plan_code = coalesce($2, plan_code), status = coalesce($3, status),
               runs_kept_since = case when $2 is null then runs_kept_since else greatest(runs_kept_since,
                   (select $4::timestamptz - p.run_retention_days * interval '1 day' from plans p
                     where p.plan_code = customers.plan_code)) end
         where customer_id = $1
        returning plan_code, status";
    WORKSPACE = tenant "
        select c.name, c.slug, c.timezone
          from customers c
         where c.customer_id = $1 and caller.id = $1
        offset 0";
    LOCK = plain "
        select timezone
          from customers
         where customer_id = $1
           for no key update";
    AUDITED = tenant "
        select l.at, l.audit_id, coalesce(l.actor_label, '') as actor, l.action, l.target_kind, l.target_id, l.message
          from audit_log l
         where l.customer_id = $1 and caller.id = $1 and (l.at, l.audit_id) < ($4, $5)
         order by l.at desc, l.audit_id desc
         limit $6";
    AUDIT = plain "
        insert into audit_log (customer_id, audit_id, at, actor_kind, actor_id, actor_label, action, target_kind,
               target_id, message)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
}

/// A customer to be made, with its owner.
#[derive(Clone, Debug)]
pub struct NewCustomer {
    /// Its id; `None` makes one.
    pub id: Option<CustomerId>,
    /// Its short name, as operators type it: lower-case letters, digits and hyphens.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// The clock it lives by.
    pub timezone: Tz,
    /// The code of its plan.
    pub plan: String,
    /// The e-mail address of its first user, who owns it.
    pub owner_email: String,
    /// That user's name.
    pub owner_name: String,
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A person of the customer.
    User {
        /// Who.
        id: UserId,
        /// The person's name.
        name: String,
    },
    /// A program that holds a token.
    Token {
        /// Which.
        id: TokenId,
        /// Its name.
        name: String,
    },
    /// Whoever runs this installation, by the name they gave.
    Operator(String),
    /// This program, unasked.
    System,
}

impl Actor {
    fn kind(&self) -> &'static str {
        match self {
            Self::User { .. } => "user",
            Self::Token { .. } => "token",
            Self::Operator(_) => "operator",
            Self::System => "system",
        }
    }

    /// The id of the person or token.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::User { id, .. } => Some(id.as_str()),
            Self::Token { id, .. } => Some(id.as_str()),
            Self::Operator(_) | Self::System => None,
        }
    }

    /// What people read for it.
    pub fn label(&self) -> &str {
        match self {
            Self::User { name, .. } | Self::Token { name, .. } | Self::Operator(name) => name,
            Self::System => "apixx-mcp",
        }
    }
}

/// What something was done to.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// The customer itself.
    Customer,
    /// A flow.
    Flow(&'a FlowId),
    /// A connector.
    Connector(&'a ConnectorId),
    /// A run.
    Run(&'a RunId),
    /// A token.
    Token(&'a TokenId),
    /// A person.
    User(&'a UserId),
}

impl Store {
    /// Makes a customer and its owner in a transaction that goes on, so that more can be made with it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the slug is taken or no slug, or there is no such plan.
    pub async fn begin_customer(&self, new: &NewCustomer) -> Result<TenantTx, StoreError> {
        let id = new.id.clone().unwrap_or_else(|| CustomerId::new(self.ids()));
        let mut tx = self.begin(&Tenancy::of_row(id.as_str())?).await?;
        let now = tx.now();
        tx.query(ADD)
            .bind(new.slug.clone())
            .bind(new.name.clone())
            .bind(new.timezone.name())
            .bind(new.plan.clone())
            .bind(now)
            .execute(tx.conn())
            .await
            .map_err(refused)?;
        tx.put_user(&new.owner_email, Some(&new.owner_name), Role::Owner).await?;
        tx.audit(&Actor::System, "customer.created", Target::Customer, None).await?;
        Ok(tx)
    }
}

/// What a refused customer row means.
fn refused(error: sqlx::Error) -> StoreError {
    let error = StoreError::from(error);
    match error.constraint() {
        Some("customers_slug_key") => StoreError::Conflict("a customer with this slug exists already"),
        Some("customers_pkey") => StoreError::Conflict("a customer with this id exists already"),
        Some("customers_slug_check") => StoreError::Conflict(
            "a slug is lower-case letters, digits and hyphens, at most 63, such as `acme`",
        ),
        Some("customers_name_check") => StoreError::Conflict("a customer's name has 1 to 200 characters"),
        Some("customers_plan_code_fkey") => {
            StoreError::Conflict("there is no such plan; there are free, team, business and what you added")
        }
        _ => error,
    }
}

/// Something that was done, as the audit log keeps it.
#[derive(Clone, Debug, FromRow)]
pub struct AuditRow {
    /// When.
    pub at: DateTime<Utc>,
    /// Its own id.
    pub audit_id: String,
    /// Who, in words.
    pub actor: String,
    /// What, such as `flow.paused`.
    pub action: String,
    /// To what kind of thing.
    pub target_kind: String,
    /// To which.
    pub target_id: String,
    /// What was said.
    pub message: Option<String>,
}

impl Reader<'_> {
    /// What was done before a place in the audit log (a moment and an id), newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audited(
        &self,
        before: (DateTime<Utc>, &str),
        most: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let query = self.query_as(AUDITED).bind(before.0).bind(before.1).bind(most);
        Ok(query.fetch_all(self.store().reads()).await?)
    }

    /// What the workspace is called and which clock it lives by.
    ///
    /// # Errors
    /// When the database fails, or the token is no longer live.
    pub async fn workspace(&self) -> Result<Workspace, StoreError> {
        let (name, slug, zone): (String, String, String) =
            self.query_as(WORKSPACE).fetch_one(self.store().reads()).await?;
        Workspace::of_row(name, slug, &zone)
    }
}

impl TenantTx {
    /// Makes a person, or changes the role of the one with this address (read without regard to case), and the name if
    /// one is given; a new one is called by what stands before the `@` otherwise. Returns whose row it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_user(
        &mut self,
        email: &str,
        name: Option<&str>,
        role: Role,
    ) -> Result<UserId, StoreError> {
        let (new, now) = (UserId::new(self.ids()), self.now());
        let (user,): (String,) = self
            .query_as(PUT_USER)
            .bind(new.as_str().to_owned())
            .bind(email.trim().to_lowercase())
            .bind(name.unwrap_or_else(|| email.split('@').next().unwrap_or(email)).to_owned())
            .bind(role.as_str())
            .bind(now)
            .bind(name.map(str::to_owned))
            .fetch_one(self.conn())
            .await?;
        UserId::parse(&user).map_err(|_| StoreError::inconsistent("users", "user_id"))
    }

    /// Gives the customer another plan, suspends it or lets it in again (`suspended`, `active`); what is `None` stays.
    /// Returns both as they are then.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is no such plan.
    pub async fn set_customer(
        &mut self,
        plan: Option<String>,
        status: Option<String>,
    ) -> Result<(String, String), StoreError> {
        let now = self.now();
        let query = self.query_as(SET).bind(plan).bind(status).bind(now);
        query.fetch_one(self.conn()).await.map_err(refused)
    }

    /// The first owner, to whom what an operator makes on the command line belongs.
    ///
    /// # Errors
    /// When the database fails; [`StoreError::Conflict`] when the customer has no owner.
    pub async fn owner(&mut self) -> Result<Actor, StoreError> {
        let row: Option<(String, String)> = self.query_as(OWNER).fetch_optional(self.conn()).await?;
        let (id, name) = row.ok_or(StoreError::Conflict("the customer has no owner"))?;
        let id = UserId::parse(&id).map_err(|_| StoreError::inconsistent("users", "user_id"))?;
        Ok(Actor::User { id, name })
    }

    /// Makes other transactions that lock this customer wait for the end of this one (nobody else: rows that refer to the
    /// customer are written meanwhile); returns the clock it lives by.
    ///
    /// # Errors
    /// When the database fails; [`StoreError::Conflict`] when there is no such customer.
    pub async fn lock_customer(&mut self) -> Result<Tz, StoreError> {
        let row: Option<(String,)> = self.query_as(LOCK).fetch_optional(self.conn()).await?;
        let (zone,) = row.ok_or(StoreError::Conflict("there is no such customer"))?;
        zone.parse().map_err(|_| StoreError::inconsistent("customers", "timezone"))
    }

    /// Keeps in the audit log that `actor` did `action` (`flow.paused`, `run.triggered`, …).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(
        &mut self,
        actor: &Actor,
        action: &'static str,
        target: Target<'_>,
        message: Option<&str>,
    ) -> Result<(), StoreError> {
        let (id, now) = (AuditId::new(self.ids()), self.now());
        let customer = self.tenancy().customer().clone();
        let (kind, target) = match target {
            Target::Customer => ("customer", customer.as_str()),
            Target::Flow(id) => ("flow", id.as_str()),
            Target::Connector(id) => ("connector", id.as_str()),
            Target::Run(id) => ("run", id.as_str()),
            Target::Token(id) => ("token", id.as_str()),
            Target::User(id) => ("user", id.as_str()),
        };
        self.query(AUDIT)
            .bind(id.as_str().to_owned())
            .bind(now)
            .bind(actor.kind())
            .bind(actor.id().map(str::to_owned))
            .bind(actor.label().to_owned())
            .bind(action)
            .bind(kind)
            .bind(target.to_owned())
            .bind(message.map(str::to_owned))
            .execute(self.conn())
            .await?;
        Ok(())
    }
}
