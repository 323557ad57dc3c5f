//! The encoding of spans, compared with the library's.

use std::{borrow::Cow, time::Duration};

use opentelemetry::{
    Array, InstrumentationScope,
    trace::{SpanContext, TraceFlags, TraceId, TraceState},
};
use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope},
};
use prost::Message as _;

use super::*;

/// What the library exports.
fn expected(resource: &Resource, spans: &[SpanData]) -> ExportTraceServiceRequest {
    let resource = ResourceAttributesWithSchema::from(resource);
    ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(spans.to_vec(), &resource) }
}

fn data(kind: SpanKind, status: Status) -> SpanData {
    let state = TraceState::from_key_value([("vendor", "value")]).unwrap();
    let (trace_id, span_id) = (TraceId::from_bytes([7; 16]), SpanId::from_bytes([8; 8]));
    SpanData {
        span_context: SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, state),
        parent_span_id: SpanId::from_bytes([9; 8]),
        parent_span_is_remote: true,
        span_kind: kind,
        name: Cow::Borrowed("huaweicloud.scm.v1.CertificateService/SaveInfo"),
        start_time: UNIX_EPOCH + Duration::from_nanos(1_660_017_906_123_456_789),
        end_time: UNIX_EPOCH + Duration::from_nanos(1_660_017_906_987_654_321),
        attributes: vec![
            KeyValue::new("bool", true),
            KeyValue::new("negative", -1),
            KeyValue::new("zero", 0),
            KeyValue::new("large", i64::MAX),
            KeyValue::new("double", 0.5),
            KeyValue::new("empty", ""),
            KeyValue::new("text", "x".repeat(127)),
            KeyValue::new("long", "x".repeat(20_000)),
        ],
        dropped_attributes_count: 3,
        events: Default::default(),
        links: Default::default(),
        status,
        instrumentation_scope: InstrumentationScope::builder("scm-gateway").build(),
    }
}

#[test]
fn spans_are_encoded_like_those_of_the_library() {
    let builder = Resource::builder_empty().with_service_name("gateway");
    let resource = builder.with_attribute(KeyValue::new("n", 1)).build();
    let mut spans: Vec<_> = [
        (SpanKind::Internal, Status::Unset),
        (SpanKind::Server, Status::Ok),
        (SpanKind::Client, Status::error("UNAVAILABLE")),
        (SpanKind::Producer, Status::error("")),
        (SpanKind::Consumer, Status::Unset),
    ]
    .into_iter()
    .map(|(kind, status)| data(kind, status))
    .collect();
    let root = SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes([1; 16]),
            SpanId::from_bytes([2; 8]),
            TraceFlags::default(),
            false,
            TraceState::default(),
        ),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        start_time: UNIX_EPOCH - Duration::from_secs(1),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        ..data(SpanKind::Server, Status::Unset)
    };
    spans.push(root);
    for count in 1..=spans.len() {
        let spans = &spans[..count];
        let encoded = ExportTraceServiceRequest::decode(&*encode(&resource, spans)).unwrap();
        assert_eq!(encoded, expected(&resource, spans));
    }
}

#[test]
fn values_of_other_types_are_text() {
    let list = Value::Array(Array::I64(vec![1, 2]));
    let mut encoded = Vec::new();
    attribute(1, "key", &list, &mut encoded);
    let mut text = Vec::new();
    attribute(1, "key", &Value::from(list.as_str().into_owned()), &mut text);
    assert_eq!(encoded, text);
}
