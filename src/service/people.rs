//! Signing in: e-mail and password, links of one use, sessions.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use chrono::TimeDelta;
use governor::clock::Clock as _;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::access::network;
use crate::domain::person::Email;
use crate::domain::token::{Secret, TokenDigest};
use crate::store::customers::{Actor, Target};
use crate::store::people::{Ends, Person};
use crate::store::{Store, StoreError};

/// A session that nobody uses ends after this time,
const IDLE: TimeDelta = TimeDelta::hours(12);

/// and any after this.
pub const LONGEST: TimeDelta = TimeDelta::days(7);

/// How long an invitation or a reset can be used.
pub const LINK_LIVES: TimeDelta = TimeDelta::days(3);

/// Characters of a password. Long ones are welcome, but they are hashed.
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 12..=200;

/// Passwords that are hashed at the same time: each takes a core and 19 MiB.
const HASHED_AT_ONCE: usize = 2;

/// Look-ups of sessions and links not seen a moment ago at the same time.
const STRANGERS: usize = 2;

/// Sessions that are remembered to exist (never whose they are), and how long.
const MAX_KNOWN: u64 = 20_000;
const KNOWN: Duration = Duration::from_secs(60);

/// How long one may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Attempts for one account from one network: some at once, then one a minute.
const FOR_ONE: Quota = Quota::per_minute(NonZeroU32::MIN).allow_burst(NonZeroU32::new(10).unwrap());

/// Attempts for one account from everywhere.
const FOR_ACCOUNT: Quota =
    Quota::per_minute(NonZeroU32::new(10).unwrap()).allow_burst(NonZeroU32::new(60).unwrap());

/// Attempts from one network.
const FROM_NETWORK: Quota =
    Quota::per_minute(NonZeroU32::new(10).unwrap()).allow_burst(NonZeroU32::new(40).unwrap());

/// Keys that are counted before the old ones are swept out.
const MAX_KEYS: usize = 10_000;

/// What is compared with where there is no password, so that it takes as long.
static NOBODYS: LazyLock<String> = LazyLock::new(|| hash("nobody has this password").unwrap_or_default());

/// Why nobody was signed in.
#[derive(Debug)]
pub enum NotSignedIn {
    /// The address or the password is wrong; which, is not told.
    Wrong,
    /// Too many attempts; the wait until the next.
    TooMany(Duration),
    /// There is more to do than can be done now.
    Busy,
    /// The database failed.
    Failed(StoreError),
}

