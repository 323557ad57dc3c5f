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
const QUEUE_LINES: usize = 8192;

/// Bytes of lines that are written at once: what a pipe takes without waiting.
const MAX_BATCH_BYTES: usize = 16 * 1024;

/// How long a line waits at most for others that come after it.
const BATCH_INTERVAL: Duration = Duration::from_millis(5);

/// How long the end of the process waits at most for the reader of the last lines.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Libraries whose lines may hold what a collector or an environment variable says. What is lost is counted instead.
const SUPPRESSED_TARGET: &str = "opentelemetry";

/// Libraries that would print what they carry: held at `info` whatever the filter says.
const CAPPED_AT_INFO: &[&str] = &["h2", "hyper", "hyper_util", "reqwest", "rustls", "tonic", "tower"];

/// Lines dropped so far. The log is the process's, as `tracing` has it, and begins before a gateway: so is the count.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines lost so far because they could not be written: nobody reads, or the disk is full.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);

/// The running log.
pub struct Log(WorkerGuard);

impl Log {
    /// Writes the lines still waiting, as far as their reader takes them in this time.
    pub fn flush(self, time: Duration) {
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
        .buffered_lines_limit(QUEUE_LINES)
        .thread_name("log")
        .finish(BatchWriter::new(writer));
    let _ = DROPPED.set(writer.error_counter());
    let parsed = filter.filter(|text| !text.is_empty()).map(|text| EnvFilter::builder().parse(text));
    let broken = matches!(parsed, Some(Err(_)));
    let filter = parsed.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new("info"));
    let lines = match form {
        Form::Json => Json { writer, clock: Clock::system() }.boxed(),
        Form::Readable => tracing_subscriber::fmt::layer().with_writer(writer).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines.with_filter(filter_fn(is_allowed))).init();
    if broken {
        tracing::warn!("RUST_LOG is not a valid filter: using info");
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

/// Passes lines on, those that wait together in one write, and counts those that it cannot.
struct BatchWriter<W> {
    writer: W,
    waiting: Vec<u8>,
    lines: u64,
}

impl<W: Write> BatchWriter<W> {
    fn new(writer: W) -> Self {
        Self { writer, waiting: Vec::with_capacity(MAX_BATCH_BYTES), lines: 0 }
    }

    fn write_batch(&mut self) {
        if self.writer.write_all(&self.waiting).is_err() {
            UNWRITTEN.fetch_add(self.lines, Relaxed);
        }
        self.waiting.clear();
        self.lines = 0;
    }
}

impl<W: Write> Write for BatchWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.waiting.len() + line.len() > MAX_BATCH_BYTES {
            self.write_batch();
        }
        self.waiting.extend_from_slice(line);
        self.lines += 1;
        Ok(line.len())
    }

    /// Called when no other line waits. The thread rests before it looks for the next ones: to be woken for each would
    /// cost more than the line itself.
    fn flush(&mut self) -> io::Result<()> {
        self.write_batch();
        let flushed = self.writer.flush();
        std::thread::sleep(BATCH_INTERVAL);
        flushed
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
fn is_allowed(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    let loudest = match library {
        library if CAPPED_AT_INFO.contains(&library) => Level::INFO,
        library if library.starts_with(SUPPRESSED_TARGET) => return false,
        _ => Level::TRACE,
    };
    metadata.is_event() && *metadata.level() <= loudest
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::{BatchWriter, MAX_BATCH_BYTES};

    /// The writes that came.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_wait_together_are_one_write_of_a_bounded_size() {
        let writes = Writes::default();
        let mut batch_writer = BatchWriter::new(writes.clone());
        batch_writer.write_all(b"one\n").unwrap();
        batch_writer.write_all(b"two\n").unwrap();
        batch_writer.flush().unwrap();
        assert_eq!(*writes.0.lock().unwrap(), [b"one\ntwo\n"]);
        let long = [b'x'; MAX_BATCH_BYTES / 2 + 1];
        for line in [&long[..], &long, &[b'y'; MAX_BATCH_BYTES * 2]] {
            batch_writer.write_all(line).unwrap();
        }
        batch_writer.flush().unwrap();
        let lengths: Vec<_> = writes.0.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(lengths, [8, long.len(), long.len(), MAX_BATCH_BYTES * 2]);
    }
}
