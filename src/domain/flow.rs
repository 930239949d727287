//! Flows: a configured movement of data, its state and its computed health.

use serde::{Deserialize, Serialize};

words! {
    /// What people decided about a flow.
    FlowState {
        /// Not ready to run.
        Draft = "draft",
        /// Runs when due or triggered.
        Active = "active",
        /// Stopped by a person until resumed.
        Paused = "paused",
        /// Kept for its history only.
        Archived = "archived",
    }
}

words! {
    /// What its runs and connectors say about an active flow.
    Health {
        /// The last run failed, it cannot run, or it does not run.
        Failing = "failing",
        /// It works, with trouble.
        Degraded = "degraded",
        /// It has not run yet.
        Pending = "pending",
        /// Nothing to say.
        Healthy = "healthy",
    }
}

words! {
    /// The one word shown for a flow: its state unless active, else its health.
    FlowStatus {
        /// See [`Health::Failing`].
        Failing = "failing",
        /// See [`Health::Degraded`].
        Degraded = "degraded",
        /// See [`Health::Pending`].
        Pending = "pending",
        /// See [`Health::Healthy`].
        Healthy = "healthy",
        /// See [`FlowState::Paused`].
        Paused = "paused",
        /// See [`FlowState::Draft`].
        Draft = "draft",
        /// See [`FlowState::Archived`].
        Archived = "archived",
    }
}

impl FlowStatus {
    /// The word shown for a flow in `state` with `health`.
    pub fn of(state: FlowState, health: Health) -> Self {
        match (state, health) {
            (FlowState::Draft, _) => Self::Draft,
            (FlowState::Paused, _) => Self::Paused,
            (FlowState::Archived, _) => Self::Archived,
            (FlowState::Active, Health::Failing) => Self::Failing,
            (FlowState::Active, Health::Degraded) => Self::Degraded,
            (FlowState::Active, Health::Pending) => Self::Pending,
            (FlowState::Active, Health::Healthy) => Self::Healthy,
        }
    }
}

/// Why a flow or connector is not healthy. A status is never shown without its reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StatusReason {
    /// Stable code, e.g. `LAST_RUN_FAILED`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// Since when, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<chrono::DateTime<chrono::Utc>>,
}

impl StatusReason {
    /// A reason that began at `since`.
    pub fn new(code: &str, message: impl Into<String>, since: Option<chrono::DateTime<chrono::Utc>>) -> Self {
        Self { code: code.to_owned(), message: message.into(), since }
    }
}
