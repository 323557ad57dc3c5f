//! Measures the pure parts of a call: the time of each with `cargo bench --bench pure`, and the maximum number of its
//! allocations. `cargo bench --bench pure -- --test` only counts allocations.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a bench")]

use std::{
    alloc::System,
    hint::black_box,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion};
use prost::Message as _;
use scm_gateway::{
    error::{Answer, Error, Reason},
    grpc::status::render,
    proto::{ListCertificatesResponse, SaveInfoRequest, SaveInfoResponse},
    scm::{
        api::{
            RawReply,
            decode::decode,
            methods::{ListCertificates, SaveInfo},
            translate,
        },
        sign::{Parts, sign},
    },
    validate::check,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CSR: &str = include_str!("../tests/csr/rsa_2048.pem");
const PATH: &str = "/v2/5a9b2cd9d2f8471d84e3ac2ac3d0a2c5/scm/cert/scs1481110651012/save";
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// Returns the vendor's example request, with its project.
fn sample() -> SaveInfoRequest {
    SaveInfoRequest { project_id: "5a9b2cd9d2f8471d84e3ac2ac3d0a2c5".into(), ..scm_harness::sample() }
}

/// Returns the example request with an RSA-2048 CSR for its domain.
fn with_csr() -> SaveInfoRequest {
    let mut request = sample();
    if let Some(info) = &mut request.info {
        info.domain = "www.example.com".into();
        info.csr = CSR.into();
    }
    request
}

/// Returns the response with a page of this many certificates.
fn list_of(certificates: usize) -> RawReply {
    let certificate = serde_json::json!({
        "id": "scs1554192131150", "name": "scm-1a2b3c", "domain": "www.example.com",
        "sans": "api.example.com;shop.example.com", "signature_algorithm": "SHA256withRSA", "deploy_support": true,
        "type": "OV_SSL_CERT", "brand": "GEOTRUST", "expire_time": "2027-05-27 16:46:25.0",
        "domain_type": "MULTI_DOMAIN", "validity_period": 12, "status": "ISSUED", "domain_count": 3,
        "wildcard_count": 0, "description": "shop front", "domain_id": "fedcba9876543210fedcba9876543210",
        "enterprise_project_id": "0",
    });
    let page = serde_json::json!({ "certificates": vec![certificate; certificates], "total_count": certificates });
    RawReply { status: 200, headers: http::HeaderMap::new(), body: page.to_string().into() }
}

/// Measures a part: its allocations, which may not exceed `max`, and then its time.
fn part<I, O>(criterion: &mut Criterion, name: &str, max: usize, prepare: impl Fn() -> I, run: impl Fn(I) -> O) {
    black_box(run(prepare())); // one-time initialization is not counted
    let input = prepare();
    let region = Region::new(ALLOCATOR);
    let output = run(input);
    let change = region.change();
    drop(output);
    let allocations = change.allocations + change.reallocations;
    let bytes = change.bytes_allocated;
    println!("{name}: {allocations} allocations of {bytes} bytes");
    assert!(allocations <= max, "{name}: more than {max} allocations");
    criterion.bench_function(name, |bencher| bencher.iter_batched(&prepare, &run, BatchSize::SmallInput));
}

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    let c = &mut criterion;

    let encoded = Bytes::from(sample().encode_to_vec());
    part(c, "decode request", 14, || encoded.clone(), |bytes| SaveInfoRequest::decode(bytes).unwrap());
    part(c, "validate", 1, sample, |request| check(request).unwrap());
    part(c, "validate with a CSR", 16, with_csr, |request| check(request).unwrap());

    let checked = check(sample()).unwrap();
    part(c, "path and JSON body", 3, || (), |()| translate::<SaveInfo>(&checked));

    let body = translate::<SaveInfo>(&checked).body;
    let headers = [
        ("content-type", "application/json"),
        ("host", "scm.cn-north-4.myhuaweicloud.com"),
        ("x-sdk-date", "20220809T040506Z"),
        ("x-project-id", "5a9b2cd9d2f8471d84e3ac2ac3d0a2c5"),
    ];
    let parts = Parts { method: "POST", path: PATH, query: "", headers: &headers, body: &body };
    part(c, "sign", 5, || (), |()| sign(&parts, "20220809T040506Z", "EXAMPLEAK", "EXAMPLESK"));

    let raw = RawReply {
        status: 200,
        headers: http::HeaderMap::new(),
        body: Bytes::from_static(br#"{"request_info":"success"}"#),
    };
    part(c, "decode reply", 2, || (), |()| decode::<SaveInfo>(&raw, NOW).unwrap());
    let page = list_of(50);
    assert!((18_000..24_000).contains(&page.body.len()), "{} bytes", page.body.len());
    part(c, "decode a list of 50", 856, || (), |()| decode::<ListCertificates>(&page, NOW).unwrap());
    let list = decode::<ListCertificates>(&page, NOW).unwrap().into_reply::<ListCertificatesResponse>();
    part(c, "encode a list of 50", 1, || (), |()| list.encode_to_vec());
    let reply = SaveInfoResponse::default();
    part(c, "encode reply", 0, || (), |()| reply.encode_to_vec());

    let throttled = Error {
        attempts: 1,
        retry_after: Some(Duration::from_secs(7)),
        ..Error::answered(
            Reason::UpstreamThrottled,
            Answer { http_status: 429, code: Some("APIG.0308".into()), request_id: None, clock_skew: None },
        )
    };
    part(c, "render a status", 19, || throttled.clone(), |error| render(&error));
    c.final_summary();
}
