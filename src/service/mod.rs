//! Decisions that two faces share.

pub mod access;
pub mod apply;
pub mod rate_limit;
pub mod usage;