impl From<StoreError> for NotSignedIn {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Signs people in. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct People(Arc<Shared>);

struct Shared {
    store: Store,
    hashing: Arc<Semaphore>,
    /// Sessions that were seen a moment ago.
    known: Cache<TokenDigest, ()>,
    strangers: Semaphore,
    by_one: DefaultKeyedRateLimiter<(String, Option<IpAddr>)>,
    by_account: DefaultKeyedRateLimiter<String>,
    by_network: DefaultKeyedRateLimiter<Option<IpAddr>>,
}

impl People {
    /// Over `store`.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Shared {
            store,
            hashing: Arc::new(Semaphore::new(HASHED_AT_ONCE)),
            known: Cache::builder().max_capacity(MAX_KNOWN).time_to_live(KNOWN).build(),
            strangers: Semaphore::new(STRANGERS),
            by_one: RateLimiter::keyed(FOR_ONE),
            by_account: RateLimiter::keyed(FOR_ACCOUNT),
            by_network: RateLimiter::keyed(FROM_NETWORK),
        }))
    }

    /// A session for who knows the password. An unknown address, an account without a password and a wrong password
    /// are answered alike, and take as long.
    ///
    /// # Errors
    /// See [`NotSignedIn`].
    pub async fn sign_in(
        &self,
        email: &str,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<Secret, NotSignedIn> {
        let network = address.map(network);
        let typed: String = email.trim().to_lowercase().chars().take(254).collect();
        self.admit(&typed, network).map_err(NotSignedIn::TooMany)?;
        let email = Email::parse(&typed);
        let kept = match &email {
            Some(email) => self.0.store.password_of(email).await?,
            None => None,
        };
        let (compared, password) = (kept.clone(), password.to_owned());
        let fits = self.aside(move || verify(&password, compared.as_ref().unwrap_or(&NOBODYS))).await?;
        let (Some(email), Some(kept), true) = (email, kept, fits) else { return Err(NotSignedIn::Wrong) };
        let session = self.open(&email).await?;
        // Another password may have been chosen meanwhile: it ends what was opened with this one.
        if self.0.store.password_of(&email).await?.as_ref() != Some(&kept) {
            self.0.store.end_session(session.digest(), false).await?;
            return Err(NotSignedIn::Wrong);
        }
        Ok(session)
    }

    /// A session for who holds a link.
    ///
    /// # Errors
    /// [`NotSignedIn::Wrong`] when it was used, has ended or never was.
    pub async fn come_in(&self, link: &Secret) -> Result<Secret, NotSignedIn> {
        let _turn = self.as_stranger().await?;
        let (session, ends) = self.new_session();
        if !self.0.store.take_link(link, &session, ends).await? {
            return Err(NotSignedIn::Wrong);
        }
        self.note(&session, "user.signed_in").await?;
        Ok(session)
    }

    /// Chooses a password for who holds a link, and opens a session.
    ///
    /// # Errors
    /// [`NotSignedIn::Wrong`] when the link was used, has ended or never was.
    pub async fn choose_password(&self, link: &Secret, password: &str) -> Result<Secret, NotSignedIn> {
        // A link that is none costs no hashing.
        self.invited(link).await?.ok_or(NotSignedIn::Wrong)?;
        let password = password.to_owned();
        let hash = self.aside(move || hash(&password)).await?.ok_or(NotSignedIn::Busy)?;
        let (session, ends) = self.new_session();
        let email = self.0.store.choose_password(link, &hash, &session, ends).await?;
        self.note_password(&email.ok_or(NotSignedIn::Wrong)?).await?;
        self.note(&session, "user.signed_in").await?;
        Ok(session)
    }

    /// Keeps in the audit log of each of a person's workspaces that they chose a password, signed in or not.
    async fn note_password(&self, email: &Email) -> Result<(), StoreError> {
        for tenancy in self.0.store.customers_of(email).await? {
            let mut tx = self.0.store.begin(&tenancy).await?;
            if let Some(user) = tx.user(email).await? {
                let actor = Actor::User { id: user.clone(), name: email.to_string() };
                tx.audit(&actor, "user.password_set", Target::User(&user), None).await?;
                tx.commit().await?;
            }
        }
        Ok(())
    }

    /// Whose a link to choose a password is.
    ///
    /// # Errors
    /// When the database fails, or too many strangers ask.
    pub async fn invited(&self, link: &Secret) -> Result<Option<Email>, NotSignedIn> {
        let _turn = self.as_stranger().await?;
        Ok(self.0.store.password_link(link).await?)
    }

    /// Who is signed in with a session. With `lives_on` it does not end by itself for another while.
    ///
    /// # Errors
    /// When the database fails, or too many strangers ask.
    pub async fn person(&self, session: &Secret, lives_on: bool) -> Result<Option<Person>, NotSignedIn> {
        let (digest, now) = (session.digest(), self.0.store.now());
        let _turn = if self.0.known.contains_key(&digest) { None } else { Some(self.as_stranger().await?) };
        let person = self.0.store.session_person(digest, if lives_on { now + IDLE } else { now }).await?;
        match person {
            Some(_) => self.0.known.insert(digest, ()),
            None => self.0.known.invalidate(&digest),
        }
        Ok(person)
    }

    /// A turn on the narrow way of those who are not known: a flood of made-up cookies and links must not take the
    /// database from everybody else.
    async fn as_stranger(&self) -> Result<SemaphorePermit<'_>, NotSignedIn> {
        let turn = tokio::time::timeout(PATIENCE, self.0.strangers.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or(NotSignedIn::Busy)
    }

    /// Ends a session, or with `everywhere` all of its person's.
    ///
    /// # Errors
    /// When the database fails, or too many strangers ask.
    pub async fn sign_out(&self, session: &Secret, everywhere: bool) -> Result<(), NotSignedIn> {
        if self.person(session, false).await?.is_some() {
            let action = if everywhere { "user.signed_out_everywhere" } else { "user.signed_out" };
            self.note(session, action).await?;
            self.0.store.end_session(session.digest(), everywhere).await?;
        }
        Ok(())
    }

    /// A session that is about to be opened, and when it is to end.
    fn new_session(&self) -> (Secret, Ends) {
        let store = &self.0.store;
        let now = store.now();
        (Secret::new(store.ids()), Ends { idle: now + IDLE, at_last: now + LONGEST })
    }

    async fn open(&self, email: &Email) -> Result<Secret, NotSignedIn> {
        let (session, ends) = self.new_session();
        self.0.store.open_session(&session, email, ends).await?;
        self.note(&session, "user.signed_in").await?;
        Ok(session)
    }

    /// Keeps what a person did in the audit log of each of their workspaces.
    async fn note(&self, session: &Secret, action: &'static str) -> Result<(), StoreError> {
        let now = self.0.store.now();
        let Some(person) = self.0.store.session_person(session.digest(), now).await? else { return Ok(()) };
        for (slug, _) in person.workspaces {
            let Some(member) = self.0.store.session_member(session.digest(), &slug).await? else { continue };
            let mut tx = self.0.store.begin(&member.tenancy).await?;
            let actor = Actor::User { id: member.user.clone(), name: member.name };
            tx.audit(&actor, action, Target::User(&member.user), None).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Counts an attempt; the wait when there were too many.
    fn admit(&self, email: &str, network: Option<IpAddr>) -> Result<(), Duration> {
        let Shared { by_one, by_account, by_network, .. } = &*self.0;
        if by_one.len() + by_account.len() + by_network.len() > MAX_KEYS {
            by_one.retain_recent();
            by_account.retain_recent();
            by_network.retain_recent();
        }
        let wait = |not_until: governor::NotUntil<_>| not_until.wait_time_from(by_one.clock().now());
        by_network.check_key(&network).map_err(wait)?;
        by_one.check_key(&(email.to_owned(), network)).map_err(wait)?;
        by_account.check_key(&email.to_owned()).map_err(wait)
    }

    /// Runs what takes a core for a while where it holds up nobody.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotSignedIn> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.0.hashing).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(NotSignedIn::Busy) };
        // The work goes on though its caller went away, and so does its turn.
        let worked = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        worked.await.map_err(|_| NotSignedIn::Busy)
    }
}

impl std::fmt::Debug for People {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("People")
    }
}

/// The password's argon2id hash in PHC form, with the library's parameters (OWASP's: 19 MiB, two passes).
fn hash(password: &str) -> Option<String> {
    Argon2::default().hash_password(password.as_bytes()).ok().map(|hash| hash.to_string())
}

fn verify(password: &str, kept: &str) -> bool {
    Argon2::default().verify_password(password.as_bytes(), kept).is_ok()
}
