//! Outside shapes, shared by all faces.
