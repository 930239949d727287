//! What every request passes on its way in and out, whichever face it is for.

mod bearer;
mod headers;
mod panics;
mod peer;
mod refusal;
mod request_id;
mod told;

pub use headers::{Headers, security_headers};
pub use panics::catch_panics;
pub use peer::{Peer, TrustedProxies, find_peer};
pub use refusal::refusal;
pub use request_id::name_request;
pub use told::{Teller, tell};
