//! What the tests share.

pub mod app;
pub mod browser;
pub mod database;
pub mod log;
pub mod proxy;
mod tests;
