//! Decisions that two faces share.

pub mod apply;
