//! What must hold of every input, whoever made it: one function a subject, over plain bytes. The tests put the corpora of
//! `tests/corpora` and mutations of them through these functions, and the targets of `fuzz` whatever they come upon.

pub mod arguments;
pub mod expression;
pub mod message;
pub mod records;
pub mod words;
