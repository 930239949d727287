//! `demo`: three workspaces, server and worker in one process, nothing to set up.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::people::base_url;
use super::places::{self, MINE, Places};
use crate::app::database::{Database, Sharing, bring_up};
use crate::app::lifecycle::Lifecycle;
use crate::app::listen;
use crate::app::process::{Operator, Process, TimeOf};
use crate::config::Config;
use crate::demo::{DemoToken, lab, owners, seed};
use crate::domain::clock::Clock;
use crate::domain::ids::IdSource;
use crate::domain::token::{PlainToken, Secret};
use crate::embedded;
use crate::service::people::LINK_LIVES;
use crate::store::Store;
use crate::store::people::Purpose;
use crate::view::clients::{Client, clients};

/// The workspaces, in the order in which they are shown.
const WORKSPACES: [&str; 3] = ["acme", "globex", "lab"];

/// Starts everything, says how to reach it, and goes on until told to end.
pub(super) async fn demo(config: Config, args: &super::Demo) -> anyhow::Result<()> {
    let lifecycle = Lifecycle::new(config.server.shutdown);
    lifecycle.stop_on_signals()?;
    // An address that is taken is told before anything is started.
    let listener = listen::bind(config.server.listen).await?;
    if config.database.url.is_some() {
        prepare(&config).await?;
    }
    let database = tokio::select! {
        database = Database::open(&config.database, Sharing::Refused) => database?,
        () = lifecycle.stopping().cancelled() => return Ok(()),
    };
    let end = config.server.end();
    let ran = async {
        let operator = super::operator(&config.operator).await?;
        run(config, args, &database, Doors { listener, operator }, &lifecycle).await
    };
    let ran = ran.await;
    database.close(lifecycle.left_of(end)).await;
    ran
}

/// A database of the operator's own is brought to this program's schema where its owner is known; Lab needs
/// another one, which we cannot make there.
async fn prepare(config: &Config) -> anyhow::Result<()> {
    if !config.engine.postgres_dsns.contains_key(lab::NAME) {
        bail!(
            "on a database of yours the demo needs another one for its workspace Lab: name it in \
             engine.postgres_dsns.lab.url"
        );
    }
    if config.database.owner_url.is_some() {
        bring_up(&config.database).await?;
    }
    Ok(())
}

async fn run(
    mut config: Config,
    args: &super::Demo,
    database: &Database,
    Doors { listener, operator }: Doors,
    lifecycle: &Lifecycle,
) -> anyhow::Result<()> {
    let places = Places::of(&config);
    places.make()?;
    places::allow(&mut config)?;
    places::ensure_lab(&config, database).await?;
    let (clock, time) = match args.now {
        Some(now) => (Clock::starting_at(now), TimeOf::Own),
        None => (Clock::system(), TimeOf::Database),
    };
    let shown = Shown {
        base: base_url(&config.server, listener.local_addr()?),
        links: Vec::new(),
        operator: operator.as_ref().map(|operator| operator.listener.local_addr()).transpose()?,
        database: database_url(&config, database),
        tokens: kept_tokens(&places.tokens(), &IdSource::random(clock.clone()))?,
    };
    config.server.public_url.get_or_insert(shown.base.parse().context("the demo's own address")?);
    let stopping = lifecycle.stopping().clone();
    let process = Process::start(&database.server, config, clock, time, stopping.clone()).await?;
    // What is said is kept first: a token that nobody knows is no use.
    keep_tokens(&places.tokens(), &shown.tokens)?;
    let tokens = tokio::select! {
        tokens = seed(&process.serving.store, &shown.tokens) => tokens.context("cannot put the demo in place")?,
        () = stopping.cancelled() => return Ok(()),
    };
    keep_tokens(&places.tokens(), &tokens)?;
    let links = sign_in_links(&process.serving.store).await?;
    let shown = Shown { tokens, links, ..shown };
    let engine = process.engine().await?;
    let text = if args.json { format!("{}\n", shown.json()) } else { shown.text(&places) };
    super::print(&text);
    process.run(Some(listener), operator, Some(engine), lifecycle).await;
    Ok(())
}

/// Where is listened.
struct Doors {
    listener: TcpListener,
    operator: Option<Operator>,
}

/// A link for the owner of each workspace to come in with, once.
async fn sign_in_links(store: &Store) -> anyhow::Result<Vec<(&'static str, Secret)>> {
    let mut links = Vec::new();
    for (workspace, email) in owners() {
        let (link, until) = (Secret::new(store.ids()), store.now() + LINK_LIVES);
        let kept = store.add_link(&link, &email, Purpose::SignIn, until).await;
        if kept.context("cannot keep the links to sign in")? {
            links.push((workspace, link));
        }
    }
    Ok(links)
}

/// What is told when everything is ready.
struct Shown {
    base: String,
    /// To sign in with: the workspace and the link.
    links: Vec<(&'static str, Secret)>,
    operator: Option<SocketAddr>,
    database: String,
    tokens: Vec<DemoToken>,
}

impl Shown {
    fn json(&self) -> Value {
        let workspace = |kept: &DemoToken| {
            let link = self.links.iter().find(|(customer, _)| *customer == kept.customer);
            let link = link.map(|(_, link)| format!("{}/enter/{}", self.base, link.reveal()));
            json!({ "customer": kept.customer, "token": kept.token.reveal(), "sign_in_url": link })
        };
        json!({
            "ready": true,
            "mcp_url": self.mcp_url(),
            "database_url": self.database,
            "operator_url": self.operator.map(|address| format!("http://{address}")),
            "workspaces": self.tokens.iter().map(workspace).collect::<Vec<_>>(),
        })
    }

