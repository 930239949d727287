//! Runs that run: worker, scheduler, connector checks, connectors.
