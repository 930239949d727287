//! Error classes: a closed list that says whether a retry helps and who can fix it.

words! {
    /// What sort of thing went wrong with a record or a run.
    ErrorClass {
        /// Credentials expired, revoked or wrong.
        Auth = "AUTH",
        /// Authenticated, but not allowed.
        Permission = "PERMISSION",
        /// Throttled by the other system.
        RateLimit = "RATE_LIMIT",
        /// A daily or monthly allowance at the other system is used up.
        Quota = "QUOTA",
        /// DNS, TLS, connect or time-out.
        Connectivity = "CONNECTIVITY",
        /// The other system answers with its own error.
        Unavailable = "UNAVAILABLE",
        /// A required value is missing.
        RequiredField = "REQUIRED_FIELD",
        /// A rule of ours or theirs rejected the value.
        Validation = "VALIDATION",
        /// The value cannot be converted.
        Type = "TYPE",
        /// A transform or filter failed.
        Transform = "TRANSFORM",
        /// A referenced record was not found.
        Reference = "REFERENCE",
        /// A unique key is taken.
        Duplicate = "DUPLICATE",
        /// A lock or a concurrent change.
        Conflict = "CONFLICT",
        /// An unknown object, column or property.
        Schema = "SCHEMA",
        /// The record, field or batch is too large.
        Size = "SIZE",
        /// The flow or a connector is configured wrongly.
        Config = "CONFIG",
        /// An agent step or an MCP tool call failed.
        Agent = "AGENT",
        /// A fault of this server.
        Internal = "INTERNAL",
    }
}

impl ErrorClass {
    /// Whether trying the same again can help.
    pub fn retryable(self) -> bool {
        match self {
            Self::RateLimit
            | Self::Quota
            | Self::Connectivity
            | Self::Unavailable
            | Self::Conflict
            | Self::Internal => true,
            Self::Auth
            | Self::Permission
            | Self::RequiredField
            | Self::Validation
            | Self::Type
            | Self::Transform
            | Self::Reference
            | Self::Duplicate
            | Self::Schema
            | Self::Size
            | Self::Config
            | Self::Agent => false,
        }
    }

    /// Whether one record is to blame, so that the others may go on without it.
    pub fn is_of_a_record(self) -> bool {
        matches!(
            self,
            Self::RequiredField
                | Self::Duplicate
                | Self::Reference
                | Self::Type
                | Self::Validation
                | Self::Size
        )
    }

    /// Whether it says something of the other system as such, which a check of the connector would meet too.
    pub fn is_of_the_connector(self) -> bool {
        matches!(self, Self::Auth | Self::RateLimit | Self::Quota | Self::Connectivity | Self::Unavailable)
    }

    /// One sentence: what to do next.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Auth => "Reconnect the connector.",
            Self::Permission => "Grant the connector's account the missing right at the other system.",
            Self::RateLimit => "Lower the concurrency or the schedule's frequency if it recurs.",
            Self::Quota => "Wait for the allowance to reset, or raise it at the other system.",
            Self::Connectivity => "Check network, DNS and certificates if it recurs.",
            Self::Unavailable => "Look at the other system's status page if it recurs.",
            Self::RequiredField => "Supply a default, or fix the mapping or the source data.",
            Self::Validation => "Correct the source data or the rule that rejects it.",
            Self::Type => "Correct the source data or convert it in the mapping.",
            Self::Transform => "Correct the transform or filter of this field.",
            Self::Reference => "Create the referenced record at the destination, then run again.",
            Self::Duplicate => "The destination already has this record under another key.",
            Self::Conflict => "Run again once the other change is over.",
            Self::Schema => "The object or field does not exist at the other system: correct the flow.",
            Self::Size => "Shorten the value or split the record.",
            Self::Config => "Correct the flow or the connector.",
            Self::Agent => "Look at the agent step's tools and prompt.",
            Self::Internal => "Tell the operator, with the run's id.",
        }
    }
}

words! {
    /// At which step of the way a record was when it failed.
    Stage {
        /// Read from the source.
        Extract = "extract",
        /// Decided whether it is wanted.
        Filter = "filter",
        /// Mapped field by field.
        Transform = "transform",
        /// Checked.
        Validate = "validate",
        /// Written to the destination.
        Load = "load",
        /// Handled by an agent.
        Agent = "agent",
        /// None of these: the run itself.
        Platform = "platform",
    }
}

words! {
    /// Whose side an error comes from.
    Origin {
        /// The source system.
        Source = "source",
        /// The destination system.
        Destination = "destination",
        /// The flow's own mapping.
        Mapping = "mapping",
        /// This server.
        Platform = "platform",
    }
}

impl Stage {
    /// Whose side an error at this stage comes from.
    pub fn origin(self) -> Origin {
        match self {
            Self::Extract => Origin::Source,
            Self::Filter | Self::Transform | Self::Validate | Self::Agent => Origin::Mapping,
            Self::Load => Origin::Destination,
            Self::Platform => Origin::Platform,
        }
    }
}

words! {
    /// What errors are grouped by.
    ErrorGrouping {
        /// The class.
        Class = "class",
        /// The message pattern.
        Group = "group",
        /// The system's own code.
        Code = "code",
        /// The field.
        Field = "field",
    }
}
