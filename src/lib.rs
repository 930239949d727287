//! apixx-mcp: a multi-tenant remote MCP server for integration-platform workspaces.
//!
//! Floors, from the ground up; an arrow between modules goes down or is wrong
//! (`tests/it/floors.rs` reads the code and checks it):
//!
//! * [`domain`]: what the words mean; no I/O, no async.
//! * [`protocol`]: the Model Context Protocol over HTTP, free of the product (a pillar beside the floors).
//! * [`store`]: PostgreSQL, the only place where SQL of ours stands; [`embedded`] starts a private one.
//! * [`service`]: decisions two faces share: who is calling, limits, triggering a run.
//! * [`engine`]: runs that run: worker, scheduler, connector checks, connectors.
//! * [`view`], [`middleware`], [`tools`], [`cli`]: the faces.
//! * [`app`]: puts the floors together; [`demo`]: the demo workspaces.
//! * [`config`], [`observe`]: drains that anyone may use.

pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod domain;
pub mod embedded;
pub mod engine;
pub mod middleware;
pub mod observe;
pub mod protocol;
pub mod service;
pub mod store;
pub mod tools;
pub mod view;
pub mod web;
