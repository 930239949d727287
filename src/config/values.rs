//! How values are written in the configuration: units in the key, "" for "not set".

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use http::Uri;
use http::uri::Authority;
use ipnet::IpNet;
use secrecy::SecretString;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Seconds, a tenth at least; whole ones or not.
pub(super) fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(from)?;
    let fits = (0.1..=f64::from(u32::MAX)).contains(&seconds);
    let wrong = || D::Error::custom(format!("`{seconds}` is no time of 0.1 seconds or more"));
    fits.then(|| Duration::from_secs_f64(seconds)).ok_or_else(wrong)
}

/// Milliseconds, at least one.
pub(super) fn millis<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    NonZeroU32::deserialize(from).map(|millis| Duration::from_millis(millis.get().into()))
}

/// Days, at least one.
pub(super) fn days<'de, D: Deserializer<'de>>(from: D) -> Result<TimeDelta, D::Error> {
    NonZeroU16::deserialize(from).map(|days| TimeDelta::days(days.get().into()))
}

/// A path, or "" for none.
pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
}

/// A secret, or "" for none.
pub(super) fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
    let text = String::deserialize(from)?;
    Ok(Some(text).filter(|text| !text.is_empty()).map(Into::into))
}

/// An address and port, or "" for none.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = |_| D::Error::custom(format!("`{text}` is not of the form 127.0.0.1:9464"));
    Some(&text).filter(|text| !text.is_empty()).map(|text| text.parse()).transpose().map_err(wrong)
}

/// The address of a site, or "" for none.
pub(super) fn site<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Uri>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || D::Error::custom(format!("`{text}` is not of the form https://mcp.example.com"));
    site_of(&text).map(Some).ok_or_else(wrong)
}

/// Origins of pages, each the address of a site.
pub(super) fn origins<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Uri>, D::Error> {
    let origin = |text: String| {
        let wrong = || D::Error::custom(format!("`{text}` is not of the form https://app.example.com"));
        site_of(&text).ok_or_else(wrong)
    };
    Vec::<String>::deserialize(from)?.into_iter().map(origin).collect()
}

/// `http://` or `https://` and a host, maybe with a port.
fn site_of(text: &str) -> Option<Uri> {
    text.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(is_host)
            && uri.path() == "/"
            && uri.query().is_none()
    })
}

/// Hosts, each with a port or for any.
pub(super) fn hosts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Authority>, D::Error> {
    let host = |text: String| {
        let wrong = || {
            D::Error::custom(format!("`{text}` is not of the form mcp.example.com or mcp.example.com:8443"))
        };
        text.parse::<Authority>().ok().filter(is_host).ok_or_else(wrong)
    };
    Vec::<String>::deserialize(from)?.into_iter().map(host).collect()
}

/// Whether it is a host alone or with a port that is a number: no user, and no pattern, since none would be followed.
fn is_host(authority: &Authority) -> bool {
    let text = authority.as_str();
    !text.contains(['@', '*']) && (authority.port_u16().is_some() || text == authority.host())
}

/// Networks; a single address is the network of itself.
pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: String| {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| text.parse()).map_err(|_| D::Error::custom(format!("`{text}` is no network")))
    };
    Vec::<String>::deserialize(from)?.into_iter().map(network).collect()
}
