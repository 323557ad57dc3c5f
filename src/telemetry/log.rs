//! Log lines: JSON on standard output, or text if that is a terminal. A thread of their own writes them, so that a
//! reader who stops reading costs lines and never a call.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    os::fd::AsFd as _,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use opentelemetry::metrics::Meter;
use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

mod json;

use json::Json;

use crate::clock::Clock;

/// Lines that wait at most for the reader; further ones are dropped.
const WAITING_LINES: usize = 8192;

/// How long the end of the process waits at most for the reader of the last lines.
pub const LAST_LINES: Duration = Duration::from_secs(1);

/// Libraries whose lines may hold what a collector or an environment variable says. What is lost is counted instead.
const SILENT: &str = "opentelemetry";

/// Libraries that would print what they carry: held at `info` whatever the filter says.
const HELD_AT_INFO: &[&str] = &["h2", "hyper", "hyper_util", "reqwest", "rustls", "tonic", "tower"];

/// Lines dropped so far. The log is the process's, as `tracing` has it, and begins before a gateway: so is the count.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines lost so far because they could not be written: nobody reads, or the disk is full.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);

/// The running log.
pub struct Log(WorkerGuard);

impl Log {
    /// Writes the lines still waiting, as far as their reader takes them in this time.
    pub fn finish(self, time: Duration) {
        let (done, written) = mpsc::channel();
        let Self(guard) = self;
        std::thread::spawn(move || {
            drop(guard); // waits for the reader, in the worst case for ever
            let _ = done.send(());
        });
        let _ = written.recv_timeout(time);
    }
}

/// Starts logging for the process, on standard output: JSON, or on a terminal lines for people. `filter` is the value of
/// `RUST_LOG`; without one, or with a broken one, `info`.
pub fn start(filter: Option<&str>) -> Log {
    let form = if std::io::stdout().is_terminal() { Form::Readable } else { Form::Json };
    start_as(form, output(), filter)
}

/// Starts logging for the process, as JSON to a writer.
pub fn start_to(writer: impl Write + Send + 'static, filter: Option<&str>) -> Log {
    start_as(Form::Json, writer, filter)
}

/// How a line is written.
enum Form {
    Json,
    Readable,
}

fn start_as(form: Form, writer: impl Write + Send + 'static, filter: Option<&str>) -> Log {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(Lossy(writer));
    let _ = DROPPED.set(writer.error_counter());
    let parsed = filter.filter(|text| !text.is_empty()).map(|text| EnvFilter::builder().parse(text));
    let broken = matches!(parsed, Some(Err(_)));
    let filter = parsed.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new("info"));
    let lines = match form {
        Form::Json => Json { writer, clock: Clock::system() }.boxed(),
        Form::Readable => tracing_subscriber::fmt::layer().with_writer(writer).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines.with_filter(filter_fn(is_fit))).init();
    if broken {
        tracing::warn!("RUST_LOG is not a filter that can be read: logging at info");
    }
    Log(guard)
}

/// Makes the count of dropped lines visible.
pub(super) fn register(meter: &Meter) {
    meter
        .u64_observable_counter("scm_gateway.log.lines.dropped")
        .with_unit("{line}")
        .with_description("Log lines that were lost: nobody read them in time, or they could not be written")
        .with_callback(|counter| {
            let dropped = DROPPED.get().map_or(0, |lines| lines.dropped_lines() as u64);
            counter.observe(dropped + UNWRITTEN.load(Relaxed), &[]);
        })
        .build();
}

/// Passes lines on, each in one piece, and counts those that it cannot.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.write_all(line).is_err() {
            UNWRITTEN.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// From now on a panic of the process is a log line: where, not what, for a panic's words may hold anything.
pub fn hook_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panic");
    }));
}

/// Standard output under a handle of its own: the lock of `std::io::stdout` would be held by a write that waits.
fn output() -> Box<dyn Write + Send> {
    match std::io::stdout().as_fd().try_clone_to_owned() {
        Ok(stdout) => Box::new(File::from(stdout)),
        Err(_) => Box::new(io::sink()), // it is closed
    }
}

/// Whether a line may be printed at all: only events, and of some libraries only the louder ones.
fn is_fit(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    let loudest = match library {
        library if HELD_AT_INFO.contains(&library) => Level::INFO,
        library if library.starts_with(SILENT) => return false,
        _ => Level::TRACE,
    };
    metadata.is_event() && *metadata.level() <= loudest
}
