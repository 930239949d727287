//! Outside shapes, shared by all faces, and the text that people and models read.

pub mod clients;
pub mod connector;
pub mod error;
pub mod flow;
pub mod moment;
pub mod run;
pub mod text;
pub mod window;
