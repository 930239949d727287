//! Texts that mean something by themselves: windows, moments, tokens, ids, cursors, names, messages.

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::{CustomerId, FlowId, IdSource, RunId};
use apixx_mcp::domain::names::{self, Named};
use apixx_mcp::domain::page::CursorKey;
use apixx_mcp::domain::token::PlainToken;
use apixx_mcp::domain::{redact, untrusted, window};
use apixx_mcp::protocol::header;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

/// Every reader of a text takes any.
pub fn hold(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    windows(text);
    tokens(text);
    ids(text);
    cursors(text);
    resolved(text);
    untrusted_words(text);
    mirrored(text);
}

fn now() -> DateTime<Utc> {
    // The hour that Berlin had twice, and Lord Howe a half of.
    DateTime::from_timestamp(1_761_438_600, 0).expect("a moment")
}

/// A window is not empty, no longer than a year and a bit, and its label means the same window.
fn windows(text: &str) {
    for zone in [Tz::UTC, Tz::Europe__Berlin, Tz::Australia__Lord_Howe, Tz::Pacific__Apia] {
        if let Some(window) = window::parse(text, now(), zone) {
            assert!(window.since < window.until, "{text}: {window:?}");
            assert!(window.until - window.since <= TimeDelta::days(401), "{text}: {window:?}");
            let label = window.label.clone().expect("a word or a duration");
            assert_eq!(window::parse(&label, now(), zone), Some(window), "{text}");
        }
        if let Some(moment) = window::parse_moment(text, zone) {
            assert_eq!(window::parse_moment(&moment.to_rfc3339(), zone), Some(moment), "{text}");
        }
    }
}

/// A token that is read is that text and no other, and no token shows itself.
fn tokens(text: &str) {
    if let Some(token) = PlainToken::parse(text) {
        assert_eq!(token.reveal(), text);
        assert!(!format!("{token:?} {:?}", token.digest()).contains(&text[4..]));
    }
    let token = PlainToken::new(&IdSource::seeded(Clock::fixed(now()), text.len() as u64));
    assert_eq!(PlainToken::parse(token.reveal()), Some(token.clone()));
    // Any other letter at any place is noticed.
    for (place, letter) in text.bytes().filter(u8::is_ascii).enumerate().take(53) {
        let mut other = token.reveal().as_bytes().to_vec();
        other[place] = letter;
        let other = String::from_utf8(other).expect("ASCII");
        assert!(other == token.reveal() || PlainToken::parse(&other).is_none(), "{other}");
    }
}

fn ids(text: &str) {
    if let Ok(id) = FlowId::parse(text) {
        assert!(id.as_str().starts_with("flow_") && id.as_str().len() <= 64);
        assert_eq!(FlowId::parse(id.as_str()), Ok(id.clone()));
        assert!(RunId::parse(text).is_err());
    }
}

/// Only what was sealed is opened, for its own customer and query; one letter changed, and it is not.
fn cursors(text: &str) {
    let key = CursorKey::new(&[7; 32]);
    let [ours, theirs] = ["cus_acme", "cus_acmes"].map(|id| CustomerId::parse(id).expect("an id"));
    assert_eq!(key.open(&ours, "list_runs", text), None);
    let sealed = key.seal(&ours, "list_runs", text);
    let opened = key.open(&ours, "list_runs", &sealed);
    assert_eq!(opened.as_deref(), (sealed.len() <= 2_048).then_some(text));
    assert_eq!(key.open(&theirs, "list_runs", &sealed), None);
    assert_eq!(key.open(&ours, "list_runs{}", &sealed), None);
    assert_eq!(CursorKey::new(&[8; 32]).open(&ours, "list_runs", &sealed), None);
    for place in 0..sealed.len().min(64) {
        let mut other = sealed.clone().into_bytes();
        other[place] = if other[place] == b'A' { b'B' } else { b'A' };
        let other = String::from_utf8(other).expect("ASCII");
        assert_eq!(key.open(&ours, "list_runs", &other), None, "{place} of {sealed}");
    }
}

/// A name finds what is called so, and nothing is found for nothing.
fn resolved(text: &str) {
    let text: String = text.chars().take(200).collect();
    let named = |id, label: &str| Named { id, label: label.to_owned(), name: label.to_owned() };
    let all = [named(1, "HubSpot → Salesforce contacts"), named(2, &text), named(3, "Orders")];
    if let names::Match::One(found, _) = names::resolve(&text, &all, false) {
        assert_eq!(names::exact_key(&found.label), names::exact_key(&text));
    }
    assert!(names::nearest_word(&text, ["flow", "window"]).is_none_or(|word| word.len() <= 6));
}

/// Words of others stand in one line, with nothing hidden in it, and where they are fenced the fence is closed once.
fn untrusted_words(text: &str) {
    for told in [untrusted::fenced(text), untrusted::named(text), untrusted::word(text)] {
        assert!(
            !told
                .chars()
                .any(|c| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'))
        );
        if told != text {
            let inside = told.strip_prefix("<<data ").and_then(|rest| rest.strip_suffix(" data>>"));
            let inside = inside.unwrap_or_else(|| panic!("{told:?} is neither the text nor fenced"));
            assert!(!inside.contains("<<data") && !inside.contains("data>>"), "{told}");
        }
    }
    let masked = redact::text(text);
    assert_eq!(redact::text(&masked), masked);
    let record = serde_json::json!({ "note": text, "password": text, text: 1 });
    let excerpt = redact::excerpt(&record, &["note"], None).value;
    assert!(excerpt.to_string().len() <= redact::MAX_BYTES);
}

/// A mirrored header that is decoded means itself or its Base64, and never both.
fn mirrored(text: &str) {
    use base64::Engine as _;
    let sentinel = format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(text));
    assert_eq!(header::decoded("mcp-name", &sentinel).as_deref(), Ok(text));
    if let Ok(decoded) = header::decoded("mcp-name", text) {
        assert!(decoded == text || text.starts_with("=?base64?"));
    }
}
