//! What stands between the socket and the faces: recognition, limits, request ids.
