//! The log: JSON lines on standard output, or text on a terminal. A separate thread writes the lines, so that a stalled
//! reader loses lines and never delays a call.

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

/// The largest number of queued lines. Further lines are dropped.
const QUEUE_LINES: usize = 8192;

/// The largest batch of lines in bytes, which a pipe accepts without blocking.
const MAX_BATCH_BYTES: usize = 16 * 1024;

/// The interval between batches, which bounds the delay of a line.
const BATCH_INTERVAL: Duration = Duration::from_millis(5);

/// The timeout for writing the last lines before the process exits.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The prefix of libraries whose lines may hold data from a collector or an environment variable. Their errors are
/// counted instead.
const SUPPRESSED_TARGET: &str = "opentelemetry";

/// Libraries that log the data they transfer below `info`. The filter cannot lower their level.
const CAPPED_AT_INFO: &[&str] = &["h2", "hyper", "hyper_util", "reqwest", "rustls", "tonic", "tower"];

/// Lines dropped so far. The count belongs to the process, because `tracing` has one log for a process.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines lost so far because a write failed: the pipe is closed, or the disk is full.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);

/// The log of the process.
pub struct Log(WorkerGuard);

impl Log {
    /// Writes the queued lines, for at most `limit`.
    pub fn flush(self, limit: Duration) {
        let (done, written) = mpsc::channel();
        let Self(guard) = self;
        std::thread::spawn(move || {
            drop(guard); // blocks while the reader is stalled
            let _ = done.send(());
        });
        let _ = written.recv_timeout(limit);
    }
}

/// Starts the log on standard output, as JSON or, on a terminal, as text. `filter` is the value of `RUST_LOG`. A
/// missing or invalid filter means `info`.
pub fn start(filter: Option<&str>) -> Log {
    let format = if std::io::stdout().is_terminal() { Format::Text } else { Format::Json };
    start_as(format, output(), filter)
}

/// Starts the log as JSON on a writer.
pub fn start_to(writer: impl Write + Send + 'static, filter: Option<&str>) -> Log {
    start_as(Format::Json, writer, filter)
}

/// The format of the lines.
enum Format {
    Json,
    Text,
}

fn start_as(format: Format, writer: impl Write + Send + 'static, filter: Option<&str>) -> Log {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUE_LINES)
        .thread_name("log")
        .finish(BatchWriter::new(writer));
    let _ = DROPPED.set(writer.error_counter());
    let parsed = filter.filter(|text| !text.is_empty()).map(|text| EnvFilter::builder().parse(text));
    let is_invalid = matches!(parsed, Some(Err(_)));
    let filter = parsed.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new("info"));
    let lines = match format {
        Format::Json => Json { writer, clock: Clock::system() }.boxed(),
        Format::Text => tracing_subscriber::fmt::layer().with_writer(writer).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines.with_filter(filter_fn(is_allowed))).init();
    if is_invalid {
        tracing::warn!("RUST_LOG is not a valid filter: using info");
    }
    Log(guard)
}

/// Registers the metric of dropped lines.
pub(super) fn register_metrics(meter: &Meter) {
    meter
        .u64_observable_counter("scm_gateway.log.lines.dropped")
        .with_unit("{line}")
        .with_description("Log lines that were lost: not read in time, or not writable")
        .with_callback(|counter| counter.observe(dropped_lines(), &[]))
        .build();
}

/// Returns the number of lines that were lost.
pub(super) fn dropped_lines() -> u64 {
    let dropped = DROPPED.get().map_or(0, |lines| lines.dropped_lines() as u64);
    dropped + UNWRITTEN.load(Relaxed)
}

/// Writes lines in batches and counts the lines that cannot be written.
///
/// The batching policy: `tracing_appender` writes all queued lines and then calls `flush`, which writes the batch and
/// sleeps for [`BATCH_INTERVAL`] on the log thread. Lines of the next 5 ms are queued meanwhile and become one write.
/// Waking the thread for each line would cost more than the line itself.
struct BatchWriter<W> {
    writer: W,
    batch: Vec<u8>,
    lines: u64,
}

impl<W: Write> BatchWriter<W> {
    fn new(writer: W) -> Self {
        Self { writer, batch: Vec::with_capacity(MAX_BATCH_BYTES), lines: 0 }
    }

    fn write_batch(&mut self) {
        if self.writer.write_all(&self.batch).is_err() {
            UNWRITTEN.fetch_add(self.lines, Relaxed);
        }
        self.batch.clear();
        self.lines = 0;
    }
}

impl<W: Write> Write for BatchWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.batch.len() + line.len() > MAX_BATCH_BYTES {
            self.write_batch();
        }
        self.batch.extend_from_slice(line);
        self.lines += 1;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_batch();
        let flushed = self.writer.flush();
        std::thread::sleep(BATCH_INTERVAL);
        flushed
    }
}

/// Logs each panic with its location. The message is omitted, because it may hold any data.
pub fn hook_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panic");
    }));
}

/// Returns standard output with its own handle, because a blocked write would hold the lock of `std::io::stdout`.
fn output() -> Box<dyn Write + Send> {
    match std::io::stdout().as_fd().try_clone_to_owned() {
        Ok(stdout) => Box::new(File::from(stdout)),
        Err(_) => Box::new(io::sink()), // standard output is closed
    }
}

/// Returns whether an event may be logged, whatever the filter is.
fn is_allowed(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    let most_verbose = match library {
        library if CAPPED_AT_INFO.contains(&library) => Level::INFO,
        library if library.starts_with(SUPPRESSED_TARGET) => return false,
        _ => Level::TRACE,
    };
    metadata.is_event() && *metadata.level() <= most_verbose
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::{BatchWriter, MAX_BATCH_BYTES};

    /// Records each write.
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
    fn queued_lines_are_written_in_bounded_batches() {
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
