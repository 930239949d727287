//! How a flow or connector is found by the name that a person or model uses for it.

use unicode_normalization::UnicodeNormalization;

/// The exact key of a name: two spellings with one key are the same name.
///
/// Compatibility forms are folded (NFKC), case and punctuation do not count, every arrow reads "to",
/// blanks are collapsed.
pub fn exact_key(name: &str) -> String {
    let folded: String = name.nfkc().flat_map(char::to_lowercase).collect();
    let arrows = folded
        .replace(['→', '⇒', '➔', '➜', '⟶'], " to ")
        .replace("->", " to ")
        .replace("=>", " to ")
        .replace('>', " to ");
    let spaced: String = arrows.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The distinct words of a text that names are searched for; a text without any is one itself.
pub fn words(text: &str) -> Vec<String> {
    let key = exact_key(text);
    let mut words: Vec<String> = key.split_whitespace().map(str::to_owned).collect();
    words.sort_unstable();
    words.dedup();
    if words.is_empty() { vec![text.trim().to_lowercase()] } else { words }
}

/// Words that people add to a name without meaning to tell flows apart by them.
const STOP_WORDS: &[&str] = &[
    "the",
    "a",
    "an",
    "my",
    "our",
    "flow",
    "flows",
    "sync",
    "syncs",
    "job",
    "jobs",
    "pipeline",
    "pipelines",
    "integration",
    "nightly",
    "daily",
    "hourly",
    "weekly",
    "monthly",
    "to",
    "from",
    "into",
    "and",
];

/// The loose key of a name: its exact key without stop words and plural endings, for look-ups that
/// may guess.
pub fn loose_key(name: &str) -> String {
    loose_words(&exact_key(name)).join(" ")
}

fn loose_words(exact: &str) -> Vec<String> {
    exact.split(' ').filter(|word| !word.is_empty() && !STOP_WORDS.contains(word)).map(singular).collect()
}

fn singular(word: &str) -> String {
    if let Some(stem) = word.strip_suffix("ies").filter(|stem| stem.len() > 1) {
        return format!("{stem}y");
    }
    match word.strip_suffix('s') {
        Some(stem) if stem.len() > 2 && !stem.ends_with('s') => stem.to_owned(),
        _ => word.to_owned(),
    }
}

/// One name or alias of something that can be found by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<I> {
    /// What the name stands for.
    pub id: I,
    /// The name as written.
    pub label: String,
    /// The name people should use for it (differs from `label` for an alias).
    pub name: String,
}

/// What became of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match<I> {
    /// Exactly one thing, found as said.
    One(Named<I>, MatchedBy),
    /// Several things fit.
    Several {
        /// Their names, at most five.
        named: Vec<Named<I>>,
        /// How many fit.
        of: usize,
    },
    /// Nothing fits; the nearest names, at most three.
    None(Vec<Named<I>>),
}

words! {
    /// How something was found.
    MatchedBy {
        /// By its id.
        Id = "id",
        /// By its exact name or an alias.
        Name = "name",
        /// By its name without stop words and plurals.
        Loose = "loose",
        /// By words that only this one's name holds.
        Words = "words",
    }
}

/// Finds `text` among `all` names, most literal reading first. With `guess`, words that only one
/// name holds are enough; without it (before a write) they only make a suggestion.
pub fn resolve<I: Clone + PartialEq>(text: &str, all: &[Named<I>], guess: bool) -> Match<I> {
    let exact = exact_key(text);
    if let Some(found) = all.iter().find(|named| exact_key(&named.label) == exact) {
        return Match::One(found.clone(), MatchedBy::Name);
    }
    let loose = loose_words(&exact);
    if loose.is_empty() {
        return Match::None(Vec::new());
    }
    let same: Vec<_> = distinct(all.iter().filter(|named| loose_words(&exact_key(&named.label)) == loose));
    match same.as_slice() {
        [one] => return Match::One(one.clone(), MatchedBy::Loose),
        [] => {}
        _ => return several(same),
    }
    let holding: Vec<_> = distinct(all.iter().filter(|named| {
        let words = loose_words(&exact_key(&named.label));
        loose.iter().all(|word| words.contains(word))
    }));
    match holding.as_slice() {
        [one] if guess => Match::One(one.clone(), MatchedBy::Words),
        [] => Match::None(nearest(&loose.join(" "), all)),
        [_] => Match::None(holding),
        _ => several(holding),
    }
}

fn several<I>(mut fit: Vec<Named<I>>) -> Match<I> {
    let of = fit.len();
    fit.truncate(5);
    Match::Several { named: fit, of }
}

/// The distinct things of `named`, the first name of each.
fn distinct<'a, I: Clone + PartialEq + 'a>(named: impl Iterator<Item = &'a Named<I>>) -> Vec<Named<I>> {
    let mut found: Vec<Named<I>> = Vec::new();
    for one in named {
        if !found.iter().any(|earlier| earlier.id == one.id) {
            found.push(one.clone());
        }
    }
    found
}

