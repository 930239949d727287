//! Which era answers a message: decided once.
