//! Where values come from, and which one wins.

use std::fs;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::DEFAULTS;

/// Tables whose keys the operator chooses.
const OPEN_TABLES: [&str; 2] = ["engine.files_roots", "engine.postgres_dsns"];

/// What the environment variables of ours start with.
const PREFIX: &str = "APIXX_";

/// Variables of others that matter here.
const OTHERS: [&str; 3] = ["HOME", "XDG_DATA_HOME", "APP_VERSION"];

/// Where values come from beside the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file of the form of `config/default.toml`.
    pub file: Option<PathBuf>,
    /// The environment, as far as it matters here.
    pub environment: Vec<(String, String)>,
    /// Keys such as `server.listen` with their values, from flags.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// The sources of this process: the file named by the flag `--config` or else by `APIXX_CONFIG`, its
    /// environment, and `flags` as keys with values.
    pub fn of_this_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(PREFIX) || OTHERS.contains(&name.as_str()))
            .collect();
        let mut sources = Self { file, environment, flags };
        if sources.file.is_none() {
            sources.file = sources.variable("APIXX_CONFIG").map(PathBuf::from);
        }
        sources
    }

    /// Where data goes when nobody said: for services under `/var/lib`, for people where the XDG base
    /// directory specification puts it.
    pub(super) fn default_data_dir(&self) -> Result<PathBuf, ConfigError> {
        if nix::unistd::geteuid().is_root() {
            return Ok("/var/lib/apixx-mcp".into());
        }
        let data = self.variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || self.variable("HOME").map(|home| Path::new(home).join(".local/share"));
        data.or_else(home).map(|data| data.join("apixx-mcp")).ok_or_else(|| ConfigError::Value {
            key: "database.data_dir".into(),
            problem: "must be set, because this user has no home directory".into(),
        })
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// Why there is no configuration. Names the key and where it was set; never shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// A file that is not TOML.
    #[error("{path}:{line}: {problem}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A key that does not exist.
    #[error("{origin}: there is no setting `{key}`{hint}")]
    Unknown {
        /// The file, the variable or the flag.
        origin: String,
        /// The key.
        key: String,
        /// A similar one, if there is one.
        hint: String,
    },
    /// A value that cannot be.
    #[error("{key} {problem}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
}

/// Defaults, file, environment and flags in one.
pub(super) fn merged<T: DeserializeOwned>(sources: &Sources) -> Result<T, ConfigError> {
    let defaults = parse(Path::new("default.toml"), DEFAULTS)?;
    let mut values = defaults.clone();
    if let Some(path) = &sources.file {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.clone(), source })?;
        let file = parse(path, &text)?;
        check_known(&file, "", &defaults, &path.display().to_string())?;
        merge(&mut values, file);
    }
    for (name, value) in &sources.environment {
        if let Some(key) = key_of(name, &defaults)? {
            set(&mut values, &defaults, &key, value, name)?;
        }
    }
    for (key, value) in &sources.flags {
        set(&mut values, &defaults, key, value, "command line")?;
    }
    values.try_into().map_err(|error: toml::de::Error| {
        // The message's own lines are "what" and "in `key`".
        let text = error.to_string();
        let (problem, place) = text.trim_end().split_once("\nin `").unwrap_or((text.trim_end(), ""));
        ConfigError::Value {
            key: place.trim_end_matches('`').to_owned(),
            problem: format!("is wrong: {problem}"),
        }
    })
}

/// Takes a secret from its file, if it is given that way. The line end that editors add is no part of it.
pub(super) fn read_secret(
    key: &str,
    value: &mut Option<SecretString>,
    file: Option<PathBuf>,
) -> Result<(), ConfigError> {
    let Some(path) = file else { return Ok(()) };
    if value.is_some() {
        return Err(ConfigError::Value {
            key: key.to_owned(),
            problem: format!("and {key}_file are both set"),
        });
    }
    let text = fs::read_to_string(&path).map_err(|source| ConfigError::File { path, source })?;
    *value = Some(text.trim_end_matches(['\r', '\n']).into());
    Ok(())
}

