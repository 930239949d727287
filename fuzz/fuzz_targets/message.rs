//! See tests/properties/message.rs.
#![no_main]
#![allow(dead_code, reason = "the tests' support can do more")]

#[path = "../../tests/protocol/fixture.rs"]
mod fixture;
#[path = "../../tests/properties/message.rs"]
mod message;
#[path = "../../tests/protocol/probe.rs"]
mod probe;
#[path = "../../tests/protocol/support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|input: &[u8]| message::hold(input));
