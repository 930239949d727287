//! The load: a number of connections, each of which sends its next request when the last one is answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Before each measurement: connections are made and plans are in place.
const WARM_UP: Duration = Duration::from_millis(100);

/// Requests to one server, sent in turn.
#[derive(Clone)]
pub struct Requests {
    pub address: SocketAddr,
    pub path: &'static str,
    /// Header and value of the token, where one is wanted, and the body.
    pub all: Vec<(Option<String>, Bytes)>,
    /// Bytes that an answer has at least: a refusal, which may be a success of HTTP, has fewer.
    pub least: usize,
}

/// What was seen in a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub answers: f64,
    /// A second.
    pub rate: f64,
    /// Microseconds.
    pub p50: f64,
    pub p99: f64,
}

impl Requests {
    fn request(&self, which: usize) -> Request<Full<Bytes>> {
        let (token, body) = &self.all[which % self.all.len()];
        let mut request = Request::post(self.path)
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        request.body(Full::new(body.clone())).expect("a request")
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.expect("the server takes connections");
        stream.set_nodelay(true).expect("no delay");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        sender
    }

    /// The body of one answer.
    ///
    /// # Panics
    /// When it is no success.
    pub async fn one(&self, which: usize) -> Bytes {
        self.ask(&mut self.connect().await, which).await
    }

    /// The bodies of all answers, one request after the other.
    ///
    /// # Panics
    /// When one is no success.
    pub async fn each(&self) -> Vec<Bytes> {
        let mut sender = self.connect().await;
        let mut bodies = Vec::new();
        for which in 0..self.all.len() {
            sender.ready().await.expect("the connection lives");
            bodies.push(self.ask(&mut sender, which).await);
        }
        bodies
    }

    async fn ask(&self, sender: &mut SendRequest<Full<Bytes>>, which: usize) -> Bytes {
        let response = sender.send_request(self.request(which)).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
        assert_eq!(status, 200, "{}: {}", self.path, String::from_utf8_lossy(&body));
        body
    }

    /// Sends for `time` on `connections`; `edge` is called when the measurement begins and ends.
    pub async fn drive(&self, connections: usize, time: Duration, mut edge: impl FnMut()) -> Seen {
        let begin = Instant::now() + WARM_UP;
        let end = begin + time;
        let workers = (0..connections).map(|worker| {
            let requests = self.clone();
            tokio::spawn(async move {
                let mut sender = requests.connect().await;
                let mut times = Vec::new();
                for round in 0.. {
                    let sent = Instant::now();
                    if sent >= end {
                        break;
                    }
                    sender.ready().await.expect("the connection lives");
                    let request = requests.request(worker * 7 + round);
                    let response = sender.send_request(request).await.expect("an answer");
                    assert_eq!(response.status(), 200, "{}", requests.path);
                    let (mut body, mut bytes) = (response.into_body(), 0);
                    while let Some(frame) = body.frame().await {
                        bytes += frame.expect("a whole answer").data_ref().map_or(0, Bytes::len);
                    }
                    assert!(bytes >= requests.least, "{}: an answer of {bytes} bytes", requests.path);
                    let answered = Instant::now();
                    if answered >= begin && answered < end {
                        times.push((answered - sent).as_secs_f64() * 1e6);
                    }
                }
                times
            })
        });
        let workers: Vec<_> = workers.collect();
        tokio::time::sleep_until(begin.into()).await;
        edge();
        tokio::time::sleep_until(end.into()).await;
        edge();
        let mut times = Vec::new();
        for worker in workers {
            times.append(&mut worker.await.expect("a worker"));
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
        Seen {
            answers: times.len() as f64,
            rate: times.len() as f64 / time.as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
        }
    }
}
