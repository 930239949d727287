//! `doctor`: what is wrong with an installation, and what to do about each.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::app::database::{Database, PATIENCE, Sharing};
use crate::config::{Config, ServerConfig};
use crate::domain::clock::Clock;
use crate::domain::ids::IdSource;
use crate::store::operator::{Role, WorkerSeen};
use crate::store::{MigrateError, Store, StoreError, check_version};

/// How far a clock may be off.
const CLOCK: TimeDelta = TimeDelta::seconds(1);

/// How long ago a worker may have said that it lives.
const SILENCE: TimeDelta = TimeDelta::seconds(30);

/// How long another program may take to say who it is.
const ANSWER: Duration = Duration::from_secs(2);

/// What came of looking at something.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// As it should be, in words.
    Fine(String),
    /// Not wrong, but worth knowing.
    Note(String),
    /// Wrong, and what to do.
    Wrong(String, &'static str),
}

use Finding::{Fine, Note, Wrong};

/// Looks at everything and says what it found; the exit code is 1 when something is wrong.
pub(super) async fn doctor(config: &Config) -> anyhow::Result<ExitCode> {
    let mut findings = look_at_database(config).await;
    findings.push(("address", look_at_address(config.server.listen).await));
    findings.push(("public URL", public_url(&config.server)));
    findings.push(("proxies", proxies(&config.server)));
    for (what, finding) in &findings {
        match finding {
            Fine(found) => say!("ok     {what:<12}{found}"),
            Note(found) => say!("note   {what:<12}{found}"),
            Wrong(found, cure) => say!("WRONG  {what:<12}{found}\n{:19}→ {cure}", ""),
        }
    }
    let wrong = findings.iter().any(|(_, finding)| matches!(finding, Wrong(..)));
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn look_at_database(config: &Config) -> Vec<(&'static str, Finding)> {
    let reached = match Database::must_exist(&config.database) {
        Ok(()) => Database::reach(&config.database, Sharing::Welcome).await,
        Err(error) => Err(error),
    };
    let database = match reached {
        Ok(database) => database,
        Err(error) => {
            let cure = "repair that first: nothing else about the database can be looked at";
            return vec![("database", Wrong(error.to_string(), cure))];
        }
    };
    let findings = look_inside(config, &database).await;
    database.close(PATIENCE).await;
    findings
}

async fn look_inside(config: &Config, database: &Database) -> Vec<(&'static str, Finding)> {
    let started_here = database.embedded().is_some();
    let kind = match database.addresses() {
        Some(_) if started_here => "a private PostgreSQL, started for this look",
        Some(_) => "a private PostgreSQL, running",
        None => "the one of database.url",
    };
    let clock = Clock::system();
    let ids = IdSource::random(clock.clone());
    let store = match Store::connect(&database.server, 1, config.database.acquire_timeout, clock, ids).await {
        Ok(store) => store,
        Err(error) => {
            let cure = "start PostgreSQL, and look at host, user and password in database.url";
            return vec![("database", Wrong(format!("cannot connect: {error}"), cure))];
        }
    };
    let mut findings = vec![("database", Fine(kind.to_owned()))];
    let schema = match check_version(&database.server).await {
        Ok(()) => Fine("this program's".to_owned()),
        Err(error @ MigrateError::Older { .. }) if started_here => {
            Note(format!("{error}; the next start does that by itself"))
        }
        Err(error) => {
            Wrong(error.to_string(), "run `apixx-mcp migrate`, or the program that is as new as the schema")
        }
    };
    let migrated = matches!(schema, Fine(_));
    findings.push(("schema", schema));
    findings.push(("clock", or_failure(store.database_time().await.map(|time| clocks(store.now(), time)))));
    findings.push(("role", or_failure(store.role().await.map(|role| role_of_server(&role)))));
    if migrated {
        findings.push(("rows", or_failure(store.unguarded_tables().await.map(|tables| guards(&tables)))));
        let workers = store.workers().await.map(|workers| heartbeats(&workers, store.now(), started_here));
        findings.push(("worker", or_failure(workers)));
    }
    store.close().await;
    findings
}

fn or_failure(found: Result<Finding, StoreError>) -> Finding {
    found.unwrap_or_else(|error| Wrong(error.to_string(), "look at PostgreSQL's log"))
}

fn clocks(ours: DateTime<Utc>, theirs: DateTime<Utc>) -> Finding {
    let off = ours - theirs;
    let words = format!("{:.1} s apart from the database's", off.num_milliseconds() as f64 / 1_000.0);
    if off.abs() > CLOCK { Wrong(words, "let both machines follow a time server (NTP)") } else { Fine(words) }
}

fn role_of_server(role: &Role) -> Finding {
    let name = &role.name;
    if !role.may_bypass() {
        return Fine(format!("{name} owns nothing and cannot bypass row-level security"));
    }
    let power = match role {
        Role { superuser: true, .. } => "is a superuser, or a member of one",
        Role { bypasses: true, .. } => "bypasses row-level security, or is a member of a role that does",
        _ => "owns tables, or is a member of who does",
    };
    Wrong(
        format!("{name} {power}: it could see all customers' rows"),
        "connect as the role that `apixx-mcp migrate` makes",
    )
}

fn guards(unguarded: &[String]) -> Finding {
    if unguarded.is_empty() {
        return Fine("row-level security guards every table of customers".to_owned());
    }
    let words = format!("row-level security does not guard {}", unguarded.join(", "));
    Wrong(words, "somebody changed the schema by hand: enable it and restore the policy own_rows")
}

fn heartbeats(workers: &[WorkerSeen], now: DateTime<Utc>, nothing_runs: bool) -> Finding {
    let alive: Vec<&WorkerSeen> = workers.iter().filter(|worker| now - worker.seen_at <= SILENCE).collect();
    let runs: i32 = alive.iter().map(|worker| worker.running).sum();
    match alive.len() {
        0 if nothing_runs => Note("none, as nothing runs on this data directory now".to_owned()),
        0 => Wrong(
            "none is alive: no run is executed".to_owned(),
            "start `apixx-mcp worker`, or serve with `--with-worker`",
        ),
        count => Fine(format!("{count} alive, with {runs} runs")),
    }
}

/// Whether the address is free, or taken by ourselves.
async fn look_at_address(address: SocketAddr) -> Finding {
    match TcpListener::bind(address).await {
        Ok(_) => Fine(format!("{address} is free: no server runs there")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if timeout(ANSWER, is_ours(address)).await.unwrap_or(false) {
                Fine(format!("a server of ours answers at {address}"))
            } else {
                Wrong(
                    format!("{address} is taken by another program"),
                    "stop that one, or choose another address in server.listen",
                )
            }
        }
        Err(error) => {
            Wrong(format!("cannot listen on {address}: {error}"), "choose another address in server.listen")
        }
    }
}

async fn is_ours(address: SocketAddr) -> bool {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    let ask = async {
        let mut stream = TcpStream::connect((ip, address.port())).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(4_096).read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).contains("{\"status\":\"alive\"}"))
    };
    ask.await.unwrap_or(false)
}

