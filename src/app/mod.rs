//! Puts the floors together: state, router, lifecycle.
