//! Puts the floors together: which database, what is served, how a process runs and ends.

mod crowd;
pub mod database;
mod engine;
pub mod lifecycle;
pub mod listen;
mod operator;
pub mod process;
mod room;
mod router;
mod state;
