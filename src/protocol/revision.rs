//! Which revision of the specification a message is in, and which era that revision belongs to.

use std::fmt;

/// A revision of the specification, named by its date. Older is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// 2025-03-26: the first with Streamable HTTP; the only one with batches.
    V2025_03_26,
    /// 2025-06-18: `structuredContent`, `outputSchema`, `title`; no more batches.
    V2025_06_18,
    /// 2025-11-25: invalid arguments are the tool's answer, not a protocol error.
    V2025_11_25,
    /// 2026-07-28: stateless; every request carries its own `_meta`.
    V2026_07_28,
}

/// How a client speaks: after a handshake, or with everything in each request
/// (specification 2026-07-28, basic/versioning).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// `initialize` first: every revision up to 2025-11-25.
    Legacy,
    /// `server/discover` and per-request `_meta`: 2026-07-28 and later.
    Modern,
}

impl Revision {
    /// What is assumed of a request that names none (2025-11-25, basic/transports, "Protocol Version Header").
    pub const ASSUMED: Self = Self::V2025_03_26;
    /// What `initialize` offers to a client that asks for a revision we do not speak.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;
    /// The revision of the modern era.
    pub const MODERN: Self = Self::V2026_07_28;

    const ALL: [Self; 4] = [Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];

    /// The revision of that date, if we speak it.
    pub fn named(date: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.date() == date)
    }

    /// The date that names it on the wire.
    pub fn date(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era it belongs to.
    pub fn era(self) -> Era {
        if self < Self::MODERN { Era::Legacy } else { Era::Modern }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.date())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_found_by_its_date_and_by_nothing_else() {
        for revision in Revision::ALL {
            assert_eq!(Revision::named(revision.date()), Some(revision));
        }
        assert_eq!(Revision::named("2024-11-05"), None);
        assert_eq!(Revision::named(" 2025-11-25"), None);
    }

    #[test]
    fn the_modern_era_begins_with_2026_07_28() {
        assert_eq!(Revision::NEWEST_LEGACY.era(), Era::Legacy);
        assert_eq!(Revision::MODERN.era(), Era::Modern);
    }
}
