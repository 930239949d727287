//! Ids: `<prefix>_` and 26 base32 characters of a UUIDv7 (the TypeID form), kept as text.
//!
//! Text, because ids of other platforms are legal too (`run_abc123`). An id is only a name inside a
//! customer: it never says whose the row is.

use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::clock::Clock;

/// The text is not an id of the kind asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a `{prefix}_…` id")]
pub struct NotAnId {
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// What ids of this kind begin with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id, later in text order than all that `ids` made before it in earlier milliseconds.
            pub fn new(ids: &IdSource) -> Self {
                Self(format!("{}_{}", $prefix, ids.next_text()).into())
            }

            /// Reads an id as people and models write it: trimmed, without quotes around it.
            ///
            /// # Errors
            /// When the text does not begin with the prefix, or holds a character no id has.
            pub fn parse(text: &str) -> Result<Self, NotAnId> {
                parse_id($prefix, text).map(Self).ok_or(NotAnId { prefix: $prefix })
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(/** A customer: the tenant. */ CustomerId, "cus");
id!(/** A person of a customer. */ UserId, "usr");
id!(/** An MCP token (never its secret). */ TokenId, "mtk");
id!(/** A connected system. */ ConnectorId, "con");
id!(/** A configured movement of data. */ FlowId, "flow");
id!(/** One execution of a flow. */ RunId, "run");
id!(/** One rejected record of a run. */ ErrorId, "err");
id!(/** One kind of error of a flow. */ ErrorGroupId, "eg");
id!(/** One entry of the audit log. */ AuditId, "aud");

/// Longest id text that is read, prefix included (a foreign id may be longer than ours).
pub const MAX_ID_CHARS: usize = 64;

fn parse_id(prefix: &str, text: &str) -> Option<Arc<str>> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'));
    let rest = text.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix))?;
    let rest = text[rest.len()..].strip_prefix('_')?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if rest.len() < 3 || text.len() > MAX_ID_CHARS || !rest.bytes().all(legal) {
        return None;
    }
    // Ours are lower case; those of others mean what they are spelt.
    let capitals = rest.len() == 26
        && rest.bytes().any(|byte| byte.is_ascii_uppercase())
        && rest.bytes().all(|byte| BASE32.contains(&byte.to_ascii_lowercase()));
    if !capitals && text.starts_with(prefix) {
        return Some(text.into());
    }
    let rest = if capitals { rest.to_ascii_lowercase() } else { rest.to_owned() };
    Some(format!("{prefix}_{rest}").into())
}

/// Where new ids and other randomness come from. Cheap to clone; clones share their state.
#[derive(Clone, Debug)]
pub struct IdSource {
    clock: Clock,
    rng: Arc<Mutex<StdRng>>,
}

impl IdSource {
    /// Ids nobody can guess, stamped with the time of `clock`.
    pub fn random(clock: Clock) -> Self {
        Self { clock, rng: Arc::new(Mutex::new(rand::make_rng())) }
    }

    /// The same ids each time, for tests and the demo data.
    pub fn seeded(clock: Clock, seed: u64) -> Self {
        Self { clock, rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))) }
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&self, bytes: &mut [u8]) {
        let mut rng = self.rng.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rng.fill_bytes(bytes);
    }

    /// A random number in `0..1`, for jitter.
    pub fn fraction(&self) -> f64 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }

    /// Eight hexadecimal digits, to tell processes apart.
    pub fn process_name(&self) -> String {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        hex(&bytes)
    }

    fn next_text(&self) -> String {
        let mut random = [0; 10];
        self.fill(&mut random);
        let millis = u64::try_from(self.clock.now().timestamp_millis()).unwrap_or(0);
        base32(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().as_u128())
    }
}

/// Bytes in hexadecimal digits, lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digits of Crockford's base32, in lower case.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Crockford's base32 in lower case, 26 characters, as the TypeID specification writes a UUID
/// (<https://github.com/jetify-com/typeid/tree/main/spec>).
fn base32(value: u128) -> String {
    (0..26).rev().map(|place| char::from(BASE32[(value >> (place * 5)) as usize & 31])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> IdSource {
        IdSource::seeded(Clock::fixed(chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap()), 7)
    }

    #[test]
    fn an_id_says_its_kind_and_sorts_by_time() {
        let source = ids();
        let first = RunId::new(&source);
        source.clock.advance(chrono::TimeDelta::milliseconds(1));
        let second = RunId::new(&source);
        assert!(first < second);
        assert_eq!(first.as_str().len(), 30);
        assert_eq!(RunId::parse(first.as_str()), Ok(first.clone()));
        assert!(FlowId::parse(first.as_str()).is_err());
    }

    #[test]
    fn ids_are_read_as_models_write_them() {
        assert_eq!(RunId::parse(" `run_abc123` ").unwrap().as_str(), "run_abc123");
        assert_eq!(RunId::parse("RUN_abc123").unwrap().as_str(), "run_abc123");
        assert_eq!(RunId::parse("RUN_Abc123").unwrap().as_str(), "run_Abc123", "not ours");
        let ours = RunId::new(&ids());
        assert_eq!(RunId::parse(&ours.as_str().to_uppercase()), Ok(ours));
        for bad in
            ["run_", "run_a b", "abc123", "run-abc", "run_ab;c", &format!("run_{}", "a".repeat(80)), "ru"]
        {
            assert!(RunId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base32_is_that_of_typeid() {
        assert_eq!(base32(0), "0".repeat(26));
        assert_eq!(base32(u128::MAX), format!("7{}", "z".repeat(25)));
        let uuid = uuid::Uuid::parse_str("01890a5d-ac96-774b-bcce-b302099a8057").unwrap();
        assert_eq!(base32(uuid.as_u128()), "01h455vb4pex5vsknk084sn02q");
    }
}
