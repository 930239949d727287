//! The protocol layer, driven through its HTTP router; needs no database.

#![expect(clippy::expect_used, reason = "a test that cannot go on says why")]

mod bad_requests;
mod batches;
mod expected_failures;
mod fixture;
mod headers;
mod negotiation;
mod probe;
mod properties;
mod streams;
mod support;
mod transcripts;
