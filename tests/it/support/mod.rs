//! What the tests share.

pub mod app;
pub mod browser;
pub mod database;
pub mod proxy;
mod tests;
