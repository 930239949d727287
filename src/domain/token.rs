//! MCP tokens: `mcp_`, 43 base62 characters of 256 random bits, 6 base62 characters of their CRC-32.
//!
//! A double click selects the whole token, and junk is refused without asking the database. Only the
//! SHA-256 digest is ever stored: the secret has 256 bits of its own, so a slow hash would protect
//! nothing and hand strangers a cheap way to load the server.

use sha2::{Digest, Sha256};

use super::ids::IdSource;

/// How long a token may live: what people choose from, in days; `None` is for good.
pub const LIFETIMES: [Option<i64>; 4] = [Some(30), Some(90), Some(365), None];

/// What a token may be called: one to 200 characters on one line, without the space around them.
pub fn name(text: &str) -> Option<&str> {
    let name = text.trim();
    let fits = (1..=200).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    fits.then_some(name)
}

const PREFIX: &str = "mcp_";
const SECRET_CHARS: usize = 43;
const CHECK_CHARS: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A token as its owner holds it. Never stored, never logged: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainToken(String);

/// What a browser holds while a person is signed in, or a link for one use: 256 random bits in 43 base62 characters.
/// Never stored, never logged: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The SHA-256 digest of a token or secret: what is stored, and what it is found by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl PlainToken {
    /// A new token.
    pub fn new(ids: &IdSource) -> Self {
        let mut bytes = [0; 32];
        ids.fill(&mut bytes);
        let secret = base62(&bytes, SECRET_CHARS);
        let check = check_digits(&secret);
        Self(format!("{PREFIX}{secret}{check}"))
    }

    /// Reads a token; `None` when it cannot be one (wrong prefix, length, alphabet or check digits).
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        if rest.len() != SECRET_CHARS + CHECK_CHARS || !is_base62(rest) {
            return None;
        }
        let (secret, check) = rest.split_at(SECRET_CHARS);
        (check_digits(secret) == check).then(|| Self(text.to_owned()))
    }

    /// What the token is stored and found by.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The secret itself, for the one time it is shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// How it begins, by which an operator may recognise one that nobody made: 24 bits of 256.
    pub fn beginning(&self) -> String {
        self.0.chars().take(8).chain(['…']).collect()
    }

    /// The last four characters, by which an owner recognises a token in a list.
    pub fn last_four(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }
}

impl Secret {
    /// A new secret.
    pub fn new(ids: &IdSource) -> Self {
        let mut bytes = [0; 32];
        ids.fill(&mut bytes);
        Self(base62(&bytes, SECRET_CHARS))
    }

    /// Reads a secret; `None` when it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == SECRET_CHARS && is_base62(text);
        fits.then(|| Self(text.to_owned()))
    }

    /// What it is stored and found by.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The secret itself, for its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl TokenDigest {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for PlainToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlainToken(…)")
    }
}

impl std::fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

fn check_digits(secret: &str) -> String {
    base62(&crc32fast::hash(secret.as_bytes()).to_be_bytes(), CHECK_CHARS)
}

fn is_base62(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `bytes` as a big-endian number in base 62, padded with zeros to `width`.
fn base62(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Clock;

    fn token(seed: u64) -> PlainToken {
        PlainToken::new(&IdSource::seeded(Clock::system(), seed))
    }

    #[test]
    fn a_token_is_read_back_and_junk_is_not() {
        let token = token(1);
        assert_eq!(token.reveal().len(), 53);
        assert_eq!(PlainToken::parse(token.reveal()), Some(token.clone()));
        let mut typo = token.reveal().to_owned().into_bytes();
        typo[20] = if typo[20] == b'a' { b'b' } else { b'a' };
        assert_eq!(PlainToken::parse(std::str::from_utf8(&typo).unwrap()), None);
        for junk in ["", "mcp_", "apx_123", &token.reveal()[..52], &format!("{}x", token.reveal()), "mcp_é"]
        {
            assert_eq!(PlainToken::parse(junk), None, "{junk}");
        }
    }

    #[test]
    fn a_name_is_short_and_of_one_line() {
        assert_eq!(name(" Claude on Ana's laptop "), Some("Claude on Ana's laptop"));
        let longest = "ü".repeat(200);
        assert_eq!(name(&longest), Some(longest.as_str()));
        for junk in ["", " ", "a\nb", &format!("{longest}x")] {
            assert_eq!(name(junk), None, "{junk}");
        }
    }

    #[test]
    fn the_alphabet_holds_256_bits() {
        assert_eq!(base62(&[0xff; 32], SECRET_CHARS).len(), 43);
        assert_eq!(base62(&[0; 4], CHECK_CHARS), "000000");
        assert_eq!(base62(&[0xff; 4], CHECK_CHARS), "4gfFC3");
    }

    #[test]
    fn a_token_does_not_print_itself() {
        let token = token(2);
        assert!(!format!("{token:?} {:?}", token.digest()).contains(token.last_four()));
        assert_ne!(token.digest(), self::token(3).digest());
    }
}
