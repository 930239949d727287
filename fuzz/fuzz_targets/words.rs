//! See tests/properties/words.rs.
#![no_main]

#[path = "../../tests/properties/words.rs"]
mod words;

libfuzzer_sys::fuzz_target!(|input: &[u8]| words::hold(input));
