//! W3C trace context: extracts it from the caller's headers and formats it for SCM.
//!
//! Baggage is ignored, and `tracestate` is not sent to SCM, because it may hold internal data of the mesh.

use base16ct::lower::encode_string as hex;
use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::TraceContextExt as _,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// The name of the header.
pub const TRACEPARENT: &str = "traceparent";

/// Returns the caller's context, or an empty one if the header is missing or invalid.
pub fn extract(headers: &HeaderMap) -> Context {
    if headers.contains_key(TRACEPARENT) {
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
    } else {
        Context::new()
    }
}

/// Returns the header for the span of `context`, or `None` if the span is invalid.
pub fn header(context: &Context) -> Option<HeaderValue> {
    let span = context.span();
    let span = span.span_context();
    let text = || {
        let [trace, parent] = [hex(&span.trace_id().to_bytes()), hex(&span.span_id().to_bytes())];
        ["00", &trace, &parent, &hex(&[span.trace_flags().to_u8()])].join("-")
    };
    span.is_valid().then(|| HeaderValue::try_from(text()).expect("hex digits and hyphens are a valid header value"))
}

/// Returns the id of the trace, for log lines.
pub fn trace_id(context: &Context) -> String {
    hex(&context.span().span_context().trace_id().to_bytes())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    /// Ignores a duplicate header, because either value could be the right one.
    fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.0.get_all(key).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{TRACEPARENT, extract, header};

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn extracted_contexts_are_formatted_unchanged() {
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static(TRACEPARENT), HeaderValue::from_static(PARENT))]);
        assert_eq!(header(&extract(&headers)).unwrap(), PARENT);
    }

    #[test]
    fn invalid_and_duplicate_headers_are_ignored() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static("00-zz"));
        assert!(header(&extract(&headers)).is_none());
        headers.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
        headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        assert!(header(&extract(&headers)).is_none());
    }
}
