//! W3C trace context: extracts it from the caller's headers and formats it for SCM.
//!
//! Baggage is ignored, and `tracestate` is not sent to SCM, because it may hold internal data of the mesh.

use base16ct::lower;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{IdGenerator as _, RandomIdGenerator},
};

/// The longest `tracestate` that is kept: what W3C asks everyone to pass on. A span holds a copy of it as long as the call.
const MAX_TRACESTATE: usize = 512;

/// The name of the header.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Returns the caller's context, or an empty one if the header is missing or invalid.
pub fn extract(headers: &HeaderMap) -> Context {
    if headers.contains_key(&TRACEPARENT) {
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
    } else {
        Context::new()
    }
}

/// Returns the context of a new trace that is sampled.
pub fn sampled() -> Context {
    let ids = RandomIdGenerator::default();
    let (trace, span) = (ids.new_trace_id(), ids.new_span_id());
    Context::new().with_remote_span_context(SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE))
}

/// Returns the header for the span of `context`, or `None` if the span is invalid.
pub fn header(context: &Context) -> Option<HeaderValue> {
    let span = context.span();
    let span = span.span_context();
    span.is_valid()
        .then(|| HeaderValue::from_bytes(&text(span)).expect("hex digits and hyphens are a valid header value"))
}

fn text(span: &SpanContext) -> [u8; 55] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let mut field = |at: usize, bytes: &[u8]| {
        lower::encode(bytes, &mut text[at..at + 2 * bytes.len()]).expect("a byte has two digits");
    };
    field(3, &span.trace_id().to_bytes());
    field(36, &span.span_id().to_bytes());
    field(53, &[span.trace_flags().to_u8()]);
    text
}

/// Returns the id of the trace, for log lines.
pub fn trace_id(context: &Context) -> String {
    lower::encode_string(&context.span().span_context().trace_id().to_bytes())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    /// Ignores a duplicate header, because either value could be the right one, a malformed `traceparent`, and a long
    /// `tracestate`.
    fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.0.get_all(key).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value
                .to_str()
                .ok()
                .filter(|value| if TRACEPARENT == key { is_well_formed(value) } else { value.len() <= MAX_TRACESTATE }),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Returns whether a `traceparent` has the form of W3C Trace Context, 3.2.2. The propagator alone also accepts numbers of
/// other lengths, signs, and a hyphen at the end. Versions after 00 may have further fields.
fn is_well_formed(value: &str) -> bool {
    let is_hex = |field: &str| field.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut fields = value.split('-');
    let known = [2, 32, 16, 2].map(|digits| fields.next().filter(|field| field.len() == digits && is_hex(field)));
    known.iter().all(Option::is_some) && (known[0] != Some("00") || fields.next().is_none())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use opentelemetry::trace::TraceContextExt as _;

    use super::{TRACEPARENT, extract, header};

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn extracted_contexts_are_formatted_unchanged() {
        let headers = HeaderMap::from_iter([(TRACEPARENT.clone(), HeaderValue::from_static(PARENT))]);
        assert_eq!(header(&extract(&headers)).unwrap(), PARENT);
    }

    #[test]
    fn malformed_headers_start_a_new_trace() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        const SPAN: &str = "00f067aa0ba902b7";
        for (malformed, why) in [
            (format!("0-{TRACE}-{SPAN}-01"), "version of one digit"),
            (format!("000-{TRACE}-{SPAN}-01"), "version of three digits"),
            (format!("+0-{TRACE}-{SPAN}-01"), "sign in the version"),
            (format!("ff-{TRACE}-{SPAN}-01"), "forbidden version"),
            (format!("00-{}-{SPAN}-01", &TRACE[1..]), "trace id of 31 digits"),
            (format!("00-{TRACE}0-{SPAN}-01"), "trace id of 33 digits"),
            (format!("00-+{}-{SPAN}-01", &TRACE[1..]), "sign in the trace id"),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), "trace id in upper case"),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), "trace id of zeros"),
            (format!("00-{TRACE}-{}-01", &SPAN[1..]), "span id of 15 digits"),
            (format!("00-{TRACE}-0{SPAN}-01"), "span id of 17 digits"),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), "span id of zeros"),
            (format!("00-{TRACE}-{SPAN}-1"), "flags of one digit"),
            (format!("00-{TRACE}-{SPAN}-001"), "flags of three digits"),
            (format!("00-{TRACE}-{SPAN}-+1"), "sign in the flags"),
            (format!("00-{TRACE}-{SPAN}-01-"), "hyphen at the end"),
            (format!("00-{TRACE}-{SPAN}-01-00"), "fifth field in version 00"),
            (format!("00-{TRACE}-{SPAN}"), "no flags"),
            (format!("00 {TRACE} {SPAN} 01"), "other separators"),
        ] {
            let headers = HeaderMap::from_iter([(TRACEPARENT.clone(), HeaderValue::try_from(malformed).unwrap())]);
            assert!(header(&extract(&headers)).is_none(), "{why}");
        }
    }

    #[test]
    fn a_tracestate_is_kept_up_to_512_bytes() {
        let state = |value: String| {
            let mut headers = HeaderMap::from_iter([(TRACEPARENT.clone(), HeaderValue::from_static(PARENT))]);
            headers.insert("tracestate", HeaderValue::try_from(value).unwrap());
            let context = extract(&headers);
            assert_eq!(header(&context).unwrap(), PARENT);
            context.span().span_context().trace_state().header()
        };
        let of_512_bytes = format!("a={},b={}", "1".repeat(253), "2".repeat(254));
        assert_eq!(of_512_bytes.len(), 512);
        assert_eq!(state(of_512_bytes.clone()), of_512_bytes);
        assert_eq!(state(of_512_bytes + "2"), "");
    }

    #[test]
    fn later_versions_may_have_more_fields() {
        for later in [PARENT.replacen("00", "cc", 1), PARENT.replacen("00", "cc", 1) + "-what-the-future-holds"] {
            let headers = HeaderMap::from_iter([(TRACEPARENT.clone(), HeaderValue::try_from(later).unwrap())]);
            assert_eq!(header(&extract(&headers)).unwrap(), PARENT);
        }
    }

    #[test]
    fn invalid_and_duplicate_headers_are_ignored() {
        let mut headers = HeaderMap::new();
        headers.insert(&TRACEPARENT, HeaderValue::from_static("00-zz"));
        assert!(header(&extract(&headers)).is_none());
        headers.insert(&TRACEPARENT, HeaderValue::from_static(PARENT));
        headers.append(&TRACEPARENT, HeaderValue::from_static(PARENT));
        assert!(header(&extract(&headers)).is_none());
    }
}
