//! What the README says of the tools is what the catalog says, and what SECURITY.md says is tested is; the example of a
//! file for `apply` is whole.

use std::collections::BTreeSet;
use std::path::Path;

use apixx_mcp::domain::scope::Scopes;
use apixx_mcp::tools::catalog;
use regex::Regex;
use toml::Table;

const BEGIN: &str = "<!-- tools:";
const END: &str = "<!-- /tools -->";

/// The table of the tools: the first sentence of each description.
fn table() -> String {
    let mut rows = "| tool | what it answers | scope |\n| --- | --- | --- |\n".to_owned();
    let scopes: Vec<_> = catalog().entries().map(|entry| entry.scope).collect();
    for (tool, scope) in catalog().visible_to(Scopes::all()).iter().zip(scopes) {
        let sentence = tool.description.split(". ").next().unwrap_or_default().trim_end_matches('.');
        rows.push_str(&format!("| `{}` | {}. | `{scope}` |\n", tool.name, sentence.replace('|', "\\|")));
    }
    rows
}

/// Every lock that SECURITY.md names is held by a test that is there: `path::name`.
#[test]
fn the_tests_that_the_security_page_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let named = Regex::new(r"`((?:src|tests)/[\w/]+\.rs)::(\w+)`").unwrap();
    let mut count = 0;
    for found in named.captures_iter(&page) {
        let text = std::fs::read_to_string(root.join(&found[1])).unwrap_or_default();
        assert!(text.contains(&format!("fn {}(", &found[2])), "{}", &found[0]);
        count += 1;
    }
    // One that is spelt otherwise would not be looked for.
    assert_eq!(count, page.matches(".rs::").count());
    assert!(count >= 30, "{count}");
}

#[test]
fn the_readme_lists_the_tools() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = text.find(BEGIN).unwrap();
    let begin = begin + text[begin..].find('\n').unwrap() + 1;
    let end = text.find(END).unwrap();
    if text[begin..end] != table() {
        if std::env::var_os("INSTA_UPDATE").is_some_and(|mode| mode == "always") {
            std::fs::write(&path, format!("{}{}{}", &text[..begin], table(), &text[end..])).unwrap();
            return;
        }
        panic!("README.md is behind the catalog; run INSTA_UPDATE=always cargo test --test it readme");
    }
}

/// Every code with which a tool answers stands in the README's table, and no other.
#[test]
fn the_readme_lists_the_codes_of_errors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, table) = readme.split_once("<!-- errors:").unwrap();
    let (table, _) = table.split_once("<!-- /errors -->").unwrap();
    let row = Regex::new(r"(?m)^\| `([A-Z_]+)` \|").unwrap();
    let listed: Vec<&str> = row.captures_iter(table).map(|found| found.extract::<1>().1[0]).collect();
    // A code stands first in what is refused; `env!` and the words of a schema are none.
    let code = Regex::new(r#"[^!]\(\s*"([A-Z]+(?:_[A-Z]+)+)"[,)]"#).unwrap();
    let mut told = BTreeSet::new();
    for entry in std::fs::read_dir(root.join("src/tools")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        told.extend(code.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    assert_eq!(listed.iter().map(|code| (*code).to_owned()).collect::<BTreeSet<_>>(), told);
    assert_eq!(listed.len(), told.len(), "one stands there twice");
}

/// Every key that the reader of a file asks for stands in `config/flows.example.toml`, where it belongs.
#[test]
fn the_example_of_a_flow_file_has_every_key() {
    let read = |path| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (reader, example) = (read("src/service/apply/file.rs"), read("config/flows.example.toml"));
    let asked = Regex::new(r#"\bsection\s*\.\w+\(\s*"(\w+)""#).unwrap();
    let keys = |function: &str| -> Vec<String> {
        let start = Regex::new(&format!(r"\nfn {function}\b")).unwrap();
        let (_, body) = reader.split_at(start.find(&reader).unwrap().end());
        let body = body.split("\n}\n").next().unwrap();
        asked.captures_iter(body).map(|found| found[1].to_owned()).collect()
    };
    fn below<'t>(tables: &[&'t Table], key: &str) -> Vec<&'t Table> {
        let lists = tables.iter().filter_map(|table| table.get(key)?.as_array()).flatten();
        lists.filter_map(toml::Value::as_table).collect()
    }
    let example: Table = example.parse().unwrap();
    let (connectors, flows) = (below(&[&example], "connector"), below(&[&example], "flow"));
    let streams = below(&flows, "stream");
    let fields = below(&streams, "field");
    let mut count = 0;
    for (tables, functions) in [
        (connectors, &["connector", "id"][..]),
        (flows, &["flow", "id", "schedule"]),
        (streams, &["stream"]),
        (fields, &["field"]),
    ] {
        for key in functions.iter().flat_map(|function| keys(function)) {
            assert!(tables.iter().any(|table| table.contains_key(&key)), "{functions:?}: {key}");
            count += 1;
        }
    }
    // One that is asked for otherwise would not be looked for.
    assert!(count >= 55, "{count}");
}
