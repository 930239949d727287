//! Decisions that two faces share.

pub mod access;
pub mod rate_limit;
pub mod usage;
