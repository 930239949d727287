//! The protocol layer, driven through its HTTP router, and every other reader of what strangers write; needs no database.

#![expect(clippy::expect_used, reason = "a test that cannot go on says why")]

mod arguments;
mod bad_requests;
mod batches;
mod corpora;
mod expected_failures;
mod fixture;
mod headers;
#[path = "../properties/mod.rs"]
mod held;
mod negotiation;
mod probe;
mod properties;
mod streams;
mod support;
mod transcripts;
mod unread_bodies;
