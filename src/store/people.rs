//! People who sign in: their passwords, links and sessions. They belong to no customer; each way to them is a door.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::tokens::{Plan, Workspace};
use super::{Reader, Store, StoreError, Tenancy, TenantTx};
use crate::domain::ids::UserId;
use crate::domain::person::{Email, Role};
use crate::domain::token::{Secret, TokenDigest};

statements! {
    PASSWORD = plain "select password_of($1)";
    CHOOSE = plain "select choose_password($1, $2, $3, $4, $5, $6)";
    ADD_LINK = plain "select add_link($1, $2, $3, $4)";
    RESET = plain "select reset_person($1, $2, $3)";
    LINK = plain "select link_person($1, $2, $3)";
    TAKE_LINK = plain "select take_link($1, $2, $3, $4, $5)";
    OPEN = plain "select open_session($1, $2, $3, $4, $5)";
    END = plain "select end_session($1)";
    END_ALL = plain "select end_sessions($1)";
    CUSTOMERS = plain "select customers_of($1)";
    REMOVE = plain "
        update users u
           set ended_at = $3
         where u.customer_id = $1 and u.email = $2 and u.ended_at is null
           and (u.role <> 'owner' or exists (
                select 1 from users o
                 where o.customer_id = $1 and o.role = 'owner' and o.ended_at is null and o.email <> $2))
        returning u.user_id";
    USER = plain "select user_id from users where customer_id = $1 and email = $2 and ended_at is null";
    PERSON = plain "select * from session_person($1, $2, $3)";
    MEMBER = plain "select * from session_member($1, $2, $3)";
    USERS = tenant "
        select u.user_id, u.email, u.name, u.role, u.created_at
          from users u
         where u.customer_id = $1 and caller.id = $1 and u.ended_at is null
         order by u.created_at, u.user_id
        offset 0";
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To choose a password: an invitation or a reset.
    Password,
    /// To come in.
    SignIn,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::SignIn => "sign_in",
        }
    }
}

/// How long a session lives.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Unless it is used before.
    pub idle: DateTime<Utc>,
    /// Whatever happens.
    pub at_last: DateTime<Utc>,
}

/// Who is signed in.
#[derive(Clone, Debug)]
pub struct Person {
    /// By whom they are known.
    pub email: String,
    /// Where they belong: short name and name of each workspace.
    pub workspaces: Vec<(String, String)>,
}

/// Whoever is signed in, in one of their workspaces.
#[derive(Clone, Debug)]
pub struct Member {
    /// The right to touch the workspace's rows, for as long as the session lives.
    pub tenancy: Tenancy,
    /// Who.
    pub user: UserId,
    /// Their address.
    pub email: String,
    /// Their name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The workspace.
    pub workspace: Workspace,
    /// What its plan allows.
    pub plan: Plan,
}

/// A person of a customer, as a list shows them.
#[derive(Clone, Debug, FromRow)]
pub struct UserRow {
    /// Their id.
    pub user_id: String,
    /// Their address.
    pub email: String,
    /// Their name.
    pub name: String,
    /// What they may do.
    pub role: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

#[derive(FromRow)]
struct MemberRow {
    customer_id: String,
    user_id: String,
    email: String,
    user_name: String,
    role: String,
    customer_name: String,
    slug: String,
    timezone: String,
    #[sqlx(flatten)]
    plan: Plan,
}

impl Store {
    /// What a password of this person is compared with, in PHC form; `None` when there is no such person, or none who
    /// chose one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn password_of(&self, email: &Email) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar(PASSWORD).bind(email.as_str()).fetch_one(self.pool()).await?)
    }

