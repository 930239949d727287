//! Tests against a real PostgreSQL, which they start themselves.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod apply;
mod catalog;
mod demo;
mod embedded;
mod floors;
mod lab;
mod listen;
mod statements;
mod support;
mod tools;
