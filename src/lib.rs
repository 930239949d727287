//! apixx-mcp: a multi-tenant remote MCP server for integration-platform workspaces.
//!
//! Floors, from the ground up; an arrow between modules goes down or is wrong
//! (`tests/it/floors.rs` reads the code and checks it):
//!
//! * [`domain`]: what the words mean; no I/O, no async.
//! * [`protocol`]: the Model Context Protocol over HTTP, free of the product (a pillar beside the floors).
//! * [`store`]: PostgreSQL, the only place where SQL of ours stands; [`embedded`] starts a private one.
//! * [`engine`]: runs that run: worker, scheduler, connector checks, connectors.
//! * [`service`]: decisions two faces share: who is calling, limits, triggering a run, applying a file.
//! * [`view`]: what is shown of things; [`middleware`]: what stands between the socket and the faces.
//! * [`tools`], [`web`]: the faces, for models and for people; [`demo`]: the demo workspaces.
//! * [`app`]: puts the floors together; [`cli`]: the command line.
//! * [`config`], [`observe`]: drains that anyone above the store may use; [`json`]: one that anyone may.

pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod domain;
pub mod embedded;
pub mod engine;
pub mod json;
pub mod middleware;
pub mod observe;
pub mod protocol;
pub mod service;
pub mod store;
pub mod tools;
pub mod view;
pub mod web;
