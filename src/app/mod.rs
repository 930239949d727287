//! Puts the floors together: state, router, lifecycle.

pub mod lifecycle;
pub mod listen;
