//! PostgreSQL: the only place where SQL of ours stands.

pub mod cluster;
