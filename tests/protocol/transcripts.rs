//! What a client says and what must come back, as text files.
//!
//! A file gives its reason, then `-- revision --` (a date, or `none` for a client that names no revision),
//! `-- client --` (a message a line, to which `jsonrpc` and the modern envelope are added) and `-- server --`: for each
//! message a line with the status and the JSON, or with `stream`, the events then following a line each, indented.
//! `APIXX_REWRITE_TRANSCRIPTS=1 cargo test --test protocol` writes the server's part anew.

use std::path::{Path, PathBuf};

use axum::Router;
use serde_json::{Value, json};

use crate::support::{MODERN, Post, Reply, app};

#[tokio::test]
async fn every_transcript_holds() {
    let rewrite = std::env::var_os("APIXX_REWRITE_TRANSCRIPTS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocol/transcripts");
    let mut files: Vec<PathBuf> = folder
        .read_dir()
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 8, "the transcripts are gone");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a transcript is readable");
        let (said, expected) = text.split_once("-- server --\n").expect("a transcript has a server part");
        let (reason, said) = said.split_once("-- revision --\n").expect("a transcript has a revision");
        let (revision, said) = said.split_once("-- client --\n").expect("a transcript has a client part");
        assert!(!reason.trim().is_empty(), "{}: say why", file.display());
        let answered = play(&app(), revision.trim(), said).await;
        if rewrite {
            let text = format!(
                "{reason}-- revision --\n{revision}-- client --\n{said}-- server --\n{}",
                answered.concat()
            );
            std::fs::write(&file, text).expect("a transcript is writable");
        } else {
            let expected: Vec<String> = expected.lines().map(|line| format!("{line}\n")).collect();
            assert_eq!(answered.concat(), expected.concat(), "{}", file.display());
        }
    }
}

async fn play(app: &Router, revision: &str, said: &str) -> Vec<String> {
    let mut answered = Vec::new();
    for line in said.lines().filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_str(line).expect("a line of the client is JSON");
        let post = match (revision, message) {
            (MODERN, message) => Post::modern_message(message),
            ("none", message) => Post::json(&enveloped(message)),
            (revision, message) => Post::json(&enveloped(message)).header("mcp-protocol-version", revision),
        };
        answered.push(shown(&post.send(app).await));
    }
    answered
}

fn enveloped(mut message: Value) -> Value {
    match &mut message {
        Value::Array(messages) => {
            messages.iter_mut().for_each(|message| *message = enveloped(message.take()))
        }
        message => message["jsonrpc"] = json!("2.0"),
    }
    message
}

fn shown(reply: &Reply) -> String {
    let status = reply.status.as_u16();
    if reply.body.is_empty() {
        format!("{status}\n")
    } else if reply.headers["content-type"] == "text/event-stream" {
        let events = reply.events().into_iter().map(|event| format!("  {}\n", bare(event)));
        format!("{status} stream\n{}", events.collect::<String>())
    } else {
        format!("{status} {}\n", bare(reply.json()))
    }
}

/// Without `jsonrpc`, which must be there.
fn bare(mut message: Value) -> Value {
    match &mut message {
        Value::Array(messages) => messages.iter_mut().for_each(|message| *message = bare(message.take())),
        Value::Object(members) => assert_eq!(members.shift_remove("jsonrpc"), Some(json!("2.0"))),
        other => panic!("no message: {other}"),
    }
    message
}
