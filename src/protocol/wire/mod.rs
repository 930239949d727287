//! The words of each era.
