//! Which calls are under way, so that they can be cancelled.
