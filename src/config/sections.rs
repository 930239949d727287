//! One struct per section. What a key means, its unit and its reason stand in `config/default.toml`, which is
//! also where the defaults are: no key has one here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use http::Uri;
use http::uri::Authority;
use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;

use super::values;

/// Section `[server]`: what is listened on, and what one caller may take.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The address clients use, when it differs.
    #[serde(deserialize_with = "values::site")]
    pub public_url: Option<Uri>,
    /// Further host names under which requests may arrive.
    #[serde(deserialize_with = "values::hosts")]
    pub allowed_hosts: Vec<Authority>,
    /// Web origins whose pages may call.
    #[serde(deserialize_with = "values::origins")]
    pub allowed_origins: Vec<Uri>,
    /// Proxies whose `X-Forwarded-For` is believed.
    #[serde(deserialize_with = "values::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Connections open at the same time.
    pub max_connections: NonZeroUsize,
    /// How long a connection may stay open without a request being answered.
    #[serde(rename = "idle_timeout_s", deserialize_with = "values::seconds")]
    pub idle_timeout: Duration,
    /// In which a request's body must have arrived.
    #[serde(rename = "body_timeout_s", deserialize_with = "values::seconds")]
    pub body_timeout: Duration,
    /// How long a call may take.
    #[serde(rename = "call_timeout_s", deserialize_with = "values::seconds")]
    pub call_timeout: Duration,
    /// Calls worked on at the same time.
    pub max_concurrent_calls: NonZeroUsize,
    /// How long calls under way may take to end at shutdown.
    #[serde(rename = "shutdown_s", deserialize_with = "values::seconds")]
    pub shutdown: Duration,
}

impl ServerConfig {
    /// Where clients find this server, without a slash at its end, where the operator says so.
    pub fn public_base(&self) -> Option<String> {
        self.public_url.as_ref().map(|url| url.to_string().trim_end_matches('/').to_owned())
    }

    /// Whether clients come over TLS only.
    pub fn only_tls(&self) -> bool {
        self.public_url.as_ref().is_some_and(|url| url.scheme_str() == Some("https"))
    }

    /// How long a whole end may take: calls have `shutdown`, the database the rest.
    pub fn end(&self) -> Duration {
        self.shutdown + Duration::from_millis(1_500)
    }
}

/// Section `[database]`: which PostgreSQL, and how much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// Where server and worker connect; without it a private PostgreSQL is started.
    #[serde(deserialize_with = "values::secret")]
    pub url: Option<SecretString>,
    /// A file that holds `url`; read by the time this value exists.
    #[serde(deserialize_with = "values::path")]
    pub(super) url_file: Option<PathBuf>,
    /// Where `migrate` connects, and what concerns all customers.
    #[serde(deserialize_with = "values::secret")]
    pub owner_url: Option<SecretString>,
    /// A file that holds `owner_url`.
    #[serde(deserialize_with = "values::path")]
    pub(super) owner_url_file: Option<PathBuf>,
    /// Where the private PostgreSQL keeps everything; never empty once loaded.
    pub data_dir: PathBuf,
    /// Where PostgreSQL's programs are.
    #[serde(deserialize_with = "values::path")]
    pub pg_bin_dir: Option<PathBuf>,
    /// Connections per process, for single reads, and as many for everything else; two more carry wakes.
    pub pool_size: NonZeroU32,
    /// How long to wait for one of them.
    #[serde(rename = "acquire_timeout_ms", deserialize_with = "values::millis")]
    pub acquire_timeout: Duration,
}

/// Section `[auth]`: how callers are recognised.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// Failures per minute and address, after which failures answer 429.
    pub failed_attempts_per_minute: NonZeroU32,
    /// Seals cursors; without it the database keeps one.
    #[serde(deserialize_with = "values::secret")]
    pub sealing_key: Option<SecretString>,
    /// A file that holds `sealing_key`.
    #[serde(deserialize_with = "values::path")]
    pub(super) sealing_key_file: Option<PathBuf>,
}

/// Section `[engine]`: how runs are run, and what they can reach.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Runs worked on at the same time by one process.
    pub workers: NonZeroUsize,
    /// How long a worker may keep a run without a heartbeat.
    #[serde(rename = "lease_s", deserialize_with = "values::seconds")]
    pub lease: Duration,
    /// Between two heartbeats.
    #[serde(rename = "heartbeat_s", deserialize_with = "values::seconds")]
    pub heartbeat: Duration,
    /// Between two looks for queued runs.
    #[serde(rename = "poll_ms", deserialize_with = "values::millis")]
    pub poll: Duration,
    /// Records written and accounted for in one transaction.
    pub batch_records: NonZeroUsize,
    /// How long a run may go without progress.
    #[serde(rename = "no_progress_s", deserialize_with = "values::seconds")]
    pub no_progress: Duration,
    /// Directories that file connectors may use, by name.
    pub files_roots: BTreeMap<String, PathBuf>,
    /// Databases that PostgreSQL connectors may use, by name.
    pub postgres_dsns: BTreeMap<String, DsnConfig>,
}

/// A database that connectors may use; one of the two is given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DsnConfig {
    /// Where it is and who connects; set once loaded.
    #[serde(default, deserialize_with = "values::secret")]
    pub url: Option<SecretString>,
    /// A file that holds `url`.
    #[serde(default, deserialize_with = "values::path")]
    pub(super) url_file: Option<PathBuf>,
}

impl DsnConfig {
    /// The database at `url`.
    pub fn at(url: SecretString) -> Self {
        Self { url: Some(url), url_file: None }
    }
}

/// Section `[retention]`: how long things are kept that no plan speaks of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Who changed what.
    #[serde(rename = "audit_days", deserialize_with = "values::days")]
    pub audit: TimeDelta,
    /// Calls and records per hour.
    #[serde(rename = "usage_days", deserialize_with = "values::days")]
    pub usage: TimeDelta,
    /// Totals by hour and day, and the known groups of errors.
    #[serde(rename = "rollups_days", deserialize_with = "values::days")]
    pub rollups: TimeDelta,
}

/// Section `[operator]`: what is told to who operates this.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorConfig {
    /// Address and port of health and measures; none without.
    #[serde(deserialize_with = "values::address")]
    pub listen: Option<SocketAddr>,
}

/// Section `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// What is logged, as `tracing-subscriber` writes filters.
    pub filter: String,
    /// For whom.
    pub format: LogFormat,
}

/// For whom the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}
