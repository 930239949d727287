//! A request and the product become an answer.
