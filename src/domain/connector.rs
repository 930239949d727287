//! Connectors: the systems that flows read and write.

words! {
    /// What sort of system it is.
    ConnectorType {
        /// An HTTP API.
        Rest = "REST",
        /// A relational database.
        SqlDb = "SQL_DB",
        /// A document or key-value store.
        NosqlDb = "NOSQL_DB",
        /// A remote MCP server.
        Mcp = "MCP",
        /// Files in a directory.
        File = "FILE",
        /// Anything else.
        Custom = "CUSTOM",
    }
}

words! {
    /// Which code of ours speaks to it.
    ConnectorKind {
        /// Files in a directory that the operator named.
        Files = "files",
        /// A PostgreSQL database that the operator named.
        Postgres = "postgres",
        /// A scripted system, for the demo and for tests.
        Sim = "sim",
    }
}

words! {
    /// How we authorise ourselves to it.
    AuthType {
        /// Not at all.
        NoAuth = "NO_AUTH",
        /// OAuth 2.0 client credentials.
        ServiceAccount = "SERVICE_ACCOUNT",
        /// OAuth 2.0 in a person's name.
        Oauth2 = "OAUTH2",
        /// A key in a header.
        ApiKey = "API_KEY",
        /// User name and password.
        Basic = "BASIC",
        /// A bearer token.
        Bearer = "BEARER",
    }
}

words! {
    /// What is known of the authorization.
    AuthStatus {
        /// Accepted when last checked.
        Valid = "valid",
        /// Expires within 72 hours and needs a person to renew.
        ExpiringSoon = "expiring_soon",
        /// Past its expiry.
        Expired = "expired",
        /// Withdrawn at the other side.
        Revoked = "revoked",
        /// Refused otherwise.
        Invalid = "invalid",
        /// No secret is stored.
        Missing = "missing",
        /// The system asks for none.
        NotRequired = "not_required",
        /// Never checked.
        Unknown = "unknown",
    }
}

impl AuthStatus {
    /// Whether a run would be refused by the other system.
    pub fn is_broken(self) -> bool {
        matches!(self, Self::Expired | Self::Revoked | Self::Invalid | Self::Missing)
    }
}

words! {
    /// The observed health of a connector.
    ConnectorStatus {
        /// Nothing to say.
        Healthy = "healthy",
        /// Works, with trouble.
        Degraded = "degraded",
        /// A run through it cannot succeed.
        Down = "down",
        /// Not checked, or not lately.
        Unknown = "unknown",
        /// Switched off by a person.
        Disabled = "disabled",
    }
}
