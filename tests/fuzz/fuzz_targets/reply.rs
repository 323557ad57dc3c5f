//! Fuzzes 200 responses: any body becomes a reply or an error without a panic, and a success only if it contains one.

#![no_main]

use std::time::SystemTime;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use scm_gateway::{proto::SaveInfoResponse, scm::api::{RawReply, decode::decode, methods::{ReadInfo, SaveInfo}}};

fuzz_target!(|body: &[u8]| {
    let raw = RawReply { status: 200, headers: http::HeaderMap::new(), body: Bytes::copy_from_slice(body) };
    if let Ok(saved) = decode::<SaveInfo>(&raw, SystemTime::UNIX_EPOCH) {
        assert_eq!(saved.into_reply::<SaveInfoResponse>().request_info, "success");
    }
    let _ = decode::<ReadInfo>(&raw, SystemTime::UNIX_EPOCH);
});