fn nearest<I: Clone + PartialEq>(loose: &str, all: &[Named<I>]) -> Vec<Named<I>> {
    let mut ranked: Vec<(f64, &Named<I>)> = all
        .iter()
        .map(|named| (likeness(loose, &loose_key(&named.label)), named))
        .filter(|(likeness, _)| *likeness >= 0.35)
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
    distinct(ranked.into_iter().map(|(_, named)| named)).into_iter().take(3).collect()
}

/// How alike two loose keys are, 0 to 1: each word asked for counts by its best partner.
fn likeness(asked: &str, candidate: &str) -> f64 {
    let best = |word: &str| {
        candidate
            .split(' ')
            .map(|other| strsim::damerau_levenshtein(word, other))
            .fold(0.0, |best: f64, distance| {
                best.max(1.0 - distance as f64 / word.chars().count().max(1) as f64)
            })
    };
    let words: Vec<f64> =
        asked.split(' ').map(best).map(|score| if score >= 0.6 { score } else { 0.0 }).collect();
    words.iter().sum::<f64>() / words.len().max(1) as f64
}

/// Longest text that is compared with others letter by letter, in bytes: that costs time and memory by its length.
const MAX_COMPARED: usize = 64;

/// The suggestions nearest to `text` among plain words (argument names, window words).
pub fn nearest_word<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > MAX_COMPARED {
        return None;
    }
    words
        .into_iter()
        .map(|word| (strsim::normalized_damerau_levenshtein(text, word), word))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Vec<Named<u8>> {
        [
            (1, "HubSpot → Salesforce contacts", Some("HubSpot contacts")),
            (2, "HubSpot → Snowflake deals", None),
            (3, "HubSpot companies → NetSuite customers", None),
            (4, "Shopify orders → NetSuite sales orders", Some("orders")),
            (5, "Salesforce → Snowflake accounts", Some("Salesforce accounts")),
            (6, "NetSuite → Snowflake invoices", Some("NetSuite invoices")),
            (7, "Shopify → Snowflake customers", None),
            (8, "Snowflake → Salesforce lead scores", None),
            (9, "MongoDB loyalty → Shopify customer tags", None),
        ]
        .into_iter()
        .flat_map(|(id, name, alias)| {
            [Some(name), alias].into_iter().flatten().map(move |label| Named {
                id,
                label: label.to_owned(),
                name: name.to_owned(),
            })
        })
        .collect()
    }

    fn one(text: &str, guess: bool) -> Option<(u8, MatchedBy)> {
        match resolve(text, &demo(), guess) {
            Match::One(named, by) => Some((named.id, by)),
            _ => None,
        }
    }

    #[test]
    fn arrows_case_and_punctuation_do_not_count() {
        assert_eq!(exact_key("HubSpot → Salesforce  Contacts"), "hubspot to salesforce contacts");
        assert_eq!(exact_key("hubspot -> salesforce, contacts"), "hubspot to salesforce contacts");
        assert_eq!(one("salesforce -> snowflake ACCOUNTS", false), Some((5, MatchedBy::Name)));
        assert_eq!(one("Salesforce to Snowflake accounts", false), Some((5, MatchedBy::Name)));
    }

    #[test]
    fn a_search_is_for_each_of_its_words() {
        assert_eq!(words("Salesforce -> Snowflake"), ["salesforce", "snowflake", "to"]);
        assert_eq!(words("  orders, Orders "), ["orders"]);
        assert_eq!(words(" ?! "), ["?!"]);
    }

    #[test]
    fn people_say_more_and_less_than_the_name() {
        assert_eq!(one("the Salesforce accounts flow", false), Some((5, MatchedBy::Loose)));
        assert_eq!(one("nightly NetSuite invoice sync", false), Some((6, MatchedBy::Loose)));
        assert_eq!(one("orders", false), Some((4, MatchedBy::Name)));
        assert_eq!(one("HubSpot contacts", false), Some((1, MatchedBy::Name)));
    }

    #[test]
    fn a_read_may_guess_and_a_write_may_not() {
        assert_eq!(one("lead scores", true), Some((8, MatchedBy::Words)));
        assert_eq!(one("lead scores", false), None);
        let Match::None(suggested) = resolve("lead scores", &demo(), false) else { panic!() };
        assert_eq!(suggested[0].id, 8);
    }

    #[test]
    fn more_than_five_are_counted() {
        let many: Vec<Named<u8>> = (0..12)
            .map(|id| Named { id, label: format!("Shopify {id}"), name: format!("Shopify {id}") })
            .collect();
        let Match::Several { named, of } = resolve("Shopify", &many, true) else { panic!() };
        assert_eq!((named.len(), of), (5, 12));
    }

    #[test]
    fn several_are_named_and_typos_get_suggestions() {
        let Match::Several { named, of } = resolve("Shopify", &demo(), true) else { panic!() };
        assert_eq!((named.iter().map(|named| named.id).collect::<Vec<_>>(), of), (vec![4, 7, 9], 3));
        let Match::None(near) = resolve("hubspot contcts", &demo(), true) else { panic!() };
        assert_eq!(near[0].id, 1);
        assert_eq!(resolve("zzz qqq", &demo(), true), Match::None(vec![]));
        assert_eq!(resolve("→", &demo(), true), Match::None(vec![]));
    }
}
