//! Puts the floors together: which database, what is served, how a process runs and ends.

pub mod database;
mod crowd;
mod engine;
pub mod lifecycle;
pub mod listen;
mod operator;
pub mod process;
mod router;
mod state;
