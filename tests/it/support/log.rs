//! What is logged on a test's thread, as the product writes it for machines.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Once;

use apixx_mcp::config::{LogConfig, LogFormat};
use apixx_mcp::observe::subscriber;
use serde_json::Value;

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The log of this thread, a JSON object a line. One subscriber serves all tests: with one each, what a line's place in
/// the code knows of who listens depends on which test came first.
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn keep() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let config = LogConfig { filter: "info,apixx_mcp=trace".into(), format: LogFormat::Json };
            tracing::subscriber::set_global_default(subscriber(&config, || Log).unwrap()).unwrap();
        });
        Self
    }

    /// The lines since the last time that an operator sees who did not ask for more.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.all();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["level"] != "DEBUG" && line["level"] != "TRACE").collect()
    }

    /// Everything since the last time, our own most detailed lines included.
    pub fn all(&self) -> String {
        String::from_utf8(LOGGED.take()).unwrap()
    }
}
