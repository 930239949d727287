//! The HTTP listener: many connections, none of which can hold out for ever, and an orderly end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::task::TaskTracker;
use tower::Service;
use tracing::{debug, warn};

use super::crowd::{Crowd, Member, Place, Seen};
use super::lifecycle::Lifecycle;
use crate::config::ServerConfig;

/// Bytes of a request's head. Ours need 2 KB; cookies and traces of proxies need room too.
const HEAD_BYTES: u32 = 32 * 1024;

/// Requests under way at the same time on one HTTP/2 connection. One MCP client rarely has more, and waits then; and whoever
/// takes no byte of an answer has so many of them kept.
const STREAMS: u32 = 32;

/// How often within its time-out a connection is looked at.
const LOOKS: u32 = 4;

/// Why nothing is listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has it.
    #[error(
        "{0} is in use by another program: stop that one, or choose another address (server.listen or --listen)"
    )]
    Busy(SocketAddr),
    /// A privileged port.
    #[error(
        "listening on {0} is not permitted: choose a port from 1024 on (server.listen or operator.listen)"
    )]
    Forbidden(SocketAddr),
    /// Not an address of this machine.
    #[error("this machine has no address {0}: choose another (server.listen or operator.listen)")]
    Elsewhere(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, io::Error),
}

/// Takes the operator's address. Where another program has it, any other port of it is taken: a second process on one
/// machine must not fail over it.
///
/// # Errors
/// As for [`bind`].
pub async fn bind_operator(address: SocketAddr) -> Result<TcpListener, ListenError> {
    match bind(address).await {
        Err(ListenError::Busy(_)) => {
            let listener = bind(SocketAddr::new(address.ip(), 0)).await?;
            let found = listener.local_addr().map_err(|error| ListenError::Other(address, error))?;
            warn!(
                "{address} is in use by another program: the operator's address is {found}; see operator.listen"
            );
            Ok(listener)
        }
        bound => bound,
    }
}

/// Takes the address; port 0 takes any free one.
///
/// # Errors
/// One line that says what to do.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::Busy(address),
        io::ErrorKind::PermissionDenied => ListenError::Forbidden(address),
        io::ErrorKind::AddrNotAvailable => ListenError::Elsewhere(address),
        _ => ListenError::Other(address, error),
    })
}

/// Serves until the lifecycle's first stage, then lets requests under way end until its second. Every request
/// carries its peer's address as [`ConnectInfo`].
pub async fn serve(listener: TcpListener, router: Router, config: &ServerConfig, lifecycle: &Lifecycle) {
    let crowd = Crowd::new(config.max_connections.get());
    let connections = TaskTracker::new();
    let stopping = lifecycle.stopping();
    let patience = Patience {
        idle: config.idle_timeout,
        answer: config.idle_timeout + config.body_timeout + config.call_timeout,
    };
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let place = tokio::select! {
                    () = stopping.cancelled() => break,
                    place = crowd.enter() => place,
                };
                let Some(place) = place else { break };
                connections.spawn(connection(
                    stream,
                    peer,
                    router.clone(),
                    place,
                    patience,
                    lifecycle.clone(),
                ));
            }
            // The system is short of something, or the peer left again; neither is a reason to spin.
            Err(error) => {
                warn!("cannot accept a connection: {error}");
                if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE)) {
                    crowd.evict(Instant::now());
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// How long a connection is kept.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Without a request under way.
    idle: Duration,
    /// With the same request under way, whatever others are: longer than any can take whose client reads its answer.
    answer: Duration,
}

/// Serves one connection to its end.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    place: Place,
    patience: Patience,
    lifecycle: Lifecycle,
) {
    // An answer is one write; nothing is gained by holding it back.
    let _best_effort = stream.set_nodelay(true);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (number, known) = place.member.begin();
        let until_sent = UnderWay { member: Arc::clone(&place.member), number };
        let asked = |body| Asked { body, member: Arc::clone(&place.member), number, waits: false };
        let mut request = request.map(|body| Body::new(asked(body)));
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(known);
        let answer = router.clone().call(request);
        async move {
            let answer = answer.await?;
            until_sent.member.answered(number);
            Ok::<_, Infallible>(answer.map(|body| Answer { body, _until_sent: until_sent }))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(HEAD_BYTES as usize);
    builder.http2().max_concurrent_streams(STREAMS).max_header_list_size(HEAD_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // Of their own, so that they are not asked anew for every byte that comes or goes.
    let mut interruptions = FuturesUnordered::new();
    interruptions.push(interrupted(&place, patience, &lifecycle, false));
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, "a connection broke: {error}");
                }
                return;
            }
            Some(interruption) = interruptions.next() => match interruption {
                Interruption::Drain => {
                    connection.as_mut().graceful_shutdown();
                    interruptions.push(interrupted(&place, patience, &lifecycle, true));
                }
                Interruption::End => return,
            },
        }
    }
}

/// What happens to a connection from without.
enum Interruption {
    /// What is under way may end; nothing begins.
    Drain,
    /// It ends at once.
    End,
}

/// Waits until something does; whether it is `draining` already, or not.
async fn interrupted(
    place: &Place,
    patience: Patience,
    lifecycle: &Lifecycle,
    draining: bool,
) -> Interruption {
    tokio::select! {
        () = lifecycle.stopping().cancelled(), if !draining => Interruption::Drain,
        () = place.wanted(), if !draining => {
            if place.member.may_leave(Instant::now()) { Interruption::End } else { Interruption::Drain }
        }
        () = lifecycle.aborting().cancelled() => Interruption::End,
        () = until_lost(&place.member, patience) => Interruption::End,
    }
}

/// Ends once nothing was under way for too long, or the same request was, give or take a look.
///
/// The HTTP library has a time-out of its own for headers, which does not begin before it knows the version of
/// HTTP, nor exists for HTTP/2; watching requests covers a peer that says nothing, one that dribbles, one
/// that stays on, and one that does not take its answer, all alike. Each request has its own time: what else an HTTP/2
/// connection asks meanwhile buys it none.
async fn until_lost(member: &Member, patience: Patience) {
    let mut looks = interval(patience.idle / LOOKS);
    // A machine that stood still has not been quiet.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let look = looks.period();
    loop {
        looks.tick().await;
        let (looks, patience) = match member.look() {
            Seen::Idle(looks) => (looks, patience.idle),
            Seen::Asking(looks) => (looks, patience.answer),
        };
        if look.saturating_mul(looks) > patience {
            return;
        }
    }
}

/// Counts a request as under way, from its head on until its answer is sent or given up.
struct UnderWay {
    member: Arc<Member>,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.member.end(self.number);
    }
}

/// The body of a request, which tells whether it is waited for: from when somebody wants more of it than came until it ends.
struct Asked {
    body: Incoming,
    member: Arc<Member>,
    number: u64,
    waits: bool,
}

impl hyper::body::Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let ended = matches!(frame, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream();
        let waits = !ended && (self.waits || frame.is_pending());
        if waits != self.waits {
            self.waits = waits;
            self.member.waits_for_body(self.number, waits);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, which keeps its request under way.
struct Answer {
    body: Body,
    _until_sent: UnderWay,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
