//! The HTTP listener: slow and idle peers, and an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apixx_mcp::app::lifecycle::Lifecycle;
use apixx_mcp::app::listen::{ListenError, bind, serve};
use apixx_mcp::config::{Config, ServerConfig, Sources};
use apixx_mcp::middleware::Known;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(86_400);
const SHORT: Duration = Duration::from_millis(40);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn config(idle_timeout: Duration) -> ServerConfig {
    let environment = vec![("HOME".to_owned(), "/home/ana".to_owned())];
    let sources = Sources { environment, ..Sources::default() };
    ServerConfig { idle_timeout, ..Config::load(&sources).unwrap().server }
}

/// The head of a form that is not sent.
const FORM: &[u8] = b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n";

/// A listener, with what ends it and what waits for that end.
struct Running {
    address: SocketAddr,
    lifecycle: Lifecycle,
    served: JoinHandle<()>,
}

impl Running {
    async fn start(router: Router, config: ServerConfig, grace: Duration) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let lifecycle = Lifecycle::new(grace);
        let served = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { serve(listener, router, &config, &lifecycle).await }
        });
        Self { address, lifecycle, served }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn end(self) {
        self.lifecycle.stop();
        self.served.await.unwrap();
    }
}

/// Answers with the caller's address.
fn echo() -> Router {
    Router::new()
        .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
}

/// Recognises whoever asks for `/`, waits for a body at `/form`, and comes to no end at `/endless`.
fn recognising() -> Router {
    let known = |request: Request| async move { Known::note(request.extensions()) };
    let open = Router::new().route("/form", post(|_: Bytes| async {})).route("/open", get(|| async {}));
    open.route("/", get(known)).route("/endless", get(endless))
}

async fn endless() -> Body {
    let chunk = || Ok::<_, std::convert::Infallible>(Bytes::from(vec![b'x'; 1 << 20]));
    Body::from_stream(futures_util::stream::repeat_with(chunk))
}

/// Answers who is known to it, which everybody is, once told to.
fn patient(told: Arc<Notify>, asked: Arc<Notify>) -> Router {
    let handler = move |request: Request| {
        Known::note(request.extensions());
        let (told, asked) = (Arc::clone(&told), Arc::clone(&asked));
        async move {
            asked.notify_one();
            told.notified().await;
            "at last"
        }
    };
    Router::new().route("/", get(handler))
}

/// The text of one answer with a known length.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let byte = stream.read_u8().await.unwrap();
        text.push(byte);
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(text).unwrap();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

/// Everything up to the end of the connection, however it ends.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _end = stream.read_to_end(&mut bytes).await;
    bytes
}

#[tokio::test]
async fn a_request_knows_where_it_came_from() {
    let server = Running::start(echo(), config(LONG), LONG).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(REQUEST).await.unwrap();
        let text = answer(&mut stream).await;
        assert!(text.ends_with(&stream.local_addr().unwrap().to_string()), "{text}");
    }
    server.end().await;
}

#[tokio::test]
async fn http_2_is_spoken_to_who_begins_with_it() {
    let server = Running::start(echo(), config(LONG), LONG).await;
    let mut stream = server.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "a SETTINGS frame");
    let mut settings = vec![0; usize::from(frame[2])];
    stream.read_exact(&mut settings).await.unwrap();
    let most = settings.chunks(6).find(|setting| setting.starts_with(&[0, 3])).unwrap();
    assert_eq!(most, [0, 3, 0, 0, 0, 32], "requests at the same time (RFC 9113, section 6.5.2)");
    drop(stream);
    server.end().await;
}

#[tokio::test]
async fn who_says_nothing_or_never_finishes_is_cut_off() {
    let server = Running::start(echo(), config(SHORT), LONG).await;
    for beginning in [&b""[..], b"PRI", b"GET / HTTP/1.1\r\nHost: loc", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(beginning).await.unwrap();
        let text = rest(&mut stream).await;
        assert!(!text.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&text));
    }
    // Idle after an answer.
    let mut stream = server.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert!(rest(&mut stream).await.is_empty());
    server.end().await;
}

