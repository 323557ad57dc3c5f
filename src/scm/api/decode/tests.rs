//! Tests with responses of every kind.

use std::{
    marker::PhantomData,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde::de::{MapAccess, SeqAccess};

use super::{ErrorBody, decode, retry_after};
use crate::{
    error::{Error, Reason},
    proto::{
        ReadInfoRequest, SaveInfoResponse, Tag,
        json::{Form, Object, ReadJson, Reader as _, Text},
    },
    scm::api::{
        Method, PathBuilder, RawReply, RestMethod,
        methods::{ReadInfo, SaveInfo},
    },
};

fn raw(status: u16, body: &str) -> RawReply {
    RawReply { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) }
}

fn error(status: u16, body: &str) -> Error {
    decode::<SaveInfo>(&raw(status, body), SystemTime::UNIX_EPOCH).unwrap_err()
}

fn code(body: &str) -> Option<String> {
    ErrorBody::read(body).unwrap().into_code()
}

#[test]
fn only_a_200_with_success_is_a_success() {
    let reply = decode::<SaveInfo>(&raw(200, r#"{"request_info":"success","new":{}}"#), SystemTime::UNIX_EPOCH);
    assert_eq!(reply.unwrap().into_reply::<SaveInfoResponse>().request_info, "success");
    for body in [
        "",
        "{}",
        "[]",
        r#"["success"]"#,
        "null",
        "success",
        r#"{"request_info":"failed"}"#,
        r#"{"request_info":null}"#,
        r#"{"request_info":1}"#,
        r#"{"request_info":"success","request_info":"success"}"#,
        r#"{"request_info":"success","error_code":"SCM.0010","error_code":"SCM.0010"}"#,
        "\u{feff}{\"request_info\":\"success\"}",
        "<html></html>",
    ] {
        assert_eq!(error(200, body).reason, Reason::UpstreamMalformed, "{body}");
    }
    assert_eq!(error(201, r#"{"request_info":"success"}"#).reason, Reason::UpstreamMalformed);
}

#[test]
fn the_code_counts_whatever_the_encoding_of_the_message() {
    for (message, encoding) in [
        (&b"l'\xe9tat du certificat"[..], "Latin-1"),
        (b"\xe9\\\"", "Latin-1 before an escaped quote"),
        (b"\xd6\xa4\xca\xe9\xd7\xb4\xcc\xac", "GBK"),
        (b"\xd5\x5c", "GBK with a backslash as its last byte"),
        (b"\x95\x7b\x95\x7d\xff", "GBK with braces, cut"),
        (b"\xed\xa0\x80", "a surrogate"),
    ] {
        let body = [br#"{"error_code":"SCM.0010","error_msg":""#, message, br#"","request_id":"id-1"}"#].concat();
        for status in [200, 400] {
            let reply = RawReply { body: body.clone().into(), ..raw(status, "") };
            let error = decode::<SaveInfo>(&reply, SystemTime::UNIX_EPOCH).unwrap_err();
            let answer = error.answer.unwrap();
            assert_eq!(error.reason, Reason::CertificateState, "{encoding}, {status}");
            assert_eq!(answer.code.as_deref(), Some("SCM.0010"), "{encoding}, {status}");
            assert_eq!(answer.request_id.as_deref(), Some("id-1"), "{encoding}, {status}");
        }
    }
}

#[test]
fn the_code_counts_even_if_the_message_is_no_valid_text() {
    for message in [r#""cut \ud83d""#, "\"two\nlines\"", "\"\u{0}\"", "{\"text\":1}", "7", "null"] {
        for (status, before) in [(200, ""), (400, ""), (400, "\u{feff}")] {
            let body = format!(r#"{before}{{"error_code":"SCM.0010","error_msg":{message},"request_id":"id-1"}}"#);
            let error = error(status, &body);
            assert_eq!(error.reason, Reason::CertificateState, "{status} {body}");
            assert_eq!(error.answer.unwrap().request_id.as_deref(), Some("id-1"), "{status} {body}");
        }
    }
    let cut = r#"{"error_code":"APIG.0301","error_msg":"signature expired \ud83d"}"#;
    let body = ErrorBody::read(cut).unwrap();
    assert!(body.is_expired());
}

#[test]
fn a_success_must_be_utf8() {
    let mut reply = raw(200, "");
    reply.body = Bytes::from_static(b"{\"request_info\":\"success\",\"x\":\"\xff\"}");
    let error = decode::<SaveInfo>(&reply, SystemTime::UNIX_EPOCH).unwrap_err();
    assert_eq!(error.reason, Reason::UpstreamMalformed);
}

#[test]
fn error_bodies_with_status_200_are_errors() {
    assert_eq!(error(200, r#"{"error_code":"SCM.0010","error_msg":"x"}"#).reason, Reason::CertificateState);
    let both = r#"{"request_info":"success","error_code":"SCM.0008"}"#;
    assert_eq!(error(200, both).reason, Reason::CertificateNotFound);
    let read = decode::<ReadInfo>(&raw(200, r#"{"error":{"message":"x"}}"#), SystemTime::UNIX_EPOCH);
    assert_eq!(read.unwrap_err().reason, Reason::UpstreamMalformed);
}

#[test]
fn codes_are_found_in_every_wire_format() {
    assert_eq!(code(r#"{"error_code":"SCM.0008","error_msg":"x"}"#).unwrap(), "SCM.0008");
    assert_eq!(code(r#"{"errorCode":"SCM.0008","errorMsg":"x"}"#).unwrap(), "SCM.0008");
    assert_eq!(code(r#"{"code":"SCM.0008","message":"x"}"#).unwrap(), "SCM.0008");
    assert_eq!(code(r#"{"error":{"code":401,"message":"x","title":"Unauthorized"}}"#).unwrap(), "401");
    assert_eq!(code(r#"{"error":{"message":"x","title":"Unauthorized"}}"#), None);
    assert_eq!(code(r#"{"error":"x","code":"SCM.0008"}"#).unwrap(), "SCM.0008");
}

#[test]
fn texts_without_the_format_of_a_code_are_ignored() {
    for text in ["ab", "0123456789012345678901234567890123456", "SCM 0008", "SCM.0008\\n", "é.0008", ""] {
        assert_eq!(code(&format!(r#"{{"error_code":"{text}"}}"#)), None, "{text}");
    }
    assert_eq!(code(r#"{"error_code":{"a":1},"error_msg":1}"#), None);
}

#[test]
fn request_ids_in_headers_take_precedence() {
    let body = r#"{"error_code":"APIG.0101","error_msg":"x","request_id":"id-in-body"}"#;
    let mut reply = raw(404, body);
    let id = |reply: &RawReply| {
        let error = decode::<SaveInfo>(reply, SystemTime::UNIX_EPOCH).unwrap_err();
        error.answer.unwrap().request_id
    };
    assert_eq!(id(&reply).unwrap(), "id-in-body");
    reply.headers.insert("x-iam-trace-id", HeaderValue::from_static("of-iam"));
    assert_eq!(id(&reply).unwrap(), "of-iam");
    reply.headers.insert("x-request-id", HeaderValue::from_static("of-the-header"));
    assert_eq!(id(&reply).unwrap(), "of-the-header");
    reply.headers.insert("x-request-id", HeaderValue::from_static("not an id"));
    assert_eq!(id(&reply).unwrap(), "of-iam");
}

#[test]
fn retry_after_is_read_as_seconds_or_date() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
    let wait = |value: &'static str| {
        let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, HeaderValue::from_static(value))]);
        retry_after(&headers, now).map(|wait| wait.as_secs())
    };
    assert_eq!(wait("7"), Some(7));
    assert_eq!(wait("3600"), Some(3600));
    assert_eq!(wait("99999999999999999999999999"), Some(u64::MAX));
    assert_eq!(wait("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
    for ignored in ["0", "", "-1", "1.5", "soon", "Sun, 06 Nov 1994 08:49:27 GMT"] {
        assert_eq!(wait(ignored), None, "{ignored}");
    }
}

#[test]
fn deep_bodies_do_not_overflow_the_stack() {
    let deep = "[".repeat(100_000);
    assert_eq!(error(200, &deep).reason, Reason::UpstreamMalformed);
    assert_eq!(error(503, &format!("{{\"error\":{deep}")).reason, Reason::UpstreamUnavailable);
}

/// A reply that is an array of tags in JSON.
#[derive(Debug, Default)]
struct Tags(Vec<Tag>);

impl ReadJson for Tags {
    const FORM: Form = Form::Objects;

    fn empty() -> Self {
        Self(vec![Tag::empty()])
    }

    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        self.0[0].read(key, map)
    }

    fn read_array<'de, A: SeqAccess<'de>>(&mut self, array: A) -> Result<(), A::Error> {
        self.0 = Object::<Tag>::entries(array)?;
        Ok(())
    }
}

/// A reply that is an array of texts in JSON.
#[derive(Debug, Default)]
struct Texts(Vec<String>);

impl ReadJson for Texts {
    const FORM: Form = Form::Values;

    fn read_array<'de, A: SeqAccess<'de>>(&mut self, array: A) -> Result<(), A::Error> {
        self.0 = Text::entries(array)?;
        Ok(())
    }
}

/// An RPC whose whole response is `R`.
struct Whole<R>(PhantomData<R>);

impl<R: ReadJson + Send + 'static> RestMethod for Whole<R> {
    type Request = ReadInfoRequest;
    type Reply = R;
    const RPC: &'static str = "huaweicloud.scm.v1.WholeService/Whole";
    const METHOD: &'static Method = &Method {
        number: 0,
        http: http::Method::GET,
        template: "/",
        span: "GET /",
        idempotent: true,
        names_certificate: false,
        secret_request: false,
        success_statuses: &[200],
        empty_reply: false,
        decode: decode::<Self>,
        empty: || Box::new(R::default()),
    };

    fn project_id(request: &mut ReadInfoRequest) -> &mut String {
        &mut request.project_id
    }

    fn path(_: &ReadInfoRequest, _: &mut PathBuilder) {}
}

/// Decodes a response whose whole body is `R`.
fn whole<R: ReadJson + Send + 'static>(body: &str) -> Result<R, (Reason, Option<String>)> {
    let decoded = decode::<Whole<R>>(&raw(200, body), SystemTime::UNIX_EPOCH);
    decoded.map(|decoded| decoded.into_reply()).map_err(|error| (error.reason, error.answer.unwrap().code))
}

#[test]
fn a_response_that_is_an_array_is_read_like_a_list() {
    let keys = |body| {
        whole::<Tags>(body).map(|tags| tags.0.into_iter().map(|tag| tag.key.unwrap_or_default()).collect::<Vec<_>>())
    };
    let texts = |body| whole::<Texts>(body).map(|texts| texts.0);
    let list = |entries: &[&str]| Ok(entries.iter().map(|entry| (*entry).to_owned()).collect());
    let malformed = Err((Reason::UpstreamMalformed, None));
    let state = Err((Reason::CertificateState, Some("SCM.0010".to_owned())));
    for (body, tags, values) in [
        ("null", list(&[]), list(&[])),
        ("[]", list(&[]), list(&[])),
        ("[null]", list(&[]), list(&[])),
        ("{}", list(&[""]), malformed.clone()),
        (r#"{"key":"a"}"#, list(&["a"]), malformed.clone()),
        (r#"[{"key":"a"},null,{"key":"b"}]"#, list(&["a", "b"]), malformed.clone()),
        (r#"["a",null]"#, malformed.clone(), list(&["a"])),
        (r#"{"error_code":"SCM.0010","error_msg":"no"}"#, state.clone(), state.clone()),
        ("\"a\"", malformed.clone(), malformed.clone()),
        ("", malformed.clone(), malformed),
    ] {
        assert_eq!(keys(body), tags, "{body}");
        assert_eq!(texts(body), values, "{body}");
    }
}
