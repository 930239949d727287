//! Cursors: where the next page begins, sealed so that only this query of this customer continues it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::ids::CustomerId;

/// Bytes of the seal that a cursor carries.
const SEAL_BYTES: usize = 12;
/// Longest cursor text that is read.
const MAX_CHARS: usize = 2_048;

/// Seals and opens cursors. One key per installation, so that any process continues any page.
#[derive(Clone)]
pub struct CursorKey(Hmac<Sha256>);

impl CursorKey {
    /// A sealing key of 32 bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104, section 2)")]
        Self(Hmac::new_from_slice(key).expect("a key"))
    }

    /// The cursor for `position` in the `query` of `customer`.
    pub fn seal(&self, customer: &CustomerId, query: &str, position: &str) -> String {
        let seal = self.tag(customer, query, position);
        let mut bytes = seal.to_vec();
        bytes.extend_from_slice(position.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position in a cursor; `None` unless this installation sealed it for this query of this customer.
    pub fn open(&self, customer: &CustomerId, query: &str, cursor: &str) -> Option<String> {
        if cursor.len() > MAX_CHARS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor.trim()).ok()?;
        let (seal, position) = bytes.split_at_checked(SEAL_BYTES)?;
        let position = std::str::from_utf8(position).ok()?;
        let mut mac = self.0.clone();
        mac.update(&framed(customer, query, position));
        mac.verify_truncated_left(seal).ok()?;
        Some(position.to_owned())
    }

    fn tag(&self, customer: &CustomerId, query: &str, position: &str) -> [u8; SEAL_BYTES] {
        let mut mac = self.0.clone();
        mac.update(&framed(customer, query, position));
        let full = mac.finalize().into_bytes();
        let mut tag = [0; SEAL_BYTES];
        tag.copy_from_slice(&full[..SEAL_BYTES]);
        tag
    }
}

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorKey(…)")
    }
}

/// The three parts, each behind its length, so that no two triples read alike.
fn framed(customer: &CustomerId, query: &str, position: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [customer.as_str(), query, position] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_continues_only_its_own_query() {
        let key = CursorKey::new(&[7; 32]);
        let (acme, globex) =
            (CustomerId::parse("cus_acme").unwrap(), CustomerId::parse("cus_globex").unwrap());
        let cursor = key.seal(&acme, "list_runs?status=failed", "12:run_abc");
        assert_eq!(key.open(&acme, "list_runs?status=failed", &cursor).as_deref(), Some("12:run_abc"));
        assert_eq!(key.open(&acme, "list_runs?status=partial", &cursor), None);
        assert_eq!(key.open(&globex, "list_runs?status=failed", &cursor), None);
        assert_eq!(CursorKey::new(&[8; 32]).open(&acme, "list_runs?status=failed", &cursor), None);
        let long = "\u{1f600}".repeat(300);
        assert_eq!(key.open(&acme, "q", &key.seal(&acme, "q", &long)), Some(long));
        for junk in ["", "a", "AAAA", "%%%", &"A".repeat(5000)] {
            assert_eq!(key.open(&acme, "list_runs?status=failed", junk), None);
        }
    }
}
