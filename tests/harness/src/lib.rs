//! Runs a gateway in front of the emulator, creates clients, and reads statuses, metrics and logs.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::new_without_default,
    missing_docs,
    reason = "test code"
)]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    net::SocketAddr,
    str::FromStr,
    time::{Duration, SystemTime},
};

use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use prost_reflect::{DynamicMessage, MethodDescriptor};
use scm_emulator::{
    CredentialService, Emulator, Issuer, Metadata, Options, SAMPLE_ACCESS_KEY, SAMPLE_PROJECT, SAMPLE_SECRET_KEY,
    ServiceOptions, Step,
};
use scm_gateway::{
    app::{Addresses, StartError, run},
    clock::Clock,
    config::{self, Environment},
    grpc::service::certificate_service_client::CertificateServiceClient,
    proto::{CertificateInfo, ReadInfoRequest, SaveInfoRequest, SaveInfoResponse},
    runtime::Workers,
};
use tokio::{net::TcpSocket, sync::oneshot, task::JoinHandle};
use tonic::{
    Code, IntoRequest, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

pub mod facts;
pub mod folder;
pub mod otlp_sink;
pub mod pki;
pub mod process;
pub mod raw;
pub mod rpc;
pub mod samples;
pub mod suite_log;

/// A client transport without a timeout.
pub type UntimedTransport = legacy::Client<HttpConnector, tonic::body::Body>;

pub const CERT: &str = "scs1481110651012";

/// A running gateway. Dropping it stops the gateway.
pub struct Gateway {
    pub addresses: Addresses,
    pub client: CertificateServiceClient<Channel>,
    channel: Channel,
    stop: Option<oneshot::Sender<()>>,
    run: JoinHandle<Result<(), StartError>>,
}

impl Gateway {
    /// Starts a gateway in front of the emulator, with the default configuration.
    pub async fn of(emulator: &Emulator) -> Self {
        Self::with(emulator, &[]).await
    }

    /// Starts a gateway in front of the emulator, with these variables.
    pub async fn with(emulator: &Emulator, variables: &[(&str, &str)]) -> Self {
        Self::start(environment(&emulator.endpoint(), variables), Clock::system()).await
    }

    /// Starts a gateway in front of the emulator that has no access key of its own.
    pub async fn without_access_key(emulator: &Emulator, variables: &[(&str, &str)]) -> Self {
        Self::start(environment_without_access_key(&emulator.endpoint(), variables), Clock::system()).await
    }

    /// Starts a gateway that serves every method, also those that have to be named.
    pub async fn serving_all(emulator: &Emulator, variables: &[(&str, &str)]) -> Self {
        let methods = rpc::names();
        Self::with(emulator, &[&[("SCM_GATEWAY__SERVER__METHODS", methods.as_str())], variables].concat()).await
    }

    pub async fn start(environment: Environment, clock: Clock) -> Self {
        suite_log::start();
        let config = config::load(None, &environment, &clock).unwrap();
        let (started, addresses) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let run = tokio::spawn(run(config, Workers::current(), clock, started, async {
            let _ = stopped.await;
        }));
        let addresses = addresses.await.unwrap();
        let channel = endpoint(&addresses.server).connect_lazy();
        let client = CertificateServiceClient::new(channel.clone());
        Self { addresses, client, channel, stop: Some(stop), run }
    }

    pub async fn save(&self, request: SaveInfoRequest) -> Result<Response<SaveInfoResponse>, Status> {
        self.client.clone().save_info(request).await
    }

    /// Calls any RPC.
    pub async fn call(
        &self,
        rpc: &rpc::Rpc,
        request: impl IntoRequest<DynamicMessage>,
    ) -> Result<Response<DynamicMessage>, Status> {
        rpc::call(self.channel.clone(), rpc, request).await
    }

    /// Calls any RPC, also one that streams. Returns all responses.
    pub async fn responses(
        &self,
        method: &MethodDescriptor,
        request: impl IntoRequest<DynamicMessage>,
    ) -> Result<Response<Vec<DynamicMessage>>, Status> {
        rpc::responses(self.channel.clone(), method, request).await
    }

    pub async fn channel(&self) -> Channel {
        channel(&self.addresses.server).await
    }

    pub fn untimed_client(&self) -> CertificateServiceClient<UntimedTransport> {
        untimed_client(&self.addresses.server)
    }

    /// Starts to drain.
    pub fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits until the gateway has drained and stopped.
    pub async fn stopped(&mut self) {
        (&mut self.run).await.unwrap().unwrap();
    }

    /// Returns the value of the first metric series that starts with `series`.
    pub async fn metric<T: FromStr<Err: Debug>>(&self, series: &str) -> T {
        value_of(&self.admin("/metrics").await.1, series)
    }

    /// Returns the status and body of an admin page.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("http://{}{path}", self.addresses.admin)).await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        if path == "/metrics" {
            suite_log::add_metrics(&text);
        }
        (status, text)
    }
}

/// An address that refuses connections. No other test gets its port, because a socket that does not listen holds it.
pub struct Refusing {
    pub address: SocketAddr,
    _socket: TcpSocket,
}

impl Refusing {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { address: socket.local_addr().unwrap(), _socket: socket }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.run.abort();
    }
}

/// Polls until the condition is met.
///
/// # Panics
///
/// After half a minute, naming `what` was waited for.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let polls = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), polls).await.unwrap_or_else(|_| panic!("waited for {what}"));
}

