//! Which errors are the same error: a message without its particulars, and a fingerprint of it.

use std::sync::LazyLock;

use regex::Regex;
use sha2::{Digest, Sha256};

use super::error_class::{ErrorClass, Stage};

/// The version of the grouping rules below; old groups keep the version they were made with.
pub const GROUPING_VERSION: i16 = 1;

/// Longest message or template kept, in characters.
pub const MAX_MESSAGE_CHARS: usize = 500;

static PARTICULARS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        (r"[\w.+*-]+@[\w-]+\.[\w.-]+", "<email>"),
        (r"\bhttps?://[^\s'\x22<>]+", "<url>"),
        (r"(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<uuid>"),
        (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b", "<ip>"),
        (r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?", "<date>"),
        (r"\b\d+(?:\.\d+)?\s?(?:ms|s|sec|secs|seconds|min|minutes|h|hours)\b", "<duration>"),
        (r"\b00[0-9A-Za-z]{13}(?:[0-9A-Za-z]{3})?\b", "<id>"),
        (r"(?i)\b[a-f]*[0-9][0-9a-f]{7,}\b", "<hex>"),
        // (a long one ends where the message was cut)
        (r"\x22[^\x22]*(?:\x22|$)|'[^']{0,200}'", "<str>"),
        (r"\d+(?:[.,]\d+)*", "<n>"),
    ]
    .into_iter()
    .filter_map(|(pattern, mark)| Some((Regex::new(pattern).ok()?, mark)))
    .collect()
});

/// `message` with its particulars (addresses, ids, dates, numbers, quoted values) replaced by marks.
pub fn template(message: &str) -> String {
    let cut: String = message.chars().take(MAX_MESSAGE_CHARS).collect();
    PARTICULARS.iter().fold(cut, |text, (pattern, mark)| pattern.replace_all(&text, *mark).into_owned())
}

/// What identifies an error group inside a flow: 16 bytes over class, code, stage, field and, where these leave open
/// what is wrong, the message's template.
pub fn fingerprint(
    class: ErrorClass,
    code: &str,
    stage: Stage,
    field: Option<&str>,
    template: &str,
) -> [u8; 16] {
    let template = if is_specific(class, code) { "" } else { template };
    let parts = [class.as_str(), code, stage.as_str(), field.unwrap_or(""), template];
    let digest: [u8; 32] = Sha256::digest(parts.join("\u{1f}").as_bytes()).into();
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}

/// Whether `code` alone tells the errors of one field apart, as a vendor's mostly does, so that differing messages stay
/// one group. Some codes stand for whatever is said with them.
fn is_specific(class: ErrorClass, code: &str) -> bool {
    !matches!(class, ErrorClass::Transform | ErrorClass::Config | ErrorClass::Internal)
        && !matches!(code, "TIMEOUT" | "RAISE_EXCEPTION")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn particulars_are_replaced() {
        for (message, expected) in [
            (
                "Invalid item reference key SKU-8841-B for subsidiary 3",
                "Invalid item reference key SKU-<n>-B for subsidiary <n>",
            ),
            ("ana@example.com is taken", "<email> is taken"),
            ("no answer from https://x.example/a?b=1 within 30 s", "no answer from <url> within <duration>"),
            ("row 0190163d-8694-739b-aea5-966c26f8ad91 at 2026-11-20T14:15:00Z", "row <uuid> at <date>"),
            ("account 001D000000IRFmaIAH is locked", "account <id> is locked"),
            ("value 'x' is not \"y\"", "value <str> is not <str>"),
            (&format!("no integer: \"{}", "Ana ".repeat(130)), "no integer: <str>"),
            ("10.0.0.1:5432 refused", "<ip> refused"),
            ("digest 9f86d081884c7d65 differs", "digest <hex> differs"),
        ] {
            assert_eq!(template(message), expected);
        }
        assert_eq!(PARTICULARS.len(), 10, "every pattern compiles");
    }

    #[test]
    fn one_error_has_one_fingerprint() {
        let print = |class, code, message: &str| {
            fingerprint(class, code, Stage::Transform, Some("total"), &template(message))
        };
        for (class, code, specific) in [
            (ErrorClass::Type, "INVALID_NUMBER", true),
            (ErrorClass::Transform, "TRANSFORM_ERROR", false),
            (ErrorClass::Config, "CONFIG_INVALID", false),
            (ErrorClass::Unavailable, "TIMEOUT", false),
            (ErrorClass::Validation, "RAISE_EXCEPTION", false),
        ] {
            let print = |message| print(class, code, message);
            assert_eq!(print("'12,x' is no number"), print("'7k' is no number"), "{code}");
            assert_eq!(print("too large") == print("too small"), specific, "{code}");
        }
    }
}
