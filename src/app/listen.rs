//! The HTTP listener: many connections, none of which can hold out for ever, and an orderly end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::TaskTracker;
use tower::Service;
use tracing::{debug, warn};

use super::lifecycle::Lifecycle;
use crate::config::ServerConfig;

/// Bytes of a request's head. Ours need 2 KB; cookies and traces of proxies need room too.
const HEAD_BYTES: u32 = 32 * 1024;

/// Requests under way at the same time on one HTTP/2 connection.
const STREAMS: u32 = 100;

/// How often within its time-out a connection is looked at.
const LOOKS: u32 = 4;

/// Why nothing is listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has it.
    #[error("{0} is in use by another program: stop that one, or choose another address with --listen")]
    Busy(SocketAddr),
    /// A privileged port.
    #[error("listening on {0} is not permitted: choose a port from 1024 on with --listen")]
    Forbidden(SocketAddr),
    /// Not an address of this machine.
    #[error("this machine has no address {0}: choose another with --listen")]
    Elsewhere(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, io::Error),
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
    let places = Arc::new(Semaphore::new(config.max_connections.get().min(Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = lifecycle.stopping().cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection =
                    connection(stream, peer, router.clone(), config.header_timeout, lifecycle.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            // The system is short of something, or the peer left again; neither is a reason to spin.
            Err(error) => {
                warn!("cannot accept a connection: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Serves one connection to its end.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    idle_timeout: Duration,
    lifecycle: Lifecycle,
) {
    // An answer is one write; nothing is gained by holding it back.
    let _best_effort = stream.set_nodelay(true);
    let activity = Arc::new(Activity::default());
    let service = {
        let activity = Arc::clone(&activity);
        service_fn(move |request: hyper::Request<Incoming>| {
            let request_under_way = UnderWay::begin(&activity);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = router.clone().call(request);
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Answer { body, _until_sent: request_under_way }))
            }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(HEAD_BYTES as usize);
    builder.http2().max_concurrent_streams(STREAMS).max_header_list_size(HEAD_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut idle = pin!(activity.until_idle_for(idle_timeout));
    let mut draining = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, "a connection broke: {error}");
                }
                return;
            }
            () = lifecycle.stopping().cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = lifecycle.aborting().cancelled() => return,
            () = idle.as_mut() => return,
        }
    }
}

/// How many requests of a connection began and ended.
///
/// The HTTP library has a time-out of its own for headers, which does not begin before it knows the version of
/// HTTP, nor exists for HTTP/2; counting requests covers a peer that says nothing, one that dribbles, and one
/// that stays on, all alike.
#[derive(Debug, Default)]
struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Activity {
    /// Ends once no request was under way for `timeout`, give or take a look.
    async fn until_idle_for(&self, timeout: Duration) {
        let mut looks = interval(timeout / LOOKS);
        // A machine that stood still has not been quiet.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut quiet) = (0, 0);
        while quiet <= LOOKS {
            looks.tick().await;
            let ended = self.ended.load(Ordering::Acquire);
            let begun = self.begun.load(Ordering::Acquire);
            quiet = if begun == ended && begun == seen { quiet + 1 } else { 0 };
            seen = begun;
        }
    }
}

/// Counts a request as under way, from its head on until its answer is sent or given up.
#[derive(Debug)]
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

/// The body of an answer, which keeps its request under way.
#[derive(Debug)]
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
