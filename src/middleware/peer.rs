//! The address a request came from, behind any number of proxies.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{ConnectInfo, Request};
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses that the operator is told of as not believed. More are strangers, not proxies.
const TOLD: usize = 5;

/// The proxies whose word on where a request came from is believed.
#[derive(Clone, Debug)]
pub struct TrustedProxies {
    networks: Arc<[IpNet]>,
    /// Whose word was not believed, as far as it was told.
    told: Arc<Mutex<Vec<IpAddr>>>,
}

/// The address a request came from, as far as anybody trustworthy knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl TrustedProxies {
    /// Proxies in these networks.
    pub fn new(networks: &[IpNet]) -> Self {
        Self { networks: networks.into(), told: Arc::default() }
    }

    fn trust(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Who is behind `nearest`: each hop of `X-Forwarded-For` was written by the one after it, so the list is
    /// believed from its end on, for as long as its writers are trusted.
    fn behind(&self, nearest: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut peer = nearest.to_canonical();
        if !self.trust(peer) {
            return peer;
        }
        let lines: Vec<&str> =
            headers.get_all(FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or("")).collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            if !self.trust(peer) {
                break;
            }
            let Some(address) = address(hop.trim()) else { break };
            peer = address;
        }
        peer
    }

    /// Tells the operator, once of each address, that somebody says where a request came from and is not believed: a stranger
    /// perhaps, but perhaps a proxy.
    fn tell_unheard(&self, nearest: IpAddr, headers: &HeaderMap) {
        if headers.contains_key(FORWARDED_FOR) && !self.trust(nearest) && self.is_news(nearest) {
            tracing::warn!(
                "{nearest} sends X-Forwarded-For and is not believed: only if you run it as a proxy that writes the \
                 header itself, name it in server.trusted_proxies; until then all who come through it count as one"
            );
        }
    }

    /// Whether the operator was not told of this address yet, nor of enough others.
    fn is_news(&self, address: IpAddr) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told.len() < TOLD && !told.contains(&address);
        if is_news {
            told.push(address);
        }
        is_news
    }

    /// Notes the [`Peer`] of the request among its extensions.
    pub(super) fn note(&self, request: &mut Request) -> Option<Peer> {
        let ConnectInfo(nearest) = *request.extensions().get::<ConnectInfo<SocketAddr>>()?;
        self.tell_unheard(nearest.ip().to_canonical(), request.headers());
        let peer = Peer(self.behind(nearest.ip(), request.headers()));
        request.extensions_mut().insert(peer);
        Some(peer)
    }
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    bare.parse::<IpAddr>().or_else(|_| with_port()).ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_a_few_addresses_is_told_once() {
        let proxies = TrustedProxies::new(&[]);
        let told = |last: u8| proxies.is_news(IpAddr::from([203, 0, 113, last]));
        assert!(told(1) && told(2) && !told(1));
        assert_eq!((3..=99).filter(|last| told(*last)).count(), TOLD - 2);
    }

    #[test]
    fn the_nearest_untrusted_hop_is_the_peer() {
        let trusted = TrustedProxies::new(&["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let table: &[(&str, &[&str], &str)] = &[
            ("203.0.113.9", &[], "203.0.113.9"),
            ("203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1, 10.9.9.9"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1", "10.9.9.9"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1,"], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("fd00::1", &["198.51.100.1"], "198.51.100.1"),
        ];
        for (nearest, lines, peer) in table {
            let mut headers = HeaderMap::new();
            for line in *lines {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            let found = trusted.behind(nearest.parse().unwrap(), &headers);
            assert_eq!(found, peer.parse::<IpAddr>().unwrap(), "{nearest} {lines:?}");
        }
    }
}
