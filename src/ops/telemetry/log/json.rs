//! The JSON format of the log: one object for each event, with the time, the level, the event's fields and the target.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context};

use crate::{clock::Clock, json::Object};

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
        let _ = self.writer.make_writer().write_all(&line(event, time));
    }
}

fn line(event: &Event<'_>, time: Timestamp) -> Vec<u8> {
    let mut line = Vec::with_capacity(LINE_CAPACITY);
    let mut fields = Fields(Object::new(&mut line));
    fields.0.member("timestamp", &TIME.timestamp_to_string(&time));
    fields.0.member("level", event.metadata().level().as_str());
    event.record(&mut fields);
    fields.0.member("target", event.metadata().target());
    fields.0.end();
    line.push(b'\n');
    line
}

/// Writes the fields of an event as members.
struct Fields<'a>(Object<'a, Vec<u8>>);

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.member(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.member(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.member(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.member(field.name(), &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.member(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // A value that cannot be formatted is left out.
        if write!(text, "{value:?}").is_ok() {
            self.0.member(field.name(), &text);
        }
    }
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
            tracing::info!(target: "t", name = "a\"b", unset = None::<u32>, number = 1.5, count = 2_u64, below = -1_i64, is_set = true, "said {}", 1);
        });
        let mut lines = String::new();
        (&*file).rewind().unwrap();
        (&*file).read_to_string(&mut lines).unwrap();
        let line = r#"{"timestamp":"2022-08-09T04:05:06.000005Z","level":"INFO","message":"said 1","name":"a\"b","number":1.5,"count":2,"below":-1,"is_set":true,"target":"t"}"#;
        assert_eq!(lines, format!("{line}\n"));
    }
}
