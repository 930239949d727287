//! The repository reads itself: who imports whom, and where SQL stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What each floor may import; `*` is everything. `config` and `observe` are drains: anyone above `store` may use them; `json` is one below all.
const FLOORS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("protocol", &[]),
    ("config", &["domain"]),
    ("observe", &["domain"]),
    ("embedded", &["domain", "store"]),
    ("store", &["domain"]),
    ("engine", &["domain", "store"]),
    ("service", &["domain", "store", "engine"]),
    ("view", &["domain", "store"]),
    ("middleware", &["domain", "service", "protocol"]),
    ("tools", &["domain", "protocol", "store", "service", "view"]),
    ("web", &["domain", "protocol", "store", "service", "view", "middleware", "tools"]),
    ("demo", &["domain", "store", "service"]),
    ("cli", &["*"]),
    ("app", &["*"]),
];

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The floors that a file names after `crate::`, its test module aside.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = Vec::new();
    for line in lines {
        for part in line.split("crate::").skip(1) {
            if line.contains("$crate::") {
                continue;
            }
            let names: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push(names);
        }
    }
    found
}

#[test]
fn imports_go_down_the_floors() {
    let allowed: BTreeMap<&str, &[&str]> = FLOORS.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in sources(&root()) {
        let relative = path.strip_prefix(root()).unwrap();
        let Some(floor) = relative.parent().and_then(|p| p.iter().next()).and_then(|p| p.to_str()) else {
            continue;
        };
        let may = allowed.get(floor).unwrap_or_else(|| panic!("floor {floor} is not in the table"));
        for import in imports(&std::fs::read_to_string(&path).unwrap()) {
            seen += 1;
            let drain = matches!(import.as_str(), "config" | "observe")
                && !matches!(floor, "domain" | "protocol" | "store");
            let drain = drain || import == "json";
            if import != floor && !drain && !may.contains(&"*") && !may.contains(&import.as_str()) {
                wrong.push(format!("{} imports {import}", relative.display()));
            }
        }
    }
    assert!(seen > 100, "the test reads imports");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What strangers wrote is read as it stands, by `json`: not by serde_json's own `Value`, to which one name is special.
#[test]
fn values_are_read_as_they_stand() {
    let words = ["from_str::<Value>", "from_slice::<Value>", "from_str::<Map", "Json<Value>", "Json<Map"];
    let mut wrong = Vec::new();
    for path in sources(&root()) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        // An answer of the pages', which is only written.
        let code = code.replace("Result<Json<Value>, Trouble>", "");
        wrong.extend(
            words
                .iter()
                .filter(|word| code.contains(**word))
                .map(|word| format!("{}: {word}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Statements of ours stand in the store and the migrations. The one exception speaks to other databases than ours.
#[test]
fn sql_stands_in_the_store() {
    const ELSEWHERE: &[&str] = &["engine/connectors/postgres"];
    let words = ["sqlx::query", "query_as(", "query_scalar(", "raw_sql(", "insert into ", "delete from "];
    let mut wrong = Vec::new();
    for path in sources(&root()) {
        let relative = path.strip_prefix(root()).unwrap().display().to_string();
        if relative.starts_with("store/") || ELSEWHERE.iter().any(|file| relative.starts_with(file)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for word in words {
            if code.contains(word) {
                wrong.push(format!("{relative}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The protocol's two eras are decided in one place; nothing above it knows them.
#[test]
fn eras_stay_inside_the_protocol() {
    for path in sources(&root()) {
        let relative = path.strip_prefix(root()).unwrap().display().to_string();
        if relative.starts_with("protocol/") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["Era::", "Legacy", "Modern"] {
            assert!(!text.contains(word), "{relative} knows of {word}");
        }
    }
}
