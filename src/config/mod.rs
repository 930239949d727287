//! The configuration: a documented file of defaults compiled in, overridden by a file, the environment and
//! flags. The only place that reads settings from the environment.

mod load;
mod sections;
mod values;

use secrecy::ExposeSecret;
use serde::Deserialize;

pub use load::{ConfigError, Sources};
pub use sections::{
    AuthConfig, DatabaseConfig, DsnConfig, EngineConfig, LogConfig, LogFormat, OperatorConfig,
    RetentionConfig, ServerConfig,
};

/// Every key there is, with its default, unit and reason.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The whole configuration. A part of the program is given its section, never all of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is listened on, and what one caller may take.
    pub server: ServerConfig,
    /// Which PostgreSQL, and how much of it.
    pub database: DatabaseConfig,
    /// How callers are recognised.
    pub auth: AuthConfig,
    /// How runs are run, and what they can reach.
    pub engine: EngineConfig,
    /// How long things are kept.
    pub retention: RetentionConfig,
    /// Where the operator is answered.
    pub operator: OperatorConfig,
    /// What is logged, and for whom.
    pub log: LogConfig,
    /// Which version was deployed, as the environment's `APP_VERSION` says.
    #[serde(skip)]
    pub app_version: Option<String>,
}

impl Config {
    /// Reads all sources, later ones winning: defaults, file, environment, flags.
    ///
    /// # Errors
    /// The first thing that is wrong, with the key and where it was set.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut config: Self = load::merged(sources)?;
        config.read_secret_files()?;
        config.check()?;
        config.app_version = sources.variable("APP_VERSION").map(str::to_owned);
        if config.database.data_dir.as_os_str().is_empty() {
            config.database.data_dir = sources.default_data_dir()?;
        }
        Ok(config)
    }

    fn read_secret_files(&mut self) -> Result<(), ConfigError> {
        let database = &mut self.database;
        load::read_secret("database.url", &mut database.url, database.url_file.take())?;
        load::read_secret("database.owner_url", &mut database.owner_url, database.owner_url_file.take())?;
        load::read_secret("auth.sealing_key", &mut self.auth.sealing_key, self.auth.sealing_key_file.take())?;
        for (name, dsn) in &mut self.engine.postgres_dsns {
            let key = format!("engine.postgres_dsns.{name}.url");
            load::read_secret(&key, &mut dsn.url, dsn.url_file.take())?;
            if dsn.url.is_none() {
                return Err(ConfigError::Value { key, problem: "is not set".into() });
            }
        }
        Ok(())
    }

    /// What a single value cannot tell.
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, problem: &str| {
            Err(ConfigError::Value { key: key.to_owned(), problem: problem.to_owned() })
        };
        if self.engine.heartbeat * 2 > self.engine.lease {
            return wrong("engine.heartbeat_s", "must fit into engine.lease_s at least twice");
        }
        if self.auth.sealing_key.as_ref().is_some_and(|key| key.expose_secret().len() < 32) {
            return wrong("auth.sealing_key", "needs 32 or more characters");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Sources {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let home = [("HOME".to_owned(), "/home/ana".to_owned())];
        Sources { environment: pairs.iter().map(own).chain(home).collect(), ..Sources::default() }
    }

    fn in_file(text: &str) -> (tempfile::TempDir, Sources) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("apixx.toml");
        fs::write(&path, text).unwrap();
        (dir, Sources { file: Some(path), ..environment(&[]) })
    }

    fn refusal(sources: &Sources) -> String {
        let message = Config::load(sources).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    #[test]
    fn the_default_file_is_complete_and_has_nothing_else() {
        let whole: toml::Table = DEFAULTS.parse().unwrap();
        assert!(whole.clone().try_into::<Config>().is_ok(), "a key is missing, or is none");
        for (section, keys) in &whole {
            for key in keys.as_table().unwrap().keys() {
                let mut partial = whole.clone();
                partial[section].as_table_mut().unwrap().remove(key);
                assert!(partial.try_into::<Config>().is_err(), "{section}.{key} has a default elsewhere");
            }
        }
    }

    #[test]
    fn every_key_has_its_comment() {
        let mut commented = false;
        for line in DEFAULTS.lines() {
            let is_key = line.starts_with(|first: char| first.is_ascii_lowercase());
            assert!(!is_key || commented, "no comment above `{line}`");
            commented = line.starts_with("# ");
        }
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let (_dir, mut sources) = in_file("[engine]\nworkers = 2\nbatch_records = 3\npoll_ms = 5\n");
        sources.environment.push(("APIXX_ENGINE__WORKERS".into(), "6".into()));
        sources.environment.push(("APIXX_ENGINE__POLL_MS".into(), "7".into()));
        sources.flags.push(("engine.poll_ms".into(), "8".into()));
        let engine = Config::load(&sources).unwrap().engine;
        assert_eq!((engine.batch_records.get(), engine.workers.get()), (3, 6));
        assert_eq!(engine.poll.as_millis(), 8);
    }

    #[test]
    fn the_environment_sets_lists_and_names_of_the_operator() {
        let config = Config::load(&environment(&[
            ("APIXX_SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 192.168.1.1"),
            ("APIXX_SERVER__PUBLIC_URL", "https://mcp.example.com"),
            ("APIXX_ENGINE__FILES_ROOTS__LAB", "/srv/lab"),
            ("APIXX_ENGINE__POSTGRES_DSNS__WAREHOUSE__URL", "postgres://w@db/warehouse"),
            ("APIXX_TOKEN", "mcp_for_a_client"),
        ]))
        .unwrap();
        let proxies: Vec<String> = config.server.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(proxies, ["10.0.0.0/8", "192.168.1.1/32"]);
        assert_eq!(config.server.public_url.unwrap().host(), Some("mcp.example.com"));
        assert_eq!(config.engine.files_roots["lab"], PathBuf::from("/srv/lab"));
        assert!(config.engine.postgres_dsns["warehouse"].url.is_some());
    }

    #[test]
    fn a_secret_may_come_from_a_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        fs::write(&path, "postgres://u:hunter2@db/x\n").unwrap();
        let path = path.to_str().unwrap();
        let config = Config::load(&environment(&[("APIXX_DATABASE__URL_FILE", path)])).unwrap();
        assert_eq!(config.database.url.as_ref().unwrap().expose_secret(), "postgres://u:hunter2@db/x");
        assert!(!format!("{config:?}").contains("hunter2"));

        let both =
            environment(&[("APIXX_DATABASE__URL_FILE", path), ("APIXX_DATABASE__URL", "postgres://x")]);
        assert_eq!(refusal(&both), "database.url and database.url_file are both set");
    }

    #[test]
    fn what_is_wrong_is_named_with_where_it_was_set() {
        let (_dir, sources) = in_file("[server]\nlisen = \"127.0.0.1:1\"\n");
        assert!(
            refusal(&sources)
                .ends_with("apixx.toml: there is no setting `server.lisen`; did you mean `server.listen`?")
        );
        let (_dir, sources) = in_file("[server]\nlisten = \n");
        assert!(refusal(&sources).contains("apixx.toml:2: "));
        for (name, value, message) in [
            (
                "APIXX_SERVER_LISTEN",
                "1.2.3.4:5",
                "APIXX_SERVER_LISTEN: there is no setting `server_listen`; did you mean APIXX_SERVER__LISTEN?",
            ),
            ("APIXX_NEW__THING", "1", "APIXX_NEW__THING: there is no setting `new.thing`"),
            ("APIXX_ENGINE__WORKERS", "four", "engine.workers is wrong: `four` is no whole number"),
            ("APIXX_ENGINE__LEASE_S", "20", "engine.heartbeat_s must fit into engine.lease_s at least twice"),
            ("APIXX_AUTH__SEALING_KEY", "short", "auth.sealing_key needs 32 or more characters"),
        ] {
            assert_eq!(refusal(&environment(&[(name, value)])), message);
        }
        for (name, value) in [
            ("APIXX_SERVER__LISTEN", "localhost"),
            ("APIXX_SERVER__SHUTDOWN_S", "0"),
            ("APIXX_SERVER__PUBLIC_URL", "mcp.example.com"),
            ("APIXX_SERVER__PUBLIC_URL", "https://ana@mcp.example.com"),
            ("APIXX_SERVER__ALLOWED_HOSTS", "mcp.internal, https://mcp.example.com"),
            ("APIXX_SERVER__ALLOWED_HOSTS", "*.example.com"),
            ("APIXX_SERVER__ALLOWED_HOSTS", "mcp.example.com:https"),
            ("APIXX_SERVER__ALLOWED_ORIGINS", "app.example.com"),
            ("APIXX_SERVER__ALLOWED_ORIGINS", "https://app.example.com/page"),
            ("APIXX_SERVER__TRUSTED_PROXIES", "ten"),
            ("APIXX_LOG__FORMAT", "xml"),
        ] {
            let message = refusal(&environment(&[(name, value)]));
            let key = name.trim_start_matches("APIXX_").replace("__", ".").to_lowercase();
            assert!(message.starts_with(&format!("{key} is wrong: ")), "{message}");
        }
    }

    #[test]
    fn what_was_deployed_says_its_version() {
        let version = |pairs: &[(&str, &str)]| Config::load(&environment(pairs)).unwrap().app_version;
        assert_eq!(version(&[("APP_VERSION", "2026.11.3")]).as_deref(), Some("2026.11.3"));
        assert_eq!(version(&[("APP_VERSION", "")]), None);
        assert_eq!(version(&[]), None);
    }

    #[test]
    fn data_has_a_place_even_if_nobody_named_one() {
        let config = Config::load(&environment(&[])).unwrap();
        let expected = if nix::unistd::geteuid().is_root() {
            "/var/lib/apixx-mcp"
        } else {
            "/home/ana/.local/share/apixx-mcp"
        };
        assert_eq!(config.database.data_dir, PathBuf::from(expected));
    }
}
