//! See tests/properties/expression.rs.
#![no_main]

#[path = "../../tests/properties/expression.rs"]
mod expression;

libfuzzer_sys::fuzz_target!(|input: &[u8]| expression::hold(input));
