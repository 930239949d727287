//! Configuration: one documented default file, overridden by file, environment and flags.
