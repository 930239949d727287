//! Decisions that two faces share.

pub mod access;
pub mod apply;
pub mod people;
pub mod rate_limit;
pub mod trigger;
pub mod turns;
pub mod usage;
pub mod watch;

use tokio_util::sync::CancellationToken;

use crate::domain::page::CursorKey;
use crate::observe::Refusals;
use crate::store::{Store, Wakes};

/// What all calls of a process share.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The database.
    pub store: Store,
    /// Seals cursors.
    pub cursors: CursorKey,
    /// Hears of runs that change.
    pub wakes: Wakes,
    /// Who waits for them.
    pub waits: watch::Waits,
    /// Tells the operator of what is refused.
    pub refusals: Refusals,
    /// Fires when the server stops: waits are answered at once.
    pub stopping: CancellationToken,
    /// Where browsers and clients find this server, without a slash at its end, where somebody said so.
    pub public_base: Option<String>,
    /// The version that it says it has.
    pub version: String,
}
