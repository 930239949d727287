//! Tenancy: the right to touch one customer's rows, which only the database can have given.

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::{Query, QueryAs};
use sqlx::{FromRow, Postgres};

use super::connections::Open;
use super::{Store, StoreError};
use crate::domain::ids::CustomerId;
use crate::domain::token::TokenDigest;

/// Whose rows may be touched, and on whose word: a token's, a session's, or (without one) a claim's or an operator's.
/// Made only on this floor, from rows the database returned, so that nothing a caller typed can become one.
#[derive(Clone, Debug)]
pub struct Tenancy {
    customer: CustomerId,
    token: Option<TokenDigest>,
}

statements! {
    ENTER = plain "with ", caller!(), " select id from caller";
    BY_SLUG = plain "select customer_by_slug($1)";
}

impl Tenancy {
    /// The tenancy of a token's owner, or of whoever is signed in with a session.
    pub(super) fn of_token(customer: CustomerId, token: TokenDigest) -> Self {
        Self { customer, token: Some(token) }
    }

    /// The tenancy of work that the database handed out (a claimed run, a due schedule), or of a customer
    /// being made.
    pub(super) fn of_row(customer: &str) -> Result<Self, StoreError> {
        let customer =
            CustomerId::parse(customer).map_err(|_| StoreError::inconsistent("customers", "customer_id"))?;
        Ok(Self { customer, token: None })
    }

    /// The customer, for logs and seals. It opens nothing: no function of this floor takes one.
    pub fn customer(&self) -> &CustomerId {
        &self.customer
    }

    fn token_bytes(&self) -> Option<&[u8]> {
        self.token.as_ref().map(TokenDigest::as_bytes)
    }
}

impl Store {
    /// One customer's rows, read one statement at a time.
    pub fn read<'a>(&'a self, tenancy: &'a Tenancy) -> Reader<'a> {
        Reader { store: self, tenancy, now: self.now() }
    }

    /// One customer's rows in a transaction, for writes and for several statements.
    ///
    /// # Errors
    /// [`StoreError::NotLive`] when the token was revoked or expired meanwhile.
    pub async fn begin(&self, tenancy: &Tenancy) -> Result<TenantTx, StoreError> {
        let now = self.now();
        let tx = self.pool().begin().await?;
        let mut tx = TenantTx { tx, tenancy: tenancy.clone(), now, ids: self.ids().clone() };
        tx.still_live().await?;
        Ok(tx)
    }

    /// The tenancy of the customer that an operator named, or `None` when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn customer_named(&self, slug: &str) -> Result<Option<Tenancy>, StoreError> {
        let customer: Option<String> = sqlx::query_scalar(BY_SLUG).bind(slug).fetch_one(self.pool()).await?;
        customer.as_deref().map(Tenancy::of_row).transpose()
    }
}

/// One customer's rows, read one statement at a time; each is its own round trip, and [`StoreError::NotLive`] once the
/// token was revoked or has expired.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    store: &'a Store,
    tenancy: &'a Tenancy,
    now: DateTime<Utc>,
}

impl<'a> Reader<'a> {
    /// The time that the statements of this reader see.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// The store behind it.
    pub(super) fn store(&self) -> &'a Store {
        self.store
    }

    /// A `tenant` statement, its first three parameters bound.
    pub(super) fn query_as<T>(&self, text: &'static str) -> QueryAs<'a, Postgres, T, PgArguments>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_as(text)
            .bind(self.tenancy.customer.as_str())
            .bind(self.tenancy.token_bytes())
            .bind(self.now)
    }
}

/// One customer's rows in a transaction. Dropped without [`TenantTx::commit`], nothing happened.
#[derive(Debug)]
pub struct TenantTx {
    tx: Open,
    tenancy: Tenancy,
    now: DateTime<Utc>,
    ids: crate::domain::ids::IdSource,
}

impl TenantTx {
    /// The time that the statements of this transaction see.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Makes the statements that follow see another time: a past that is put in place later.
    pub fn turn_clock_to(&mut self, now: DateTime<Utc>) {
        self.now = now;
    }

    /// Where new ids come from.
    pub fn ids(&self) -> &crate::domain::ids::IdSource {
        &self.ids
    }

    /// Whose rows these are.
    pub fn tenancy(&self) -> &Tenancy {
        &self.tenancy
    }

    /// Asks once more whether the token is live, after this transaction waited for something.
    ///
    /// # Errors
    /// [`StoreError::NotLive`] when it is not; when the database fails.
    pub async fn still_live(&mut self) -> Result<(), StoreError> {
        let entered: String = sqlx::query_scalar(ENTER)
            .bind(self.tenancy.customer.as_str())
            .bind(self.tenancy.token_bytes())
            .bind(self.now)
            .fetch_one(&mut self.tx)
            .await?;
        if entered == self.tenancy.customer.as_str() { Ok(()) } else { Err(StoreError::NotLive) }
    }

    /// A `plain` statement, the customer bound as `$1`.
    pub(super) fn query(&self, text: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(text).bind(self.tenancy.customer.as_str().to_owned())
    }

    /// A `plain` statement that returns rows, the customer bound as `$1`.
    pub(super) fn query_as<T>(&self, text: &'static str) -> QueryAs<'static, Postgres, T, PgArguments>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_as(text).bind(self.tenancy.customer.as_str().to_owned())
    }

    /// What they run on.
    pub(super) fn conn(&mut self) -> &mut Open {
        &mut self.tx
    }

    /// Makes it so.
    ///
    /// # Errors
    /// When the database fails; nothing happened then, unless it is [`StoreError::Unknown`].
    pub async fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().await.map_err(StoreError::of_commit)
    }
}
