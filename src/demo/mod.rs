//! The demo workspaces: Acme and Globex with a made-up past, Lab with nothing but real flows.

mod acme;
mod dice;
mod globex;
pub mod lab;
mod past;
mod times;

use chrono::TimeDelta;
use chrono_tz::Tz;

use crate::domain::ids::CustomerId;
use crate::domain::person::{Email, Role};
use crate::domain::scope::Scopes;
use crate::domain::token::PlainToken;
use crate::service::apply::{ApplyError, Rules, apply};
use crate::store::customers::{Actor, NewCustomer, Target};
use crate::store::definitions::StoredFlow;
use crate::store::past::History;
use crate::store::{Store, StoreError, TenantTx};
use times::Times;

/// A token of a demo workspace, to be kept by the caller and given back at the next start.
#[derive(Clone, Debug)]
pub struct DemoToken {
    /// The slug of the workspace.
    pub customer: String,
    /// The token.
    pub token: PlainToken,
}

/// Why the demo could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A customer of the installation has the short name of a demo workspace.
    #[error(
        "a customer of this installation is called `{0}`: the demo would overwrite it; use another database"
    )]
    Taken(&'static str),
    /// A definition that comes with the program is wrong.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Days before now that the workspaces were made.
const AGE_DAYS: i64 = 40;

struct Workspace {
    id: &'static str,
    slug: &'static str,
    name: &'static str,
    timezone: Tz,
    plan: &'static str,
    /// The owner first: address, name, role.
    people: &'static [(&'static str, &'static str, Role)],
    file: &'static str,
    definitions: &'static str,
    history: Option<fn(&Times, &[StoredFlow]) -> History>,
}

const WORKSPACES: [Workspace; 3] = [
    Workspace {
        id: "cus_acme",
        slug: "acme",
        name: "Acme Retail",
        timezone: chrono_tz::Europe::Berlin,
        plan: "business",
        people: &[
            ("ana.ruiz@acme.example", "Ana Ruiz", Role::Owner),
            ("jonas.weber@acme.example", "Jonas Weber", Role::Admin),
            ("priya.nair@acme.example", "Priya Nair", Role::Operator),
        ],
        file: "acme.toml",
        definitions: include_str!("acme.toml"),
        history: Some(acme::history),
    },
    Workspace {
        id: "cus_globex",
        slug: "globex",
        name: "Globex",
        timezone: chrono_tz::America::New_York,
        plan: "team",
        people: &[("hank.scorpio@globex.example", "Hank Scorpio", Role::Owner)],
        file: "globex.toml",
        definitions: include_str!("globex.toml"),
        history: Some(globex::history),
    },
    Workspace {
        id: "cus_lab",
        slug: "lab",
        name: "Lab",
        timezone: chrono_tz::Europe::Berlin,
        plan: "team",
        people: &[
            ("rosalind@lab.example", "Rosalind Franklin", Role::Owner),
            ("ana.ruiz@acme.example", "Ana Ruiz", Role::Viewer),
        ],
        file: "lab.toml",
        definitions: include_str!("lab/lab.toml"),
        history: None,
    },
];

/// Who owns each workspace: its short name, and by which address.
pub fn owners() -> impl Iterator<Item = (&'static str, Email)> {
    let owner = |workspace: &Workspace| workspace.people.first().and_then(|(email, ..)| Email::parse(email));
    WORKSPACES.iter().filter_map(move |workspace| Some((workspace.slug, owner(workspace)?)))
}

/// Puts the three demo workspaces in place, each in one transaction, and returns a live token of each.
///
/// What is missing is made. Where Acme and Globex exist already, their made-up past is moved to now, and what
/// really happened since (runs, tokens, the audit log) stays. Lab is made once and then left alone. A token of
/// `kept` stays the workspace's token as long as nobody revoked it.
///
/// # Errors
/// When the database fails.
pub async fn seed(store: &Store, kept: &[DemoToken]) -> Result<Vec<DemoToken>, DemoError> {
    let mut tokens = Vec::new();
    for workspace in &WORKSPACES {
        let kept = kept.iter().find(|kept| kept.customer == workspace.slug).map(|kept| &kept.token);
        let token = workspace.put(store, kept).await?;
        tokens.push(DemoToken { customer: workspace.slug.to_owned(), token });
    }
    Ok(tokens)
}

impl Workspace {
    async fn put(&self, store: &Store, kept: Option<&PlainToken>) -> Result<PlainToken, DemoError> {
        let now = store.now();
        let (mut tx, is_new) = match store.customer_named(self.slug).await? {
            Some(tenancy) if tenancy.customer().as_str() != self.id => {
                return Err(DemoError::Taken(self.slug));
            }
            Some(tenancy) => (store.begin(&tenancy).await?, false),
            None => (store.begin_customer(&self.customer()).await?, true),
        };
        tx.lock_customer().await?;
        let owner = self.people(&mut tx).await?;
        if is_new || self.history.is_some() {
            // What is defined was defined before the past that it has.
            if self.history.is_some() {
                tx.turn_clock_to(now - TimeDelta::days(AGE_DAYS));
            }
            let (roots, dsns) = ([lab::NAME.to_owned()], [lab::NAME.to_owned()]);
            let rules = Rules { files_roots: &roots, postgres_dsns: &dsns };
            apply(&mut tx, self.file, self.definitions.as_bytes(), &rules, &owner).await?;
            tx.turn_clock_to(now);
        }
        let flows = tx.definitions().await?.flows;
        if let Some(history) = self.history {
            tx.put_history(&history(&Times::new(now, self.timezone), &flows)).await?;
        } else if is_new {
            lab::begin(&mut tx, &flows).await?;
        }
        let token = self.token(&mut tx, kept, &owner).await?;
        tx.commit().await?;
        Ok(token)
    }

    fn customer(&self) -> NewCustomer {
        let (email, name) = self.people.first().map_or(("", ""), |(email, name, _)| (*email, *name));
        NewCustomer {
            id: CustomerId::parse(self.id).ok(),
            slug: self.slug.to_owned(),
            name: self.name.to_owned(),
            timezone: self.timezone,
            plan: self.plan.to_owned(),
            owner_email: email.to_owned(),
            owner_name: name.to_owned(),
        }
    }

    /// Makes the people; returns the owner.
    async fn people(&self, tx: &mut TenantTx) -> Result<Actor, DemoError> {
        for (email, name, role) in self.people {
            tx.put_user(email, Some(name), *role).await?;
        }
        Ok(tx.owner().await?)
    }

    /// The kept token, or, where there is none that is live, a new one.
    async fn token(
        &self,
        tx: &mut TenantTx,
        kept: Option<&PlainToken>,
        owner: &Actor,
    ) -> Result<PlainToken, DemoError> {
        let live = match kept {
            Some(token) => tx.token_is_live(token.digest()).await?,
            None => None,
        };
        let token = match (kept, live) {
            (Some(token), Some(true)) => return Ok(token.clone()),
            (Some(token), None) => token.clone(),
            _ => PlainToken::new(tx.ids()),
        };
        if let Actor::User { id, .. } = owner {
            let id = tx.add_token(id, "Demo token", &token, Scopes::all(), None).await?;
            tx.audit(owner, "token.created", Target::Token(&id), Some("Demo token")).await?;
        }
        Ok(token)
    }
}
