//! Scopes: the rights that a token carries.

words! {
    /// A right that a token carries.
    Scope {
        /// List and read flows and their mappings.
        FlowsRead = "flows:read",
        /// List and read runs and their errors.
        RunsRead = "runs:read",
        /// See redacted payload excerpts in the errors of a run.
        PayloadsRead = "payloads:read",
        /// List connectors with their health.
        ConnectorsRead = "connectors:read",
        /// Read the health of the workspace.
        HealthRead = "health:read",
        /// Start a run.
        SyncTrigger = "sync:trigger",
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// What a token carries unless told otherwise: all six.
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Whether the set holds `scope`.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// The set without some.
    pub fn without(self, some: &[Scope]) -> Self {
        self.iter().filter(|scope| !some.contains(scope)).collect()
    }

    /// What is in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The scopes in their own order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.has(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | 1 << scope as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let scopes: Scopes = [Scope::RunsRead, Scope::SyncTrigger].into_iter().collect();
        assert!(scopes.has(Scope::RunsRead) && !scopes.has(Scope::FlowsRead));
        assert_eq!(scopes.iter().collect::<Vec<_>>(), [Scope::RunsRead, Scope::SyncTrigger]);
        assert_eq!(Scopes::all().iter().count(), 6);
    }
}
