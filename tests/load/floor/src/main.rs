//! The floor: SaveInfo with tonic, the vendor's signature and reqwest, without validation, deadlines, retries and
//! telemetry. `floor UPSTREAM-URL [ADDRESS]` listens on ADDRESS, by default on a free port, and prints the address.

use bytes::Bytes;
use floor::proto::{
    ReadInfoRequest, ReadInfoResponse, SaveInfoRequest, SaveInfoResponse,
    certificate_service_server::{CertificateService, CertificateServiceServer},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{
    Client, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use sha2::{Digest as _, Sha256};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

const ACCESS_KEY: &str = "EXAMPLEAK0000000000A";
const SECRET_KEY: &[u8] = b"EXAMPLESK/not+a=real";
const SIGNED: &str = "content-type;host;x-sdk-date";

struct Floor {
    client: Client,
    upstream: String,
    host: String,
}

#[tonic::async_trait]
impl CertificateService for Floor {
    async fn save_info(&self, request: Request<SaveInfoRequest>) -> Result<Response<SaveInfoResponse>, Status> {
        let SaveInfoRequest { project_id, cert_id, info } = request.into_inner();
        let path = format!("/v2/{project_id}/scm/cert/{cert_id}/save");
        let body = Bytes::from(serde_json::to_vec(&info).map_err(|_| Status::internal("json"))?);
        let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut authorization = HeaderValue::from_str(&authorization(&path, &self.host, &date, &body))
            .map_err(|_| Status::internal("header"))?;
        authorization.set_sensitive(true);
        let sent = self
            .client
            .post(format!("{}{path}", self.upstream))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("x-sdk-date", date)
            .header(AUTHORIZATION, authorization)
            .body(body);
        let answer = sent.send().await.and_then(reqwest::Response::error_for_status).map_err(unavailable)?;
        let answer = answer.bytes().await.map_err(unavailable)?;
        serde_json::from_slice(&answer).map(Response::new).map_err(|_| Status::internal("reply"))
    }

    async fn read_info(&self, _: Request<ReadInfoRequest>) -> Result<Response<ReadInfoResponse>, Status> {
        Err(Status::unimplemented("the floor implements SaveInfo only"))
    }
}

fn unavailable(error: reqwest::Error) -> Status {
    Status::unavailable(error.to_string())
}

/// Signs the request with SDK-HMAC-SHA256.
fn authorization(path: &str, host: &str, date: &str, body: &[u8]) -> String {
    let canonical = format!(
        "POST\n{path}/\n\ncontent-type:application/json\nhost:{host}\nx-sdk-date:{date}\n\n{SIGNED}\n{}",
        hex::encode(Sha256::digest(body))
    );
    let to_sign = format!("SDK-HMAC-SHA256\n{date}\n{}", hex::encode(Sha256::digest(canonical)));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET_KEY).expect("HMAC takes a key of any length");
    mac.update(to_sign.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    format!("SDK-HMAC-SHA256 Access={ACCESS_KEY}, SignedHeaders={SIGNED}, Signature={signature}")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let upstream = std::env::args().nth(1).ok_or("usage: floor UPSTREAM-URL")?;
    let host = Url::parse(&upstream)?.authority().to_owned();
    let client = Client::builder().no_proxy().http1_only().build()?;
    let address = std::env::args().nth(2).unwrap_or("127.0.0.1:0".to_owned());
    let incoming = TcpIncoming::bind(address.parse()?)?.with_nodelay(Some(true));
    println!("listening on {}", incoming.local_addr()?);
    let service = CertificateServiceServer::new(Floor { client, upstream, host });
    Server::builder().add_service(service).serve_with_incoming(incoming).await?;
    Ok(())
}
