//! The protocol layer, driven through its HTTP router; needs no database.

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
