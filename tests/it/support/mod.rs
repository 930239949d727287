//! What the tests share.

pub mod app;
pub mod database;
pub mod proxy;
mod tests;
