//! Runs that run: worker, scheduler, connector checks, connectors.

mod convert;
pub mod expression;
mod functions;
pub mod mapping;
mod validate;