fn public_url(server: &ServerConfig) -> Finding {
    let local = server.listen.ip().is_loopback();
    match &server.public_url {
        Some(url) if server.only_tls() => Fine(url.to_string()),
        Some(url) if local => Note(format!("{url} is not https: tokens travel readably to the proxy")),
        Some(url) => Wrong(
            format!("{url} is not https: tokens travel readably"),
            "put a proxy that speaks TLS in front",
        ),
        None if local && server.allowed_hosts.is_empty() => Fine("none, for use on this machine".to_owned()),
        None if server.allowed_hosts.is_empty() => Wrong(
            "none, though the server faces a network: every request is refused by its Host".to_owned(),
            "set server.public_url, or server.allowed_hosts",
        ),
        None => Note("none: requests are taken under server.allowed_hosts".to_owned()),
    }
}

/// Whether it is known who asks through a proxy.
fn proxies(server: &ServerConfig) -> Finding {
    let trusted: Vec<String> = server.trusted_proxies.iter().map(ToString::to_string).collect();
    let is_there = server.only_tls() || !server.allowed_hosts.is_empty();
    match (trusted.is_empty(), is_there) {
        (false, _) => Fine(format!("{} say where requests come from", trusted.join(", "))),
        (true, true) => Note(
            "none is trusted: whoever comes through one has its address, and uses up the attempts of all others there. \
             Name it in server.trusted_proxies, if the proxy writes X-Forwarded-For itself"
                .to_owned(),
        ),
        (true, false) => Fine("none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn is_wrong(finding: &Finding) -> bool {
        matches!(finding, Wrong(..))
    }

    #[test]
    fn a_second_apart_is_fine_and_more_is_wrong() {
        assert!(!is_wrong(&clocks(now(), now() + TimeDelta::seconds(1))));
        assert!(is_wrong(&clocks(now(), now() + TimeDelta::milliseconds(1_001))));
        assert!(is_wrong(&clocks(now() + TimeDelta::hours(1), now())));
    }

    #[test]
    fn a_role_that_could_see_all_rows_is_wrong() {
        let plain = Role { name: "apixx_server".into(), superuser: false, bypasses: false, owns: 0 };
        assert!(!is_wrong(&role_of_server(&plain)));
        assert!(is_wrong(&role_of_server(&Role { superuser: true, ..plain.clone() })));
        assert!(is_wrong(&role_of_server(&Role { bypasses: true, ..plain.clone() })));
        assert!(is_wrong(&role_of_server(&Role { owns: 1, ..plain })));
    }

    #[test]
    fn a_silent_worker_is_none() {
        let seen = |ago| WorkerSeen { seen_at: now() - TimeDelta::seconds(ago), running: 2 };
        assert_eq!(
            heartbeats(&[seen(5), seen(6), seen(600)], now(), false),
            Fine("2 alive, with 4 runs".into())
        );
        assert!(is_wrong(&heartbeats(&[seen(600)], now(), false)));
        assert!(!is_wrong(&heartbeats(&[], now(), true)));
    }

    fn server(pairs: &[(&str, &str)]) -> ServerConfig {
        let flags = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let environment = vec![("HOME".to_owned(), "/home/ana".to_owned())];
        Config::load(&Sources { file: None, environment, flags }).unwrap().server
    }

    #[test]
    fn a_proxy_that_is_not_trusted_is_noted() {
        let finding = |pairs: &[(&str, &str)]| proxies(&server(pairs));
        let (https, trusted) =
            (("server.public_url", "https://mcp.example.com"), ("server.trusted_proxies", "127.0.0.1"));
        assert_eq!(finding(&[]), Fine("none".to_owned()));
        assert!(
            matches!(finding(&[https]), Note(note) if note.ends_with("if the proxy writes X-Forwarded-For itself"))
        );
        assert!(matches!(finding(&[https, trusted]), Fine(_)));
        assert!(matches!(finding(&[("server.allowed_hosts", "mcp.internal")]), Note(_)));
    }

    #[test]
    fn a_public_url_is_https_and_there_when_needed() {
        let finding = |pairs: &[(&str, &str)]| public_url(&server(pairs));
        let network = ("server.listen", "0.0.0.0:8080");
        assert_eq!(finding(&[]), Fine("none, for use on this machine".to_owned()));
        assert!(matches!(finding(&[("server.allowed_hosts", "mcp.internal")]), Note(_)));
        assert!(is_wrong(&finding(&[network])));
        assert!(!is_wrong(&finding(&[network, ("server.allowed_hosts", "mcp.internal")])));
        assert!(!is_wrong(&finding(&[network, ("server.public_url", "https://mcp.example.com")])));
        assert!(is_wrong(&finding(&[network, ("server.public_url", "http://mcp.example.com")])));
        assert!(!is_wrong(&finding(&[("server.public_url", "http://mcp.example.com")])));
    }
}
