//! Tests against a real PostgreSQL, which they start themselves.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod apply;
mod embedded;
mod engine;
mod listen;
mod support;
mod catalog;
mod floors;
mod statements;
