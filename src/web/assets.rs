//! The style and the script of the pages, from the program itself.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use sha2::{Digest, Sha256};

use super::trouble::Trouble;
use crate::domain::ids::hex;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/script.js");

/// Part of their address, so that a browser may keep them for good and still never has old ones.
pub(super) fn version() -> &'static str {
    &VERSION
}

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest([STYLE, SCRIPT].concat());
    hex(&digest[..6])
});

pub(super) async fn serve(Path((version, name)): Path<(String, String)>) -> Result<Response, Trouble> {
    let (kind, text) = match name.as_str() {
        "style.css" => ("text/css; charset=utf-8", STYLE),
        "script.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return Err(Trouble::NotFound),
    };
    // One of another version of the program is not kept.
    let keep = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-store" };
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, HeaderValue::from_static(keep))];
    Ok((headers, text).into_response())
}
