//! Filling a table in PostgreSQL's binary form of `COPY`.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use sqlx::postgres::PgPoolCopyExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bytes of a table that are sent at once.
const CHUNK: usize = 1 << 20;

/// A table being filled in PostgreSQL's binary form
/// (<https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>).
pub(super) struct Table {
    buffer: Vec<u8>,
    columns: i16,
    send: mpsc::Sender<Vec<u8>>,
    done: JoinHandle<u64>,
}

impl Table {
    pub(super) fn open(pool: &PgPool, name: &str, columns: &str) -> Self {
        let (send, mut chunks) = mpsc::channel::<Vec<u8>>(8);
        let pool = pool.clone();
        let text = format!("copy {name} ({columns}) from stdin (format binary)");
        let count = columns.split(',').count() as i16;
        let done = tokio::spawn(async move {
            let mut copy = pool.copy_in_raw(&text).await.unwrap();
            while let Some(chunk) = chunks.recv().await {
                copy.send(chunk).await.unwrap();
            }
            copy.finish().await.unwrap()
        });
        let mut buffer = b"PGCOPY\n\xff\r\n\0".to_vec();
        buffer.extend_from_slice(&[0; 8]);
        Self { buffer, columns: count, send, done }
    }

    pub(super) async fn row(&mut self) -> &mut Self {
        if self.buffer.len() >= CHUNK {
            let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK + 4_096));
            self.send.send(full).await.unwrap();
        }
        self.buffer.extend_from_slice(&self.columns.to_be_bytes());
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        self.buffer.extend_from_slice(bytes);
        self
    }

    pub(super) fn null(&mut self) -> &mut Self {
        self.buffer.extend_from_slice(&(-1_i32).to_be_bytes());
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(super) fn maybe(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    pub(super) fn int(&mut self, number: i32) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    pub(super) fn big(&mut self, number: u64) -> &mut Self {
        self.bytes(&(number as i64).to_be_bytes())
    }

    /// Microseconds since 2000-01-01 UTC.
    pub(super) fn time(&mut self, moment: DateTime<Utc>) -> &mut Self {
        self.bytes(&(moment.timestamp_micros() - 946_684_800_000_000).to_be_bytes())
    }

    pub(super) fn time_or_null(&mut self, moment: Option<DateTime<Utc>>) -> &mut Self {
        match moment {
            Some(moment) => self.time(moment),
            None => self.null(),
        }
    }

    pub(super) fn json(&mut self, json: &str) -> &mut Self {
        self.buffer.extend_from_slice(&(json.len() as i32 + 1).to_be_bytes());
        self.buffer.push(1);
        self.buffer.extend_from_slice(json.as_bytes());
        self
    }

    pub(super) async fn end(mut self) -> u64 {
        self.buffer.extend_from_slice(&(-1_i16).to_be_bytes());
        self.send.send(self.buffer).await.unwrap();
        drop(self.send);
        self.done.await.unwrap()
    }
}
