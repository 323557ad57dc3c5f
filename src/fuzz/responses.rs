//! Fuzzes the decoding of SCM's responses, for every RPC.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::Value;

use super::{head_and_body, headers};
use crate::{
    Error,
    grpc::status,
    proto::SaveInfoResponse,
    scm::api::{
        Decoded, RawReply, RestMethod as _,
        methods::{METHODS, SaveInfo},
    },
};

/// Replaces each `$` of a body: text of SCM that no error may show. The space keeps it from being a code or an id.
const MARKER: &str = "p1anted marker";

/// The largest error in bytes, because a client limits the size of headers.
const MAX_ERROR: usize = 2048;

/// Fuzzes 200 responses by their body: a success has no body, or is an object and no error body.
pub fn reply(data: &[u8]) {
    let raw = RawReply { status: 200, headers: http::HeaderMap::new(), body: plant(data) };
    for decoded in decode(&raw) {
        match decoded {
            Ok(_) => {
                // Strings that are not decoded may have unpaired surrogates, which `Value` rejects.
                let Ok(value) = serde_json::from_slice::<Value>(&raw.body) else { continue };
                let object = value.as_object().expect("a success is an object");
                let error_keys = ["error_code", "errorCode", "error_msg", "errorMsg", "error", "code"];
                assert!(error_keys.iter().all(|key| object.get(*key).is_none_or(Value::is_null)));
            }
            Err(error) => check(&error),
        }
    }
    if let Ok(saved) = (SaveInfo::METHOD.decode)(&raw, now()) {
        assert!(saved.into_reply::<SaveInfoResponse>().request_info.eq_ignore_ascii_case("success"));
    }
}

/// Fuzzes responses of lines (the status, headers, an empty line, the body): anything but a success status becomes a small
/// error.
pub fn error_body(data: &[u8]) {
    let (head, body) = head_and_body(data);
    let mut lines = head.splitn(2, |byte| *byte == b'\n');
    let status = lines.next().and_then(|line| str::from_utf8(line).ok()).and_then(|line| line.parse().ok());
    let status = status.filter(|status| (300..1000).contains(status)).unwrap_or(400);
    let raw = RawReply { status, headers: headers(lines.next().unwrap_or_default()), body: plant(body) };
    for decoded in decode(&raw) {
        check(&decoded.expect_err("only a 2xx is a success"));
    }
}

/// Decodes a response for every RPC.
fn decode(raw: &RawReply) -> impl Iterator<Item = Result<Decoded, Error>> {
    METHODS.iter().map(|method| (method.decode)(raw, now()))
}

/// Checks that an error is small and shows nothing of the body.
fn check(error: &Error) {
    assert!(error.retry_after.is_none_or(|wait| !wait.is_zero()));
    let code = error.answer.as_ref().and_then(|answer| answer.code.as_ref());
    assert!(code.is_none_or(|code| (3..=36).contains(&code.len())));
    let status = status::render(error);
    assert!(status.message().len() + status.details().len() < MAX_ERROR);
    let shown = [format!("{error:?} {status:?}").into_bytes(), status.details().to_vec()].concat();
    assert!(!shown.windows(MARKER.len()).any(|window| window == MARKER.as_bytes()));
}

fn plant(body: &[u8]) -> Bytes {
    let planted =
        body.iter().flat_map(|byte| if *byte == b'$' { MARKER.as_bytes() } else { std::slice::from_ref(byte) });
    planted.copied().collect()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_660_017_906)
}
