//! SDKs.
use super::data::Data;
use super::servers::Server;
use std::path::Path;
pub struct Sdk {
    pub name: &'static str,
    pub server: Server,
}
pub async fn start(_scratch: &Path, _data: &Data, _listing: &Path) -> Vec<Sdk> {
    vec![]
}
