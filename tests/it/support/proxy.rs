//! A proxy before PostgreSQL that notes what the product executes: which statements, and so how many round trips.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use super::database::TestDatabase;

/// What was executed through the proxy since it was last asked. It passes bytes on for as long as the test runs.
pub struct Executed {
    statements: Arc<Mutex<Vec<String>>>,
    _socket: TempDir,
}

impl Executed {
    /// From here on the server's role reaches its database through a proxy.
    pub fn on(database: &mut TestDatabase) -> Self {
        let socket = tempfile::tempdir().unwrap();
        let path = |parent: &Path| parent.join(format!(".s.PGSQL.{}", database.server.get_port()));
        let behind = path(database.server.get_socket().unwrap());
        let listener = UnixListener::bind(path(socket.path())).unwrap();
        let statements = Arc::default();
        tokio::spawn(pass_on(listener, behind, Arc::clone(&statements)));
        database.server = database.server.clone().socket(socket.path());
        Self { statements, _socket: socket }
    }

    /// The statements that were executed since this was last asked, each a wait for the server. No caller waits for what is
    /// done aside with a connection whose use did not end well: a bare `Sync`, or a `rollback`.
    pub fn take(&self) -> Vec<String> {
        let mut taken = std::mem::take(&mut *self.statements.lock().unwrap());
        taken.retain(|statement| statement != "rollback");
        taken
    }
}

async fn pass_on(listener: UnixListener, server: PathBuf, statements: Arc<Mutex<Vec<String>>>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = UnixStream::connect(&server).await.unwrap();
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        tokio::spawn(note(from_client, to_server, Arc::clone(&statements)));
    }
}

/// Notes what each `Execute` and `Query` message executes before it goes on (PostgreSQL documentation,
/// "Frontend/Backend Protocol", "Message Formats").
async fn note(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, statements: Arc<Mutex<Vec<String>>>) {
    let (mut buffer, mut started, mut chunk) = (Vec::new(), false, [0; 16 * 1024]);
    let (mut parsed, mut bound) = (HashMap::<String, String>::new(), String::new());
    while let Ok(read @ 1..) = client.read(&mut chunk).await {
        buffer.extend_from_slice(&chunk[..read]);
        loop {
            // The first message has no type byte.
            let head = usize::from(started);
            let Some(length) = buffer.get(head..head + 4) else { break };
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if buffer.len() < head + length {
                break;
            }
            let message: Vec<u8> = buffer.drain(..head + length).collect();
            let mut parts = message[head + 4..].split(|byte| *byte == 0).map(String::from_utf8_lossy);
            let mut part = || parts.next().unwrap_or_default().into_owned();
            match message[0] {
                _ if !started => {}
                b'P' => drop(parsed.insert(part(), part())),
                b'B' => {
                    part();
                    bound = parsed.get(&part()).cloned().unwrap_or_default();
                }
                b'E' => statements.lock().unwrap().push(bound.clone()),
                b'Q' => statements.lock().unwrap().push(part()),
                _ => {}
            }
            started = true;
        }
        if server.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}
