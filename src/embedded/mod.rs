//! A private PostgreSQL server of our own, started from installed binaries.
