//! What the words mean: ids, states, rules. No I/O, no async.

pub mod clock;
