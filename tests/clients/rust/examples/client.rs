//! A Rust client generated from the proto. It shows every way a call can end, with tonic.
//!
//! Usage: client ADDRESS TRACEPARENT PAID_CERT_ID [drain]. Health and reflection are crates of their own.

use std::{collections::HashSet, env, error::Error, time::Duration};

use tonic::{
    Code, Request, Status,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

mod scm {
    tonic::include_proto!("huaweicloud.scm.v1");
}

use scm::{
    ApplyCertificateRequest, BatchPushCertificateRequest, Certificate, CertificateInfo, ReadInfoRequest,
    SaveInfoRequest, WatchCertificateRequest, certificate_service_client::CertificateServiceClient,
};

const CERT_ID: &str = "scs1481110651012";
/// A project that SCM does not know.
const UNKNOWN: &str = "nowhere";

fn draft(cert_id: &str) -> SaveInfoRequest {
    SaveInfoRequest {
        cert_id: cert_id.to_owned(),
        info: Some(CertificateInfo {
            domain: "www.xzz.com".to_owned(),
            sans: vec!["xzz.com".to_owned()],
            country: "CN".to_owned(),
            applicant_name: "Tom".to_owned(),
            applicant_phone: "13212345678".to_owned(),
            applicant_email: "9997342346@qq.com".to_owned(),
            agree_privacy_protection: true,
            ..CertificateInfo::default()
        }),
        ..SaveInfoRequest::default()
    }
}

fn name(status: &Status) -> &'static str {
    match status.code() {
        Code::Cancelled => "CANCELLED",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Unavailable => "UNAVAILABLE",
        _ => "another code",
    }
}

/// Adds a deadline to a message.
fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Saves a draft. Returns the status of a failure.
async fn save(mut client: CertificateServiceClient<Channel>, cert_id: &str, timeout: Duration) -> Status {
    client.save_info(within(timeout, draft(cert_id))).await.err().unwrap_or_else(|| Status::ok(""))
}

// docs: watch
/// Calls `each` with the states of a certificate, and returns the final one. Watches again after UNAVAILABLE, such as
/// after a restart.
async fn watch(
    client: &mut CertificateServiceClient<Channel>,
    cert_id: &str,
    mut each: impl FnMut(&Certificate),
) -> Result<Certificate, Status> {
    let request = WatchCertificateRequest { cert_id: cert_id.to_owned(), ..WatchCertificateRequest::default() };
    loop {
        match watch_once(client, request.clone(), &mut each).await {
            // tonic reports a lost connection as UNKNOWN, with the error as its source.
            Err(status) if status.code() == Code::Unavailable || status.source().is_some() => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            end => return end,
        }
    }
}

