//! Saves the information of one certificate, or prints why the call failed.

use std::{env, error::Error, time::Duration};

use tonic::{Code, Request};
use tonic_types::{ErrorDetail, StatusExt as _};

mod scm {
    tonic::include_proto!("huaweicloud.scm.v1");
}

use scm::{CertificateInfo, SaveInfoRequest, certificate_service_client::CertificateServiceClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut client = CertificateServiceClient::connect("http://127.0.0.1:50051").await?;
    let mut request = Request::new(SaveInfoRequest {
        cert_id: env::args().nth(1).ok_or("usage: save CERT_ID")?,
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
    });
    request.set_timeout(Duration::from_secs(5));

    let status = match client.save_info(request).await {
        Ok(reply) => {
            println!("{}", reply.get_ref().request_info);
            return Ok(());
        }
        Err(status) => status,
    };
    println!("{}: {}", name(status.code()), status.message());
    for detail in status.get_error_details_vec() {
        match detail {
            ErrorDetail::ErrorInfo(info) => {
                let code = info.metadata.get("upstream_code").map_or("", String::as_str);
                println!("ErrorInfo {} {code}", info.reason);
            }
            ErrorDetail::BadRequest(request) => {
                for violation in request.field_violations {
                    println!("BadRequest {}: {}", violation.field, violation.description);
                }
            }
            ErrorDetail::RetryInfo(retry) => {
                println!("RetryInfo {} ms", retry.retry_delay.unwrap_or_default().as_millis());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the code as gRPC writes it, such as `INVALID_ARGUMENT`: tonic has `InvalidArgument`.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
