//! What the README says of the tools is what the catalog says.

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