#[tokio::test]
async fn a_dribbled_header_is_cut_off() {
    let server = Running::start(echo(), config(SHORT), LONG).await;
    let (mut from, mut to) = server.connect().await.into_split();
    let dribble = async {
        to.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        // A slow peer: a byte now and then.
        let mut pace = tokio::time::interval(SHORT / 10);
        loop {
            pace.tick().await;
            if to.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    let mut bytes = Vec::new();
    tokio::join!(dribble, async {
        let _end = from.read_to_end(&mut bytes).await;
    });
    assert!(bytes.is_empty());
    server.end().await;
}

/// Requests of HTTP/2 with nothing but a path, one after the other, as bytes on the wire.
struct Http2 {
    /// The number of the last one's stream; a client's are odd.
    stream: u32,
}

impl Http2 {
    /// What comes before the first request.
    const BEGINNING: &'static [u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    /// A whole GET: `:method`, `:scheme`, `:path` and `:authority` (RFC 7541, appendix A).
    fn get(&mut self, path: &str) -> Vec<u8> {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
        let mut fields = vec![0x82, 0x86];
        for (name, value) in [(0x04, path), (0x01, "localhost")] {
            fields.extend([name, length(value.as_bytes())]);
            fields.extend(value.as_bytes());
        }
        self.stream += if self.stream == 0 { 1 } else { 2 };
        let mut frame = vec![0, 0, length(&fields), 0x01, 0x05]; // HEADERS, whole, and the end of the request
        frame.extend(self.stream.to_be_bytes());
        frame.extend(fields);
        frame
    }
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_whatever_else_its_connection_asks() {
    let config = ServerConfig { body_timeout: SHORT, call_timeout: SHORT, ..config(SHORT) };
    let (told, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let never = patient(told, Arc::clone(&asked)).route("/quick", get(|| async { "at once" }));
    let server = Running::start(never, config, LONG).await;
    let (mut from, mut to) = server.connect().await.into_split();
    let mut requests = Http2 { stream: 0 };
    let ask = async {
        to.write_all(Http2::BEGINNING).await.unwrap();
        to.write_all(&requests.get("/")).await.unwrap();
        asked.notified().await;
        let mut pace = tokio::time::interval(SHORT / 10);
        loop {
            pace.tick().await;
            if to.write_all(&requests.get("/quick")).await.is_err() {
                return;
            }
        }
    };
    let mut bytes = Vec::new();
    tokio::join!(ask, async {
        let _end = from.read_to_end(&mut bytes).await;
    });
    assert!(bytes.windows(7).any(|part| part == b"at once"), "the others were answered");
    server.end().await;
}

#[tokio::test]
async fn a_slow_answer_is_not_cut_off() {
    let (told, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Running::start(patient(Arc::clone(&told), Arc::clone(&asked)), config(SHORT), LONG).await;
    let mut waiting = server.connect().await;
    waiting.write_all(REQUEST).await.unwrap();
    asked.notified().await;
    // Somebody who came later has been idle for too long by now.
    assert!(rest(&mut server.connect().await).await.is_empty());
    told.notify_one();
    assert!(answer(&mut waiting).await.ends_with("at last"));
    server.end().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let config = ServerConfig { max_connections: 2.try_into().unwrap(), ..config(LONG) };
    let (told, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Running::start(patient(Arc::clone(&told), Arc::clone(&asked)), config, LONG).await;
    let mut inside = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(REQUEST).await.unwrap();
        asked.notified().await;
        inside.push(stream);
    }
    let mut outside = Vec::new();
    for _ in 0..50 {
        let mut stream = server.connect().await;
        stream.write_all(REQUEST).await.unwrap();
        outside.push(stream);
    }
    for stream in &outside {
        let error = stream.try_read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
    for stream in &mut inside {
        told.notify_one();
        assert!(answer(stream).await.ends_with("at last"));
    }
    for mut stream in outside {
        asked.notified().await;
        told.notify_one();
        assert!(answer(&mut stream).await.ends_with("at last"));
    }
    server.end().await;
}

#[tokio::test]
async fn idle_connections_make_room_strangers_first() {
    let config = ServerConfig { max_connections: 3.try_into().unwrap(), ..config(LONG) };
    let server = Running::start(recognising(), config, LONG).await;
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(REQUEST).await.unwrap();
        answer(stream).await.starts_with("HTTP/1.1 200")
    };
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    assert!(ask(&mut first).await && ask(&mut second).await && ask(&mut first).await);
    // Some who say nothing, nothing sensible, or what anybody may.
    let mut silent = Vec::new();
    for beginning in
        [&b""[..], b"GET / HTTP/1.1\r\nX: ", b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n"].iter().cycle().take(9)
    {
        let mut stream = server.connect().await;
        stream.write_all(beginning).await.unwrap();
        silent.push(stream);
    }
    for stream in silent.iter_mut().take(7) {
        rest(stream).await;
    }
    assert!(ask(&mut first).await && ask(&mut second).await, "who is known has kept its connection");
    // Among those who are known, the one that was idle for longest goes.
    let mut third = server.connect().await;
    assert!(ask(&mut third).await);
    let mut fourth = server.connect().await;
    assert!(ask(&mut fourth).await);
    assert!(rest(&mut first).await.is_empty());
    assert!(ask(&mut second).await);
    server.end().await;
}

#[tokio::test]
async fn slow_forms_of_strangers_make_room_and_who_is_known_stays() {
    let config = ServerConfig { max_connections: 3.try_into().unwrap(), ..config(LONG) };
    let server = Running::start(recognising(), config, LONG).await;
    let mut known = server.connect().await;
    known.write_all(REQUEST).await.unwrap();
    assert!(answer(&mut known).await.starts_with("HTTP/1.1 200"));
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect().await;
        stream.write_all(FORM).await.unwrap();
        slow.push(stream);
    }
    let mut newcomer = server.connect().await;
    newcomer.write_all(REQUEST).await.unwrap();
    assert!(answer(&mut newcomer).await.starts_with("HTTP/1.1 200"));
    for stream in slow.iter_mut().take(2) {
        assert!(rest(stream).await.is_empty());
    }
    known.write_all(REQUEST).await.unwrap();
    assert!(answer(&mut known).await.starts_with("HTTP/1.1 200"));
    drop(slow);
    server.end().await;
}

#[tokio::test]
async fn a_stranger_who_is_slow_does_not_keep_who_comes_anew_from_the_place_of_who_is_idle() {
    let config = ServerConfig { max_connections: 8.try_into().unwrap(), ..config(LONG) };
    let server = Running::start(recognising(), config, LONG).await;
    let come = async || {
        let mut stream = server.connect().await;
        stream.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        stream
    };
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(come().await);
    }
    let mut slow = server.connect().await;
    slow.write_all(FORM).await.unwrap();
    assert!(rest(&mut idle[0]).await.is_empty());
    come().await;
    assert!(rest(&mut idle[1]).await.is_empty());
    slow.write_all(&[b'x'; 100]).await.unwrap();
    assert!(answer(&mut slow).await.starts_with("HTTP/1.1 200"), "it has not left for them");
    server.end().await;
}

#[tokio::test]
async fn what_a_connection_once_asked_does_not_keep_it_for_strangers() {
    let config = ServerConfig { max_connections: 2.try_into().unwrap(), ..config(LONG) };
    let server = Running::start(recognising(), config, LONG).await;
    let mut slow = Vec::new();
    for then in [FORM, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        stream.write_all(then).await.unwrap();
        slow.push(stream);
    }
    slow[1].readable().await.unwrap();
    let newcomers = async {
        let (mut first, mut second) = (server.connect().await, server.connect().await);
        for stream in [&mut first, &mut second] {
            stream.write_all(REQUEST).await.unwrap();
            assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
        }
        first.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut first).await.starts_with("HTTP/1.1 200"));
    };
    timeout(Duration::from_secs(30), newcomers).await.expect("both have a place");
    drop(slow);
    server.end().await;
}

#[tokio::test]
async fn who_does_not_take_its_answer_is_cut_off() {
    let short = Duration::from_millis(10);
    let config =
        ServerConfig { idle_timeout: short, body_timeout: short, call_timeout: short, ..config(SHORT) };
    let server = Running::start(Router::new().route("/", get(endless)), config, LONG).await;
    let mut stream = server.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    // It takes the head of the answer and nothing more, until the server has gone.
    stream.readable().await.unwrap();
    server.lifecycle.stop();
    server.served.await.unwrap();
    assert!(
        rest(&mut stream).await.starts_with(b"HTTP/1.1 200"),
        "it had begun, and came to no end of its own"
    );
}

#[tokio::test]
async fn at_the_end_what_is_under_way_is_answered_and_nobody_else_comes_in() {
    let (told, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Running::start(patient(Arc::clone(&told), Arc::clone(&asked)), config(LONG), LONG).await;
    let mut idle = server.connect().await;
    let mut waiting = server.connect().await;
    waiting.write_all(REQUEST).await.unwrap();
    asked.notified().await;

    server.lifecycle.stop();
    assert!(rest(&mut idle).await.is_empty());
    assert!(!server.served.is_finished());
    told.notify_one();
    let text = answer(&mut waiting).await;
    assert!(text.contains("connection: close") && text.ends_with("at last"), "{text}");
    assert!(rest(&mut waiting).await.is_empty());
    let address = server.address;
    server.end().await;
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn what_does_not_end_is_dropped() {
    let (told, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Running::start(patient(told, Arc::clone(&asked)), config(LONG), SHORT).await;
    let mut waiting = server.connect().await;
    waiting.write_all(REQUEST).await.unwrap();
    asked.notified().await;
    server.end().await;
    assert!(rest(&mut waiting).await.is_empty());
}

#[tokio::test]
async fn addresses_that_cannot_be_had_are_refused_in_one_line() {
    let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address).await.unwrap_err();
    assert!(matches!(error, ListenError::Busy(_)));
    assert_eq!(
        error.to_string(),
        format!(
            "{address} is in use by another program: stop that one, or choose another address (server.listen or --listen)"
        )
    );
    let error = bind("192.0.2.1:80".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, ListenError::Elsewhere(_)), "{error}");
}