fn parse(path: &Path, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        ConfigError::Syntax {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            problem: error.message().to_owned(),
        }
    })
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// Refuses keys that no default names.
fn check_known(table: &Table, place: &str, defaults: &Table, origin: &str) -> Result<(), ConfigError> {
    for (key, value) in table {
        let key = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        if is_open(&key) {
            continue;
        }
        match (find(defaults, &key), value) {
            (None, _) => return Err(unknown(defaults, &key, origin)),
            (Some(Value::Table(_)), Value::Table(inner)) => check_known(inner, &key, defaults, origin)?,
            _ => {}
        }
    }
    Ok(())
}

/// The key that an environment variable sets: `APIXX_SERVER__LISTEN` sets `server.listen`. A variable of ours
/// that names a section otherwise is a slip; any other, such as one that holds a token for a client, is not
/// for us.
fn key_of(name: &str, defaults: &Table) -> Result<Option<String>, ConfigError> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(None) };
    let rest = rest.to_ascii_lowercase();
    if rest.contains("__") {
        return Ok(Some(rest.replace("__", ".")));
    }
    match rest.split_once('_') {
        Some((section, key)) if defaults.contains_key(section) => {
            Err(unknown(defaults, &format!("{section}_{key}"), name))
        }
        _ => Ok(None),
    }
}

/// Sets one key from a text, read as the kind of value that the default is.
fn set(values: &mut Table, defaults: &Table, key: &str, text: &str, origin: &str) -> Result<(), ConfigError> {
    let wrong = |problem: String| ConfigError::Value { key: key.to_owned(), problem };
    let value = match find(defaults, key) {
        None if !is_open(key) => return Err(unknown(defaults, key, origin)),
        None | Some(Value::String(_)) => Value::String(text.to_owned()),
        Some(Value::Array(_)) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        Some(Value::Integer(_)) => {
            // Seconds need not be whole.
            let part = if key.ends_with("_s") { text.parse().ok().map(Value::Float) } else { None };
            let whole = text.parse().ok().map(Value::Integer);
            whole.or(part).ok_or_else(|| wrong(format!("is wrong: `{text}` is no whole number")))?
        }
        Some(_) => return Err(wrong("is a section, not a setting".into())),
    };
    let mut table = values;
    let mut steps = key.split('.').peekable();
    while let Some(step) = steps.next() {
        if steps.peek().is_none() {
            table.insert(step.to_owned(), value);
            break;
        }
        let next = table.entry(step).or_insert_with(|| Value::Table(Table::new()));
        table = next.as_table_mut().ok_or_else(|| wrong("is no setting".into()))?;
    }
    Ok(())
}

fn find<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    match key.split_once('.') {
        Some((section, rest)) => find(table.get(section)?.as_table()?, rest),
        None => table.get(key),
    }
}

fn is_open(key: &str) -> bool {
    OPEN_TABLES.iter().any(|open| key.strip_prefix(open).is_some_and(|rest| rest.starts_with('.')))
}

fn unknown(defaults: &Table, key: &str, origin: &str) -> ConfigError {
    let mut known = Vec::new();
    list(defaults, "", &mut known);
    let similar = known
        .iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(candidate, key), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity > 0.7);
    let hint = match similar {
        Some((_, known)) if origin.starts_with(PREFIX) => {
            format!("; did you mean {PREFIX}{}?", known.replace('.', "__").to_ascii_uppercase())
        }
        Some((_, known)) => format!("; did you mean `{known}`?"),
        None => String::new(),
    };
    ConfigError::Unknown { origin: origin.to_owned(), key: key.to_owned(), hint }
}

fn list(table: &Table, place: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        let key = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        match value {
            Value::Table(inner) => list(inner, &key, keys),
            _ => keys.push(key),
        }
    }
}
