//! Clients over TLS, and the calls that they make.

use std::{sync::Arc, time::Duration};

use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::ClientConfig;
use scm_gateway::{
    grpc::service::certificate_service_client::CertificateServiceClient,
    proto::{CertificateInfo, ReadInfoRequest, SaveInfoRequest},
};
use tokio::time::timeout;
use tonic::{Request, Status};

use crate::{
    harness::{read, sample, sample_info},
    load_balancer::is_unprocessed,
};

/// Longer than any call may take.
const GUARD: Duration = Duration::from_secs(10);

/// A client that leaves deadlines to the server, as `harness::untimed_client`, over TLS.
pub type Client = CertificateServiceClient<legacy::Client<HttpsConnector<HttpConnector>, tonic::body::Body>>;

pub fn client(address: &str, tls: Arc<ClientConfig>) -> Client {
    let port = address.rsplit(':').next().unwrap();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let https = HttpsConnector::from((http, tls));
    let transport = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build(https);
    CertificateServiceClient::with_origin(transport, format!("https://localhost:{port}").parse().unwrap())
}

#[derive(Clone, Copy, PartialEq)]
pub enum Method {
    Save,
    Read,
}

/// A call, without its deadline. A save sets `company_unit` to its own `unit`.
pub struct Call {
    pub method: Method,
    pub cert_id: String,
    pub unit: String,
}

impl Call {
    /// Makes the call, and retries it if the server did not process it, as gRPC libraries do transparently. Returns the
    /// `company_unit` that was saved or read.
    pub async fn send(&self, client: impl Fn() -> Client, deadline: Option<Duration>) -> Result<String, Status> {
        loop {
            match timeout(GUARD, self.send_once(client(), deadline)).await {
                Ok(Err(status)) if is_unprocessed(&status) => {}
                Ok(result) => return result,
                Err(_) => return Err(Status::unknown("no response in 10 s")),
            }
        }
    }

    async fn send_once(&self, mut client: Client, deadline: Option<Duration>) -> Result<String, Status> {
        let cert_id = self.cert_id.clone();
        match self.method {
            Method::Save => {
                let info = CertificateInfo { company_unit: Some(self.unit.clone()), ..sample_info() };
                let message = SaveInfoRequest { cert_id, info: Some(info), ..sample() };
                client.save_info(request(message, deadline)).await.map(|_| self.unit.clone())
            }
            Method::Read => {
                let reply = client.read_info(request(ReadInfoRequest { cert_id, ..read() }, deadline)).await?;
                Ok(reply.into_inner().info.and_then(|info| info.company_unit).unwrap_or_default())
            }
        }
    }
}

fn request<T>(message: T, deadline: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    request
}
