//! How values are written in the configuration: units in the key, "" for "not set", secrets never shown.

/// Seconds, a tenth at least; whole ones or not.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        let fits = (0.1..=f64::from(u32::MAX)).contains(&seconds);
        let wrong = || D::Error::custom(format!("`{seconds}` is no time of 0.1 seconds or more"));
        fits.then(|| Duration::from_secs_f64(seconds)).ok_or_else(wrong)
    }

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        if value.subsec_nanos() == 0 {
            to.serialize_u64(value.as_secs())
        } else {
            to.serialize_f64(value.as_secs_f64())
        }
    }
}

/// Milliseconds, at least one.
pub(super) mod millis {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        NonZeroU32::deserialize(from).map(|millis| Duration::from_millis(millis.get().into()))
    }

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(value.as_millis()).unwrap_or(u64::MAX).serialize(to)
    }
}

/// Days, at least one.
pub(super) mod days {
    use std::num::NonZeroU16;

    use chrono::TimeDelta;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TimeDelta, D::Error> {
        NonZeroU16::deserialize(from).map(|days| TimeDelta::days(days.get().into()))
    }

    pub(crate) fn serialize<S: Serializer>(value: &TimeDelta, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(value.num_days())
    }
}

/// A path, or "" for none.
pub(super) mod path {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        let path = PathBuf::deserialize(from)?;
        Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
    }

    pub(crate) fn serialize<S: Serializer>(value: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.as_ref().map(|path| path.to_string_lossy()).unwrap_or_default())
    }
}

/// A secret, or "" for none; printed as `***`.
pub(super) mod secret {
    use secrecy::SecretString;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
        let text = String::deserialize(from)?;
        Ok(Some(text).filter(|text| !text.is_empty()).map(Into::into))
    }

    pub(crate) fn serialize<S: Serializer>(value: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(if value.is_some() { "***" } else { "" })
    }
}

/// An address and port, or "" for none.
pub(super) mod address {
    use std::net::SocketAddr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = |_| D::Error::custom(format!("`{text}` is not of the form 127.0.0.1:9464"));
        Some(&text).filter(|text| !text.is_empty()).map(|text| text.parse()).transpose().map_err(wrong)
    }

    pub(crate) fn serialize<S: Serializer>(value: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.as_ref().map(SocketAddr::to_string).unwrap_or_default())
    }
}

/// The address of a site, `http://` or `https://` and a host, or "" for none.
pub(super) mod site {
    use http::Uri;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Uri>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        let uri = text.parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.path() == "/" && uri.query().is_none()
        });
        let wrong = || D::Error::custom(format!("`{text}` is not of the form https://mcp.example.com"));
        uri.map(Some).ok_or_else(wrong)
    }

    pub(crate) fn serialize<S: Serializer>(value: &Option<Uri>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.as_ref().map(Uri::to_string).unwrap_or_default())
    }
}

/// Networks; a single address is the network of itself.
pub(super) mod networks {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
        let network = |text: String| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| text.parse()).map_err(|_| D::Error::custom(format!("`{text}` is no network")))
        };
        Vec::<String>::deserialize(from)?.into_iter().map(network).collect()
    }

    pub(crate) fn serialize<S: Serializer>(value: &[IpNet], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(IpNet::to_string))
    }
}