    fn mcp_url(&self) -> String {
        format!("{}/mcp", self.base)
    }

    fn text(&self, places: &Places) -> String {
        let line = |kept: &DemoToken| format!("  {:<8}{}\n", kept.customer, kept.token.reveal());
        let tokens: String = self.tokens.iter().map(line).collect();
        let door = |(workspace, link): &(&str, Secret)| {
            format!("  {workspace:<8}{}/enter/{}\n", self.base, link.reveal())
        };
        let links: String = self.links.iter().map(door).collect();
        let first = self.tokens.first().map(|kept| kept.token.reveal()).unwrap_or_default();
        format!(
            "The demo is ready.

  MCP         {}
  database    {}
  your files  {} (root = \"{MINE}\" in a connector)

One token for each workspace
{tokens}
To sign in to the pages as its owner (each link works once)
{links}
{}
Questions to ask
  - Is everything fine? Show me every flow that is failing or degraded.
  - Why did the HubSpot contacts flow fail this morning?
  - Kick off the nightly NetSuite invoice sync and watch it until it finishes.

Ctrl-C ends it; the tokens stay the same at the next start.
",
            self.mcp_url(),
            self.database,
            places.mine().display(),
            snippets(&self.mcp_url(), first),
        )
    }
}

/// How to call the server at `url` with `token`, from a shell and from a few clients; the pages show all.
fn snippets(url: &str, token: &str) -> String {
    const SHOWN: [&str; 5] = ["curl", "claude-code", "cursor", "vscode", "agents-python"];
    let clients = clients(url, token);
    let shown = SHOWN.iter().filter_map(|id| clients.iter().find(|client| client.id == *id));
    let text = |client: &Client| {
        let form = client.forms.iter().find(|form| !form.is_link())?;
        let lines: String = form.text.lines().map(|line| format!("  {line}\n")).collect();
        Some(format!("{}: {}\n{lines}", client.name, form.place))
    };
    shown.filter_map(text).collect::<Vec<_>>().join("\n")
}

/// Where the rows are, for who wants to look with `psql`. Without a password: what the operator wrote is theirs
/// to know.
fn database_url(config: &Config, database: &Database) -> String {
    if let Some(addresses) = database.addresses() {
        return addresses.url(embedded::OWNER, embedded::DATABASE);
    }
    let url = config.database.url.as_ref().map(|url| url.expose_secret()).unwrap_or_default();
    without_password(url)
}

fn without_password(url: &str) -> String {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let place =
        match place.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
            Some((scheme, (user, host))) => {
                format!("{scheme}://{}@{host}", user.split(':').next().unwrap_or_default())
            }
            None => place.to_owned(),
        };
    let said: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.contains("password")).collect();
    if said.is_empty() { place } else { format!("{place}?{}", said.join("&")) }
}

/// The tokens of the start before; new ones for workspaces that had none.
fn kept_tokens(path: &Path, ids: &IdSource) -> anyhow::Result<Vec<DemoToken>> {
    let kept: Map<String, Value> = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .ok()
            .with_context(|| format!("{} is damaged: remove it to get new tokens", path.display()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
        Err(error) => bail!("cannot read {}: {error}", path.display()),
    };
    let token = |customer: &str| {
        let known = kept.get(customer).and_then(Value::as_str).and_then(PlainToken::parse);
        DemoToken { customer: customer.to_owned(), token: known.unwrap_or_else(|| PlainToken::new(ids)) }
    };
    Ok(WORKSPACES.map(token).into())
}

/// Keeps the tokens for the next start: whole or not at all, and for nobody else to read.
fn keep_tokens(path: &Path, tokens: &[DemoToken]) -> anyhow::Result<()> {
    let all: Map<String, Value> =
        tokens.iter().map(|kept| (kept.customer.clone(), kept.token.reveal().into())).collect();
    let unfinished = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(Value::from(all).to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|error| anyhow::anyhow!("cannot keep the tokens in {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn ids() -> IdSource {
        IdSource::random(Clock::system())
    }

    #[test]
    fn tokens_are_kept_for_nobody_else_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let tokens = kept_tokens(&path, &ids()).unwrap();
        keep_tokens(&path, &tokens).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = kept_tokens(&path, &ids()).unwrap();
        let secrets = |tokens: &[DemoToken]| {
            tokens.iter().map(|kept| kept.token.reveal().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(secrets(&again), secrets(&tokens));
        fs::write(&path, "{").unwrap();
        assert!(kept_tokens(&path, &ids()).unwrap_err().to_string().contains("remove it"));
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        let table = [
            ("postgres://u:hunter2@h:5432/d?password=hunter2", "postgres://u@h:5432/d"),
            ("postgres://u:h@unter2@h/d", "postgres://u@h/d"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgres:///d?host=/run/pg&password=hunter2&user=u", "postgres:///d?host=/run/pg&user=u"),
        ];
        for (url, expected) in table {
            assert_eq!(without_password(url), expected);
        }
    }

    #[test]
    fn the_ready_line_is_one_object() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = kept_tokens(&dir.path().join("none"), &ids()).unwrap();
        let acme = tokens[0].token.reveal().to_owned();
        let shown = Shown {
            base: "http://x".into(),
            links: vec![],
            operator: None,
            database: "postgresql:///d".into(),
            tokens,
        };
        let line = shown.json().to_string();
        assert!(line.starts_with(
            "{\"ready\":true,\"mcp_url\":\"http://x/mcp\",\"database_url\":\"postgresql:///d\","
        ));
        assert!(line.contains(&format!("{{\"customer\":\"acme\",\"token\":\"{acme}\",")));
        assert!(!line.contains('\n'));
    }
}
