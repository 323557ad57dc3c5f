//! The facts about SCM in `tests/operations.json`, and what they leave open.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use crate::rpc::Rpc;

/// Operations of the vendor without an RPC, and why.
pub const NOT_OFFERED: [(&str, &str); 10] = [
    ("CancelCertificate", "v2 twin of CancelCertificateRequest"),
    ("CompleteCertificate", "v2 twin of ApplyCertificate"),
    ("DeleteCertificateV2", "v2 twin of DeleteCertificate"),
    ("DownloadCertificate", "v2 twin of ExportCertificate"),
    ("ListCertificatesV2", "v2 twin of ListCertificates"),
    ("ShowCertificateV2", "v2 twin of ShowCertificate"),
    ("UploadCertificate", "v2 twin of ImportCertificate"),
    ("PurchaseCertificate", "v2 twin of SubscribeCertificate"),
    ("PushCertificateV2", "v2 twin of PushCertificate"),
    ("UploadAuthentication", "its encoding is not documented"),
];

/// The successes of operations whose response has no content, or may have none.
pub const EMPTY: &[u16] = &[200, 201, 204];

/// Statuses beyond those of the facts.
const STATUSES: [(&str, &[u16]); 6] = [
    ("CreateCsr", &[200, 201]),
    ("ImportCertificate", &[200, 201]),
    ("ApplyCertificate", &[200, 201, 202]),
    ("SubscribeCertificate", &[200, 201, 202]),
    ("CreateCertificateTag", EMPTY),
    ("BatchCreateOrDeleteTags", EMPTY),
];

static OPERATIONS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let operations: Vec<Value> = serde_json::from_str(include_str!("../../operations.json")).unwrap();
    operations.into_iter().map(|operation| (operation["name"].as_str().unwrap().to_owned(), operation)).collect()
});

/// Returns whether the RPC must not be repeated when its outcome is unknown.
pub fn is_unsafe(rpc: &Rpc) -> bool {
    OPERATIONS[rpc.name()]["safety"] == "unsafe"
}

/// Returns the HTTP statuses that are a success of the RPC.
pub fn success_statuses(rpc: &Rpc) -> &'static [u16] {
    match STATUSES.iter().find(|row| row.0 == rpc.name()) {
        Some(row) => row.1,
        None if OPERATIONS[rpc.name()]["response_kind"] == "empty" => EMPTY,
        None => &[200],
    }
}
