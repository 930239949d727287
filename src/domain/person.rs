//! People: who they are, and what each may do in a workspace.

use super::scope::{Scope, Scopes};

words! {
    /// What a person may do in a workspace.
    Role {
        /// Everything.
        Owner = "owner",
        /// Everything on the pages, as an owner; only a workspace's owners cannot all leave it.
        Admin = "admin",
        /// Run, cancel and pause; see payloads.
        Operator = "operator",
        /// Look.
        Viewer = "viewer",
    }
}

impl Role {
    /// What a person of this role may have tools do.
    pub fn scopes(self) -> Scopes {
        match self {
            Self::Owner | Self::Admin | Self::Operator => Scopes::all(),
            Self::Viewer => Scopes::all().without(&[Scope::PayloadsRead, Scope::SyncTrigger]),
        }
    }

    /// Whether tokens are theirs to make and revoke.
    pub fn manages_tokens(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }

    /// Whether flows are theirs to pause and resume, and runs to cancel.
    pub fn operates(self) -> bool {
        self != Self::Viewer
    }
}

/// An e-mail address: by which a person is known, whatever case it is typed in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// Reads an address; `None` when it cannot be one. Whether anybody reads it is another question.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        let (who, host) = text.rsplit_once('@')?;
        let plain = !text.contains(|c: char| c.is_whitespace() || c.is_control()) && text.len() <= 254;
        (plain && !who.is_empty() && host.contains('.') && !host.starts_with('.') && !host.ends_with('.'))
            .then_some(Self(text))
    }

    /// The address, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_in_any_case() {
        assert_eq!(Email::parse(" Ana@Example.com ").unwrap().as_str(), "ana@example.com");
        for bad in
            ["", "ana", "@example.com", "ana@", "ana@localhost", "a na@example.com", "ana@.com", "ana@com."]
        {
            assert_eq!(Email::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_only_looks_starts_nothing() {
        assert!(
            !Role::Viewer.scopes().has(Scope::SyncTrigger) && !Role::Viewer.scopes().has(Scope::PayloadsRead)
        );
        assert!(
            Role::Viewer.scopes().has(Scope::RunsRead) && Role::Operator.scopes().has(Scope::SyncTrigger)
        );
        assert!(!Role::Operator.manages_tokens() && !Role::Viewer.operates());
    }
}
