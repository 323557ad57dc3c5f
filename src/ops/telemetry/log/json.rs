//! The JSON format of the log: one object for each event, with the time, the level, the event's fields and the target.

use std::io::Write as _;

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use serde::ser::SerializeMap as _;
use tracing::{Event, Subscriber};
use tracing_serde::SerdeMapVisitor;
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context};

use crate::clock::Clock;

/// The format of times: UTC with microseconds.
const TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// The initial capacity of a line. Most lines are shorter.
const LINE_CAPACITY: usize = 512;

/// A layer that writes each line at once. The JSON format of `tracing_subscriber` checks each part of a line for UTF-8.
pub(super) struct Json<W> {
    pub(super) writer: W,
    pub(super) clock: Clock,
}

impl<S: Subscriber, W: for<'a> MakeWriter<'a> + 'static> Layer<S> for Json<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let time = Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH);
        // No call fails because its line cannot be written.
        if let Ok(line) = line(event, time) {
            let _ = self.writer.make_writer().write_all(&line);
        }
    }
}

fn line(event: &Event<'_>, time: Timestamp) -> serde_json::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(LINE_CAPACITY);
    let mut json = serde_json::Serializer::new(&mut line);
    let mut fields = serde::Serializer::serialize_map(&mut json, None)?;
    fields.serialize_entry("timestamp", &TIME.timestamp_to_string(&time))?;
    fields.serialize_entry("level", event.metadata().level().as_str())?;
    let mut visitor = SerdeMapVisitor::new(fields);
    event.record(&mut visitor);
    let mut fields = visitor.take_serializer()?;
    fields.serialize_entry("target", event.metadata().target())?;
    fields.end()?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Seek as _},
        sync::Arc,
        time::{Duration, SystemTime},
    };

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::Json;
    use crate::clock::Clock;

    #[test]
    fn lines_have_time_level_fields_and_target() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_660_017_906, 5_000);
        let json = Json { writer: file.clone(), clock: Clock::from_fn(move || time) };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(json), || {
            tracing::info!(target: "t", name = "a\"b", unset = None::<u32>, number = 1.5, "said {}", 1);
        });
        let mut lines = String::new();
        (&*file).rewind().unwrap();
        (&*file).read_to_string(&mut lines).unwrap();
        let line = r#"{"timestamp":"2022-08-09T04:05:06.000005Z","level":"INFO","message":"said 1","name":"a\"b","number":1.5,"target":"t"}"#;
        assert_eq!(lines, format!("{line}\n"));
    }
}