/// Returns the endpoint of an address that the gateway logs.
fn endpoint(address: &str) -> Endpoint {
    if address.starts_with("unix:") {
        Endpoint::from_shared(address.to_owned()).unwrap().origin("http://localhost".parse().unwrap())
    } else {
        Endpoint::from_shared(format!("http://{address}")).unwrap()
    }
}

pub async fn channel(address: &str) -> Channel {
    endpoint(address).connect().await.unwrap()
}

pub async fn client(address: &str) -> CertificateServiceClient<Channel> {
    CertificateServiceClient::new(channel(address).await)
}

/// Creates a client that leaves deadlines to the server. tonic's channel would enforce them itself.
pub fn untimed_client(address: &str) -> CertificateServiceClient<UntimedTransport> {
    let http = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    CertificateServiceClient::with_origin(http, format!("http://{address}").parse().unwrap())
}

/// Returns a minimal environment plus these variables, with ports that the system selects.
pub fn environment(endpoint: &str, variables: &[(&str, &str)]) -> Environment {
    let mut environment: Environment = BTreeMap::from_iter(
        [
            ("HUAWEICLOUD_SDK_AK", SAMPLE_ACCESS_KEY),
            ("HUAWEICLOUD_SDK_SK", SAMPLE_SECRET_KEY),
            ("HUAWEICLOUD_SDK_PROJECT_ID", SAMPLE_PROJECT),
            ("SCM_GATEWAY__SERVER__LISTEN", "127.0.0.1:0"),
            ("SCM_GATEWAY__SERVER__LAME_DUCK", "0s"),
            ("SCM_GATEWAY__ADMIN__LISTEN", "127.0.0.1:0"),
            ("SCM_GATEWAY__UPSTREAM__ENDPOINT", endpoint),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    environment
}

/// Returns an environment like [`environment`], but without the access key.
pub fn environment_without_access_key(endpoint: &str, variables: &[(&str, &str)]) -> Environment {
    let mut environment = environment(endpoint, variables);
    environment.retain(|name, _| name != "HUAWEICLOUD_SDK_AK" && name != "HUAWEICLOUD_SDK_SK");
    environment
}

/// The variable with the endpoint of a metadata service.
pub const METADATA_ENDPOINT: &str = "SCM_GATEWAY__UPSTREAM__METADATA_ENDPOINT";

/// Starts a metadata service whose credentials the emulator of the issuer accepts.
pub async fn metadata_service(issuer: &Issuer) -> CredentialService {
    CredentialService::start(Metadata::default(), ServiceOptions::default(), issuer).await.unwrap()
}

/// Returns a length-prefixed message, whose flag is 1 if it is compressed (gRPC over HTTP/2).
pub fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, message].concat()
}

/// Returns the value of the first series on a metrics page that starts with `series`.
pub fn value_of<T: FromStr<Err: Debug>>(page: &str, series: &str) -> T {
    let line = page.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series} in {page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Starts a call, and returns once it has arrived at the emulator, which applies this step.
pub async fn in_flight(
    emulator: &Emulator,
    step: Step,
    mut client: CertificateServiceClient<Channel>,
) -> JoinHandle<Result<Response<SaveInfoResponse>, Status>> {
    let before = emulator.attempts();
    emulator.script(step);
    let call = tokio::spawn(async move { client.save_info(sample()).await });
    emulator.wait_for_attempts(before + 1).await;
    call
}

pub async fn emulator() -> Emulator {
    Emulator::start(Options::default()).await.unwrap()
}

/// A fixed clock at 2022-08-09T04:05:06Z.
pub fn standing() -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_660_017_906)
}

/// The values of the vendor's example.
pub fn sample_info() -> CertificateInfo {
    CertificateInfo {
        domain: "www.xzz.com".into(),
        company_name: "Huawei Chengdu branch".into(),
        company_unit: Some("Human Resource Dept".into()),
        company_province: "Sichuan".into(),
        company_city: "Chengdu".into(),
        country: "CN".into(),
        applicant_name: "Tom".into(),
        applicant_phone: "13212345678".into(),
        applicant_email: "9997342346@qq.com".into(),
        contact_name: Some("Jacky".into()),
        contact_phone: Some("13512345678".into()),
        contact_email: Some("jk@jk.ff".into()),
        agree_privacy_protection: true,
        ..CertificateInfo::default()
    }
}

pub fn sample() -> SaveInfoRequest {
    SaveInfoRequest { project_id: String::new(), cert_id: CERT.into(), info: Some(sample_info()) }
}

pub fn read() -> ReadInfoRequest {
    ReadInfoRequest { project_id: String::new(), cert_id: CERT.into() }
}

/// The parts of a status that a client acts on.
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub code: Code,
    pub reason: String,
    pub metadata: BTreeMap<String, String>,
}

pub fn seen(status: &Status) -> Seen {
    let details = status.get_error_details();
    let info = details.error_info().expect("every status of the gateway has an ErrorInfo").clone();
    assert_eq!(info.domain, "scm-gateway");
    Seen { code: status.code(), reason: info.reason, metadata: info.metadata.into_iter().collect() }
}

/// Asserts the code, the reason and the number of attempts of a status.
pub fn assert_status(status: &Status, code: Code, reason: &str, attempts: Option<u32>) {
    let seen = seen(status);
    assert_eq!((seen.code, seen.reason.as_str()), (code, reason), "{status:?}");
    assert_eq!(seen.metadata.get("attempts").cloned(), attempts.map(|n| n.to_string()), "attempts of {status:?}");
}

/// Returns the proto paths of the invalid fields, in the order of the status.
pub fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let request = details.bad_request().expect("the status has a BadRequest");
    request.field_violations.iter().map(|v| v.field.clone()).collect()
}