async fn watch_once(
    client: &mut CertificateServiceClient<Channel>,
    request: WatchCertificateRequest,
    each: &mut impl FnMut(&Certificate),
) -> Result<Certificate, Status> {
    let mut responses = client.watch_certificate(request).await?.into_inner();
    let mut certificate = Certificate::default();
    while let Some(response) = responses.message().await? {
        certificate = response.certificate.unwrap_or_default();
        each(&certificate);
    }
    Ok(certificate)
}
// docs: end

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [address, traceparent, paid, drain @ ..] = &arguments[..] else { return Err("see the usage".into()) };
    let timeout = Duration::from_secs(5);
    // docs: channel
    // A PING every minute notices a connection that is lost.
    let endpoint =
        Endpoint::from_shared(format!("http://{address}"))?.http2_keep_alive_interval(Duration::from_secs(60));
    let mut client = CertificateServiceClient::new(endpoint.connect_lazy());
    // docs: end
    if !drain.is_empty() {
        println!("drain: {}", name(&save(client, CERT_ID, timeout).await));
        return Ok(());
    }

    let mut request = within(timeout, draft(CERT_ID));
    request.metadata_mut().insert("traceparent", traceparent.parse()?);
    let saved = client.save_info(request).await?;
    println!("SaveInfo: {}", saved.get_ref().request_info);
    let id_of = |metadata: &MetadataMap| metadata.get("x-upstream-request-id").map_or("missing", |_| "given");
    println!("request id: {}", id_of(saved.metadata()));
    let request = ReadInfoRequest { cert_id: CERT_ID.to_owned(), ..ReadInfoRequest::default() };
    let read = client.read_info(within(timeout, request)).await?.into_inner();
    println!("ReadInfo: {}", read.info.unwrap_or_default().domain);

    // docs: apply
    let application = ApplyCertificateRequest {
        cert_id: paid.clone(),
        domain: "www.example.com".to_owned(),
        applicant_name: "Ann Example".to_owned(),
        applicant_phone: "13212345678".to_owned(),
        applicant_email: "ann@example.com".to_owned(),
        agree_privacy_protection: true,
        domain_method: "DNS".to_owned(),
        ..ApplyCertificateRequest::default()
    };
    let applied = client.apply_certificate(within(timeout, application)).await?.into_inner();
    println!("ApplyCertificate: {}", applied.request_info);

    let mut published = HashSet::new();
    let publish = |certificate: &Certificate| {
        for proof in &certificate.domain_proofs {
            let record = format!("{} {} {}", proof.record_name, proof.record_type, proof.record_value);
            if published.insert(record.clone()) {
                println!("publish {record}");
            }
        }
    };
    // 60 s are enough for the emulator: a CA can take days.
    let certificate = tokio::time::timeout(Duration::from_secs(60), watch(&mut client, paid, publish)).await??;
    println!("watch: {}", certificate.status);
    if certificate.status != "ISSUED" {
        return Err("not issued".into());
    }
    // docs: end

    // docs: push
    let push = BatchPushCertificateRequest {
        cert_id: paid.clone(),
        target_projects: vec!["cn-north-4".to_owned(), UNKNOWN.to_owned()],
        target_service: "WAF".to_owned(),
        ..BatchPushCertificateRequest::default()
    };
    for result in client.batch_push_certificate(within(timeout, push)).await?.into_inner().results {
        if result.pushed {
            println!("pushed: {}", result.project_name);
        } else {
            println!("not pushed: {}: {}", result.project_name, result.message);
        }
    }
    // docs: end

    let draft = WatchCertificateRequest { cert_id: CERT_ID.to_owned(), ..WatchCertificateRequest::default() };
    let mut watched = client.watch_certificate(within(Duration::from_millis(700), draft.clone())).await?.into_inner();
    let status = loop {
        match watched.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break Status::ok(""),
            Err(status) => break status,
        }
    };
    println!("watch deadline: {}", name(&status));
    // Dropping a watch cancels it.
    let mut watched = client.watch_certificate(draft).await?.into_inner();
    watched.message().await?;
    drop(watched);

    let details = save(client.clone(), "!", timeout).await.get_error_details();
    let fields: Vec<_> =
        details.bad_request().iter().flat_map(|bad| &bad.field_violations).map(|v| &*v.field).collect();
    println!("BadRequest: {}", fields.join(" "));
    let info = details.error_info().ok_or("no ErrorInfo")?;
    println!("ErrorInfo: {} {}", info.domain, info.reason);

    // This gateway allows one call in flight, and the emulator takes half a second for a reply.
    let (one, other) = tokio::join!(save(client.clone(), CERT_ID, timeout), save(client.clone(), CERT_ID, timeout));
    let shed = if one.code() == Code::Ok { other } else { one };
    let details = shed.get_error_details();
    println!("overload: {} {}", name(&shed), details.error_info().ok_or("no ErrorInfo")?.reason);
    let delay = details.retry_info().and_then(|retry| retry.retry_delay).ok_or("no RetryInfo")?;
    println!("RetryInfo: {} s", delay.as_secs());

    println!("deadline: {}", name(&save(client.clone(), CERT_ID, Duration::from_millis(200)).await));
    // Dropping a call cancels it.
    let call = tokio::spawn(async move { save(client, CERT_ID, timeout).await });
    call.abort();
    println!("cancel: {}", name(&call.await.unwrap_or_else(|_| Status::cancelled(""))));
    Ok(())
}
