//! See tests/properties/records.rs.
#![no_main]

#[path = "../../tests/properties/records.rs"]
mod records;

libfuzzer_sys::fuzz_target!(|input: &[u8]| records::hold(input));
