//! What the operator sees: the log, and what is counted and measured.

pub mod metrics;
mod refusals;

use std::any::Any;
use std::io::{self, IsTerminal};

use tracing::{Span, Subscriber};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

pub use refusals::Refusals;

use crate::config::{LogConfig, LogFormat};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("log.filter is wrong: {0}")]
    Filter(#[from] ParseError),
    /// Somebody else logs already.
    #[error("the log is set up already")]
    Twice,
}

/// Starts logging to standard error; standard output is for answers. Once per process.
///
/// # Errors
/// A filter that cannot be read, or a second call.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    subscriber(config, io::stderr)?.try_init().map_err(|_| LogError::Twice)?;
    // What a panic says may quote what was at hand: a record, a header, a secret.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a fault of this program: {}", said(panic.payload()));
    }));
    Ok(())
}

/// What a panic says, where that was written down before the program ran.
fn said(payload: &dyn Any) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(its words are not told: they may quote data)")
}

/// The span of one request: every line logged on its behalf carries its id, and nothing else of it, because
/// headers and arguments hold secrets.
pub fn request_span(request_id: &str) -> Span {
    tracing::error_span!("request", id = request_id)
}

/// What writes the log down, line by line.
///
/// # Errors
/// A filter that cannot be read.
pub fn subscriber<W>(config: &LogConfig, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(&config.filter)?;
    let colours = io::stderr().is_terminal();
    // A log that nobody reads any more is no reason to fail; complaining about it to standard error would be.
    let builder =
        fmt().with_env_filter(filter).with_ansi(colours).log_internal_errors(false).with_writer(writer);
    Ok(match config.format {
        LogFormat::Text => Box::new(builder.finish()),
        // With all spans of a line (`spans`, the request's first): the innermost one alone (`span`) has no request's id.
        LogFormat::Json => Box::new(builder.json().finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[test]
    fn a_panic_tells_no_more_than_the_program_holds() {
        let payload =
            |secret: &str| std::panic::catch_unwind(|| std::panic::panic_any(format!("with {secret}")));
        assert!(!said(payload("hunter2").unwrap_err().as_ref()).contains("hunter2"));
        assert_eq!(said(&"an invariant"), "an invariant");
    }

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat) -> String {
        let page = Page::default();
        let writer = page.clone();
        let config = LogConfig { filter: filter.into(), format };
        let subscriber = subscriber(&config, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let _request = request_span("req_1").entered();
            let _within = tracing::error_span!("within").entered();
            tracing::info!(rows = 3, "read");
            tracing::debug!("detail");
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn for_machines_a_line_is_an_object_with_its_request() {
        let text = logged("info", LogFormat::Json);
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["fields"]["message"], &line["fields"]["rows"]), (&"read".into(), &3.into()));
        assert_eq!(line["spans"][0]["id"], "req_1");
    }

    #[test]
    fn the_filter_decides_what_is_logged() {
        assert_eq!(logged("info", LogFormat::Text).lines().count(), 1);
        assert_eq!(logged("warn,apixx_mcp::observe=debug", LogFormat::Text).lines().count(), 2);
        assert_eq!(logged("warn", LogFormat::Text), "");
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let config = LogConfig { filter: "apixx_mcp=loud".into(), format: LogFormat::Text };
        let error = init(&config).unwrap_err().to_string();
        assert!(error.starts_with("log.filter is wrong: "), "{error}");
    }
}
