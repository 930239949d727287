//! Refusals that go out before a body came: what becomes of it, and of the connection it stands on.

use std::time::Duration;

use apixx_mcp::protocol::http::HttpConfig;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::probe::Probe;
use crate::support::{Post, app_of, read_until, serving};

/// A connection to a server for who holds the token `secret`.
async fn refusing(body_timeout: Duration) -> TcpStream {
    let config = HttpConfig { body_timeout, ..HttpConfig::default() };
    let address = serving(app_of(Probe::new().0, config, &["secret"])).await;
    TcpStream::connect(address).await.expect("the server listens")
}

/// The head of a request whose body comes as `framing` says.
fn head(post: Post, framing: &str) -> Vec<u8> {
    let whole = String::from_utf8(post.on_the_wire()).expect("a head is text");
    whole.replacen("content-length: 0", framing, 1).into_bytes()
}

/// The head of the next answer, whose body is taken off the connection.
async fn answer(connection: &mut TcpStream) -> String {
    let whole = read_until(connection, |text| {
        text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            length.is_some_and(|length| length.parse() == Ok(body.len()))
        })
    });
    whole.await.split_once("\r\n\r\n").expect("a whole head").0.to_owned()
}

#[tokio::test]
async fn a_connection_outlives_refusals_that_came_before_their_bodies() {
    let mut connection = refusing(Duration::from_secs(60)).await;
    let known = Post::legacy(None, "ping", json!({})).header("authorization", "Bearer secret");
    // What is passed over is never taken for a request.
    let body = b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    let counted = format!("content-length: {}", body.len());
    let in_chunks = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let refused = [
        (Post::bytes(""), 401),
        (Post::bytes("").header("host", "evil.example.com"), 403),
        (Post::bytes("").method(Method::PUT), 405),
        (Post::bytes("").header("authorization", "Bearer secret").header("content-type", "text/plain"), 415),
    ];
    for (post, status) in refused {
        for (framing, body) in [(counted.as_str(), &body), ("transfer-encoding: chunked", &in_chunks)] {
            connection.write_all(&head(post.clone(), framing)).await.unwrap();
            let refusal = answer(&mut connection).await;
            assert!(refusal.starts_with(&format!("HTTP/1.1 {status} ")), "{refusal}");
            assert!(!refusal.contains("connection: close"), "{refusal}");
            connection.write_all(body).await.unwrap();
            connection.write_all(&known.clone().on_the_wire()).await.unwrap();
            let next = answer(&mut connection).await;
            assert!(next.starts_with("HTTP/1.1 200 "), "after {status}: {next}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_with_a_refusal_says_so() {
    let known = Post::bytes("").header("authorization", "Bearer secret");
    for (post, framing, status) in [
        (Post::bytes(""), "content-length: 65537", 413),
        (Post::bytes(""), "content-length: 10\r\nexpect: 100-continue", 401),
        (known.clone(), "content-length: 2000000", 413),
        (known, "content-length: 10", 408),
    ] {
        let mut connection = refusing(Duration::from_millis(1)).await;
        connection.write_all(&head(post, framing)).await.unwrap();
        let told = read_until(&mut connection, |text| text.contains("\r\n\r\n")).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{framing}: {told}");
        assert!(told.contains("connection: close"), "{framing}: {told}");
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).await.unwrap();
    }
}

#[tokio::test]
async fn an_unwanted_body_is_waited_for_no_longer_than_any() {
    let mut connection = refusing(Duration::from_millis(1)).await;
    connection.write_all(&head(Post::bytes(""), "content-length: 10")).await.unwrap();
    let mut all = Vec::new();
    connection.read_to_end(&mut all).await.unwrap();
    assert!(all.starts_with(b"HTTP/1.1 401 "), "{:?}", String::from_utf8_lossy(&all));
}
