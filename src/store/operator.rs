//! What an operator asks about the installation as a whole. The answers across customers are only for who owns
//! the schema: for the server's role, row-level security leaves them empty.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::{Store, StoreError, Tenancy};
use crate::domain::ids::TokenId;

statements! {
    CUSTOMERS = plain "
        select customer_id, slug, name, timezone, plan_code, status, created_at
          from customers
         order by slug";
    TOKEN = plain "
        select customer_id
          from tokens
         where token_id = $1";
    ROLE = plain "
        select current_user::text as name, bool_or(r.rolsuper) as superuser, bool_or(r.rolbypassrls) as bypasses,
               (select count(*) from pg_class c
                 where pg_has_role(c.relowner, 'member')
                   and (c.relname = 'runs' or c.relnamespace = 'public'::regnamespace)) as owns
          from pg_roles r
         where pg_has_role(r.oid, 'member')";
    UNGUARDED = plain "
        select c.relname::text
          from pg_class c
          join pg_attribute a on a.attrelid = c.oid and a.attname = 'customer_id' and not a.attisdropped
         where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace
           and not (c.relrowsecurity and exists (select 1 from pg_policy p where p.polrelid = c.oid))
         order by c.relname";
    WORKERS = plain "
        select seen_at, running
          from workers
         order by seen_at desc";
}

/// A customer as an operator sees it.
#[derive(Clone, Debug)]
pub struct Customer {
    /// The right to touch its rows.
    pub tenancy: Tenancy,
    /// What is shown of it.
    pub row: CustomerRow,
}

/// What is shown of a customer.
#[derive(Clone, Debug, FromRow)]
pub struct CustomerRow {
    /// Its id.
    pub customer_id: String,
    /// Its short name, as operators type it.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// The clock it lives by.
    pub timezone: String,
    /// The code of its plan.
    pub plan_code: String,
    /// `active` or `suspended`.
    pub status: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// The role a process logged in as.
#[derive(Clone, Debug, FromRow)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether it may do everything.
    pub superuser: bool,
    /// Whether row-level security does not hold for it.
    pub bypasses: bool,
    /// How many tables and indexes it owns.
    pub owns: i64,
}

impl Role {
    /// Whether it could see all customers' rows. The program refuses to serve as such a role.
    pub fn may_bypass(&self) -> bool {
        self.superuser || self.bypasses || self.owns > 0
    }
}

/// A worker process, as it last said.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct WorkerSeen {
    /// When.
    pub seen_at: DateTime<Utc>,
    /// How many runs it had.
    pub running: i32,
}

impl Store {
    /// Every customer, by its short name. Asked as the owner of the schema.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn customers(&self) -> Result<Vec<Customer>, StoreError> {
        let rows: Vec<CustomerRow> = sqlx::query_as(CUSTOMERS).fetch_all(self.pool()).await?;
        rows.into_iter()
            .map(|row| Ok(Customer { tenancy: Tenancy::of_row(&row.customer_id)?, row }))
            .collect()
    }

    /// Whose the token with this id is. Asked as the owner of the schema.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn customer_of_token(&self, token: &TokenId) -> Result<Option<Tenancy>, StoreError> {
        let row: Option<(String,)> =
            sqlx::query_as(TOKEN).bind(token.as_str()).fetch_optional(self.pool()).await?;
        row.map(|(customer,)| Tenancy::of_row(&customer)).transpose()
    }

    /// The role this process logged in as.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn role(&self) -> Result<Role, StoreError> {
        Ok(sqlx::query_as(ROLE).fetch_one(self.pool()).await?)
    }

    /// The tables of customers that row-level security does not guard; there should be none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unguarded_tables(&self) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(UNGUARDED).fetch_all(self.pool()).await?)
    }

    /// The worker processes, the one that spoke last first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workers(&self) -> Result<Vec<WorkerSeen>, StoreError> {
        Ok(sqlx::query_as(WORKERS).fetch_all(self.pool()).await?)
    }
}