    /// Keeps a link of one use; false when there is no such person.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_link(
        &self,
        link: &Secret,
        email: &Email,
        purpose: Purpose,
        until: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let digest = link.digest();
        let query = sqlx::query_scalar(ADD_LINK).bind(digest.as_bytes()).bind(email.as_str());
        Ok(query.bind(purpose.as_str()).bind(until).fetch_one(self.pool()).await?)
    }

    /// Keeps a link to choose a password, which alone opens the account from now on: the password, the sessions and the links
    /// of before end. False when there is no such person.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reset_person(
        &self,
        link: &Secret,
        email: &Email,
        until: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar(RESET).bind(link.digest().as_bytes().to_vec()).bind(email.as_str());
        Ok(query.bind(until).fetch_one(self.pool()).await?)
    }

    /// Whose a link to choose a password is, while it can be used.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn password_link(&self, link: &Secret) -> Result<Option<Email>, StoreError> {
        let query = sqlx::query_scalar(LINK).bind(link.digest().as_bytes().to_vec());
        let query = query.bind(Purpose::Password.as_str()).bind(self.now());
        email(query.fetch_one(self.pool()).await?)
    }

    /// Opens a session for whoever holds a link to come in, which cannot be used again; false when it is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_link(&self, link: &Secret, session: &Secret, ends: Ends) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar(TAKE_LINK).bind(link.digest().as_bytes().to_vec());
        let query = query.bind(session.digest().as_bytes().to_vec()).bind(self.now());
        Ok(query.bind(ends.idle).bind(ends.at_last).fetch_one(self.pool()).await?)
    }

    /// Gives whoever holds a link another password (its hash in PHC form), which ends their sessions and links, and opens a
    /// session; whose it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn choose_password(
        &self,
        link: &Secret,
        hash: &str,
        session: &Secret,
        ends: Ends,
    ) -> Result<Option<Email>, StoreError> {
        let query = sqlx::query_scalar(CHOOSE).bind(link.digest().as_bytes().to_vec()).bind(hash);
        let query = query.bind(session.digest().as_bytes().to_vec()).bind(self.now());
        email(query.bind(ends.idle).bind(ends.at_last).fetch_one(self.pool()).await?)
    }

    /// Each customer that a person belongs to, for what an operator does to the person.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn customers_of(&self, email: &Email) -> Result<Vec<Tenancy>, StoreError> {
        let query = sqlx::query_scalar(CUSTOMERS).bind(email.as_str());
        let customers: Vec<String> = query.fetch_all(self.reads()).await?;
        customers.iter().map(|customer| Tenancy::of_row(customer)).collect()
    }

    /// Opens a session.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open_session(&self, session: &Secret, email: &Email, ends: Ends) -> Result<(), StoreError> {
        let digest = session.digest();
        let query = sqlx::query(OPEN).bind(digest.as_bytes()).bind(email.as_str()).bind(self.now());
        query.bind(ends.idle).bind(ends.at_last).execute(self.pool()).await?;
        Ok(())
    }

    /// Ends a session, or all of its person's.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_session(&self, session: TokenDigest, everywhere: bool) -> Result<(), StoreError> {
        let text = if everywhere { END_ALL } else { END };
        sqlx::query(text).bind(session.as_bytes()).execute(self.pool()).await?;
        Ok(())
    }

    /// Who is signed in with a session, which lives on until `idle`; `None` when it is none, or none any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session_person(
        &self,
        session: TokenDigest,
        idle: DateTime<Utc>,
    ) -> Result<Option<Person>, StoreError> {
        let query = sqlx::query_as(PERSON).bind(session.as_bytes()).bind(self.now()).bind(idle);
        let rows: Vec<(String, Option<String>, Option<String>)> = query.fetch_all(self.pool()).await?;
        let Some((email, ..)) = rows.first().cloned() else { return Ok(None) };
        let workspaces = rows.into_iter().filter_map(|(_, slug, name)| slug.zip(name)).collect();
        Ok(Some(Person { email, workspaces }))
    }

    /// As whom they stand in the workspace of this short name; `None` when it is none of theirs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session_member(
        &self,
        session: TokenDigest,
        slug: &str,
    ) -> Result<Option<Member>, StoreError> {
        let query = sqlx::query_as(MEMBER).bind(session.as_bytes()).bind(slug).bind(self.now());
        let row: Option<MemberRow> = query.fetch_optional(self.reads()).await?;
        let Some(row) = row else { return Ok(None) };
        let customer = Tenancy::of_row(&row.customer_id)?.customer().clone();
        Ok(Some(Member {
            tenancy: Tenancy::of_token(customer, session),
            user: user_id(&row.user_id)?,
            email: row.email,
            name: row.user_name,
            role: Role::parse(&row.role).ok_or(StoreError::inconsistent("users", "role"))?,
            workspace: Workspace::of_row(row.customer_name, row.slug, &row.timezone)?,
            plan: row.plan,
        }))
    }
}

impl Reader<'_> {
    /// Everybody of the customer, in the order in which they came.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn users(&self) -> Result<Vec<UserRow>, StoreError> {
        Ok(self.query_as(USERS).fetch_all(self.store().reads()).await?)
    }
}

impl TenantTx {
    /// Takes a person out of the customer; `None` when there is no such person, or nobody would own it then.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_user(&mut self, email: &Email) -> Result<Option<UserId>, StoreError> {
        // Two owners who are taken out at the same moment would each count on the other.
        self.lock_customer().await?;
        let now = self.now();
        let query = self.query_as(REMOVE).bind(email.as_str().to_owned()).bind(now);
        let gone: Option<(String,)> = query.fetch_optional(self.conn()).await?;
        gone.map(|(id,)| user_id(&id)).transpose()
    }

    /// The person's id in the customer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user(&mut self, email: &Email) -> Result<Option<UserId>, StoreError> {
        let query = self.query_as(USER).bind(email.as_str().to_owned());
        let found: Option<(String,)> = query.fetch_optional(self.conn()).await?;
        found.map(|(id,)| user_id(&id)).transpose()
    }
}

fn user_id(text: &str) -> Result<UserId, StoreError> {
    UserId::parse(text).map_err(|_| StoreError::inconsistent("users", "user_id"))
}

fn email(text: Option<String>) -> Result<Option<Email>, StoreError> {
    text.map(|text| Email::parse(&text).ok_or(StoreError::inconsistent("people", "email"))).transpose()
}
