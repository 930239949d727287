//! See tests/properties/arguments.rs.
#![no_main]

#[path = "../../tests/properties/arguments.rs"]
mod arguments;

libfuzzer_sys::fuzz_target!(|input: &[u8]| arguments::hold(input));
