//! SaveInfo with tonic and the vendor's signature, without validation, deadlines, retries and telemetry.
//! `PROGRAM UPSTREAM-URL [ADDRESS]` listens on ADDRESS, by default on a free port, and prints the address.

use std::fmt::Display;

use bytes::Bytes;
use http::{HeaderValue, Uri};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    proto::{
        SaveInfoRequest, SaveInfoResponse,
        certificate_service_server::{CertificateService, CertificateServiceServer},
    },
    signature::authorization,
};

/// The HTTP client of a floor.
pub trait Client: Send + Sync + 'static {
    /// Why a request failed.
    type Error: Display + Send;

    /// Sends a POST with JSON and the headers `x-sdk-date` and `authorization`. Returns the body of a success.
    fn post(
        &self,
        url: String,
        date: String,
        authorization: HeaderValue,
        body: Bytes,
    ) -> impl Future<Output = Result<Bytes, Self::Error>> + Send;
}

struct Floor<C> {
    client: C,
    upstream: String,
    host: String,
}

#[tonic::async_trait]
impl<C: Client> CertificateService for Floor<C> {
    async fn save_info(&self, request: Request<SaveInfoRequest>) -> Result<Response<SaveInfoResponse>, Status> {
        let SaveInfoRequest { project_id, cert_id, info } = request.into_inner();
        let path = format!("/v2/{project_id}/scm/cert/{cert_id}/save");
        let body = Bytes::from(serde_json::to_vec(&info).map_err(|_| Status::internal("json"))?);
        let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut authorization = HeaderValue::from_str(&authorization(&path, &self.host, &date, &body))
            .map_err(|_| Status::internal("header"))?;
        authorization.set_sensitive(true);
        let sent = self.client.post(format!("{}{path}", self.upstream), date, authorization, body);
        let answer = sent.await.map_err(|error| Status::unavailable(error.to_string()))?;
        serde_json::from_slice(&answer).map(Response::new).map_err(|_| Status::internal("reply"))
    }
}

/// Serves calls with a client.
pub async fn serve(client: impl Client) -> Result<(), Box<dyn std::error::Error>> {
    let upstream = std::env::args().nth(1).ok_or("usage: PROGRAM UPSTREAM-URL [ADDRESS]")?;
    let host = upstream.parse::<Uri>()?.authority().ok_or("the URL has no host")?.to_string();
    let address = std::env::args().nth(2).unwrap_or("127.0.0.1:0".to_owned());
    let incoming = TcpIncoming::bind(address.parse()?)?.with_nodelay(Some(true));
    println!("listening on {}", incoming.local_addr()?);
    let service = CertificateServiceServer::new(Floor { client, upstream, host });
    Server::builder().add_service(service).serve_with_incoming(incoming).await?;
    Ok(())
}
