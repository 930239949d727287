//! The MCP face: eleven tools, one file each.
