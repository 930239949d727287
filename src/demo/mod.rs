//! The demo workspaces.
