//! Decisions that two faces share.
