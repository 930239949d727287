//! What the README says of the tools is what the catalog says, and what SECURITY.md says is tested is.

use std::path::Path;

use apixx_mcp::domain::scope::Scopes;
use apixx_mcp::tools::catalog;

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
    let named = regex::Regex::new(r"`((?:src|tests)/[\w/]+\.rs)::(\w+)`").unwrap();
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
