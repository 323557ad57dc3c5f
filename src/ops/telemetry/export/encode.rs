//! The protobuf encoding of a batch of spans, `ExportTraceServiceRequest` of opentelemetry-proto.
//!
//! The library copies each span into messages, and computes the length of each message once for each message around it.
//! Here spans are written as they are, and the length of a message is inserted after its fields.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::{
    KeyValue, SpanId, Value,
    trace::{SpanKind, Status},
};
use opentelemetry_sdk::{Resource, trace::SpanData};

#[cfg(test)]
mod tests;

/// The bytes reserved for each span. Those of a call have 300 on average.
const SPAN_BYTES: usize = 512;

/// Encodes spans of one scope.
pub(super) fn encode(resource: &Resource, spans: &[SpanData]) -> Vec<u8> {
    let mut request = Vec::with_capacity(spans.len() * SPAN_BYTES);
    message(1, &mut request, |resource_spans| {
        message(1, resource_spans, |out| {
            for (key, value) in resource {
                attribute(1, key.as_str(), value, out);
            }
        });
        message(2, resource_spans, |scope_spans| {
            if let Some(span) = spans.first() {
                message(1, scope_spans, |out| text(1, span.instrumentation_scope.name(), out));
            }
            for data in spans {
                message(2, scope_spans, |out| span(data, out));
            }
        });
    });
    request
}

/// Writes a `Span`. The gateway's have neither events nor links.
fn span(span: &SpanData, out: &mut Vec<u8>) {
    debug_assert!(span.events.is_empty() && span.links.is_empty(), "they would not be exported");
    let context = &span.span_context;
    bytes(1, &context.trace_id().to_bytes(), out);
    bytes(2, &context.span_id().to_bytes(), out);
    text(3, &context.trace_state().header(), out);
    if span.parent_span_id != SpanId::INVALID {
        bytes(4, &span.parent_span_id.to_bytes(), out);
    }
    text(5, &span.name, out);
    varint_field(6, kind(&span.span_kind), out);
    fixed64(7, nanoseconds(span.start_time), out);
    fixed64(8, nanoseconds(span.end_time), out);
    for KeyValue { key, value, .. } in &span.attributes {
        attribute(9, key.as_str(), value, out);
    }
    varint_field(10, span.dropped_attributes_count.into(), out);
    message(15, out, |out| match &span.status {
        Status::Unset => {}
        Status::Ok => varint_field(3, 1, out),
        Status::Error { description } => {
            text(2, description, out);
            varint_field(3, 2, out);
        }
    });
    key(16, WireType::I32, out);
    out.extend_from_slice(&flags(span).to_le_bytes());
}

const fn kind(kind: &SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

/// Returns the trace flags of W3C, with two bits for whether the parent is remote.
fn flags(span: &SpanData) -> u32 {
    const HAS_IS_REMOTE: u32 = 0x100;
    const IS_REMOTE: u32 = 0x200;
    let is_remote = if span.parent_span_is_remote { IS_REMOTE } else { 0 };
    u32::from(span.span_context.trace_flags().to_u8()) | HAS_IS_REMOTE | is_remote
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Writes a `KeyValue`. A value of a type that the gateway does not use is written as text.
fn attribute(number: u64, name: &str, value: &Value, out: &mut Vec<u8>) {
    message(number, out, |out| {
        text(1, name, out);
        message(2, out, |out| match value {
            Value::Bool(value) => varint_field(2, u64::from(*value), out),
            Value::I64(value) => varint_field(3, value.cast_unsigned(), out),
            Value::F64(value) => fixed64(4, value.to_bits(), out),
            value => text(1, &value.as_str(), out),
        });
    });
}

/// Writes a message. Most are shorter than 128 bytes, so one byte is kept for the length.
fn message(number: u64, out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) {
    key(number, WireType::Len, out);
    let start = out.len();
    out.push(0);
    fields(out);
    let length = (out.len() - start - 1) as u64;
    match length {
        0..0x80 => out[start] = low_byte(length),
        _ => {
            let mut prefix = Vec::new();
            varint(length, &mut prefix);
            out.splice(start..=start, prefix);
        }
    }
}

fn text(number: u64, value: &str, out: &mut Vec<u8>) {
    bytes(number, value.as_bytes(), out);
}

fn bytes(number: u64, value: &[u8], out: &mut Vec<u8>) {
    key(number, WireType::Len, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn varint_field(number: u64, value: u64, out: &mut Vec<u8>) {
    key(number, WireType::Varint, out);
    varint(value, out);
}

fn fixed64(number: u64, value: u64, out: &mut Vec<u8>) {
    key(number, WireType::I64, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// The wire types, under the names of the protobuf documentation.
#[derive(Clone, Copy)]
enum WireType {
    Varint = 0,
    I64 = 1,
    Len = 2,
    I32 = 5,
}

fn key(number: u64, wire_type: WireType, out: &mut Vec<u8>) {
    varint(number << 3 | wire_type as u64, out);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

const fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}
