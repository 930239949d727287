//! Tests against a real PostgreSQL, which they start themselves.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod access;
mod apply;
mod canaries;
mod catalog;
mod cli;
mod clients;
mod demo;
mod embedded;
mod engine;
mod floors;
mod hostile;
mod http;
mod isolation;
mod lab;
mod limits;
mod listen;
mod operating;
mod readme;
mod refusals;
mod round_trips;
mod sizes;
mod statements;
mod strangers;
mod support;
mod tools;
mod web;
