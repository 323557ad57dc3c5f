//! Property tests of the signer's canonical forms, and of the decoding of SCM's responses.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use proptest::{collection::vec, prelude::*};
use scm_gateway::{
    grpc::status,
    proto::SaveInfoResponse,
    scm::{
        api::{
            RawReply,
            decode::decode,
            methods::{ReadInfo, SaveInfo},
        },
        sign::{self, Parts, uri},
    },
};

fn is_encoded(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let upper_hex = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        let is_valid = match byte {
            b'%' => upper_hex(bytes.next()) && upper_hex(bytes.next()),
            byte => byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte),
        };
        if !is_valid {
            return false;
        }
    }
    true
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Returns bodies: random bytes and text, error bodies, and almost valid JSON.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..200),
        any::<String>().prop_map(String::into_bytes),
        (".{0,40}", ".{0,40}").prop_map(|(code, message)| {
            serde_json::to_vec(&serde_json::json!({ "error_code": code, "error_msg": message })).unwrap()
        }),
        r#"\{("(request_info|error_code|error|code|bl|CSR)":("success"|null|1|\{\}|\[\]|"SCM\.0008"),?){0,3}\}"#
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn encoded_text_is_unreserved_and_round_trips(text in any::<String>()) {
        let encoded = uri::encode(&text);
        prop_assert!(is_encoded(&encoded));
        prop_assert_eq!(percent_encoding::percent_decode_str(&encoded).decode_utf8().unwrap(), text.as_str());
    }

    #[test]
    fn the_signed_path_is_the_sent_path_plus_a_slash(segments in vec("[^/]{1,20}", 1..6)) {
        let sent: String = segments.iter().map(|segment| format!("/{}", uri::encode(segment))).collect();
        prop_assert_eq!(uri::canonical_path(&sent), format!("{sent}/"));
    }

    #[test]
    fn any_path_has_a_canonical_form(path in any::<String>()) {
        let canonical = uri::canonical_path(&path);
        prop_assert!(canonical.ends_with('/') && canonical.split('/').all(is_encoded));
    }

    #[test]
    fn canonical_form_ignores_query_and_header_order(
        query in vec((any::<String>(), any::<String>()), 0..6),
        headers in proptest::collection::btree_map("[A-Za-z-]{1,12}", "[ -~]{0,20}", 0..6),
    ) {
        let mut names = std::collections::HashSet::new();
        let headers: Vec<_> = headers.into_iter().filter(|(name, _)| names.insert(name.to_lowercase())).collect();
        let mut query = borrowed(&query);
        let mut headers = borrowed(&headers);
        let canonical = |query: &[(&str, &str)], headers: &[(&str, &str)]| {
            let query = &sign::uri::canonical_query(query);
            let canonical = sign::canonical(&Parts { method: "post", path: "/a", query, headers, body: b"" });
            (canonical.request.to_string(), canonical.signed_headers)
        };
        let first = canonical(&query, &headers);
        query.reverse();
        headers.reverse();
        prop_assert_eq!(first, canonical(&query, &headers));
    }

    #[test]
    fn a_changed_body_changes_the_signature(body in vec(any::<u8>(), 1..50), at in any::<prop::sample::Index>()) {
        let signature = |body: &[u8]| {
            let parts = Parts { method: "POST", path: "/a", query: "", headers: &[("host", "h")], body };
            sign::sign(&parts, "20220809T040506Z", "AK", "SK")
        };
        let mut changed = body.clone();
        changed[at.index(body.len())] ^= 1;
        prop_assert_ne!(signature(&body), signature(&changed));
    }

    #[test]
    fn any_response_is_decoded_within_bounds(
        status in 100_u16..1000,
        body in bodies(),
        retry_after in proptest::option::of("[0-9]{0,25}|[ -~]{0,40}"),
    ) {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert("retry-after", value);
        }
        let raw = RawReply { status, headers, body: Bytes::from(body) };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_660_017_906);
        let saved = decode::<SaveInfo>(&raw, now);
        prop_assert!(saved.is_err() || status == 200);
        if let Ok(decoded) = saved {
            prop_assert_eq!(decoded.into_reply::<SaveInfoResponse>().request_info, "success");
        }
        if let Err(error) = decode::<ReadInfo>(&raw, now) {
            prop_assert!(error.retry_after.is_none_or(|wait| !wait.is_zero()));
            let code = error.answer.as_ref().and_then(|answer| answer.code.clone());
            prop_assert!(code.is_none_or(|code| (3..=36).contains(&code.len())));
            prop_assert!(status::render(&error).details().len() < 1024);
        }
    }
}
