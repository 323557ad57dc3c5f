//! A defect of the gateway, in a process of its own: what is done at a panic is the process's.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use scm_gateway::{
    config::{self, Config, Environment},
    edge::{
        self,
        connections::{Admission, Connections},
        listener::Listener,
        routes::Routes,
    },
    proto::{
        ReadInfoRequest, ReadInfoResponse, SaveInfoRequest, SaveInfoResponse,
        certificate_service_client::CertificateServiceClient,
        certificate_service_server::{CertificateService, CertificateServiceServer},
    },
    telemetry::{Telemetry, log},
    workers::Workers,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status, service, transport::Endpoint};
use tonic_types::StatusExt as _;

/// Panics with what the caller says.
struct Defective;

#[tonic::async_trait]
impl CertificateService for Defective {
    async fn save_info(&self, request: Request<SaveInfoRequest>) -> Result<Response<SaveInfoResponse>, Status> {
        panic!("{}", request.into_inner().cert_id);
    }

    async fn read_info(&self, _: Request<ReadInfoRequest>) -> Result<Response<ReadInfoResponse>, Status> {
        Ok(Response::new(ReadInfoResponse::default()))
    }
}

/// A log that can be read.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config() -> Config {
    let variables = [
        ("HUAWEICLOUD_SDK_AK", "AK"),
        ("HUAWEICLOUD_SDK_SK", "SK"),
        ("HUAWEICLOUD_SDK_PROJECT_ID", "p"),
        ("SCM_GATEWAY__SERVER__LISTEN", "127.0.0.1:0"),
    ];
    let environment = Environment::from_iter(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    config::load(None, &environment).unwrap()
}

/// The edge as it is, around such a service; where it listens.
async fn serve(config: Config, telemetry: Arc<Telemetry>) -> String {
    let routes = Routes::new(CertificateServiceServer::new(Defective), service::Routes::default());
    let (calls, abandon, most) = (TaskTracker::new(), CancellationToken::new(), Duration::from_secs(10));
    let stack = edge::stack(routes, telemetry.clone(), calls.clone(), Arc::default(), most, &config.server);
    let admission = Admission { tls: None, source: config.server.identity, callers: Arc::default() };
    let connections =
        Connections::new(admission, &config.server.connections, Workers::here().balancer(), most, &telemetry.meter);
    let listener = Listener::bind(&config.server.listen).await.unwrap();
    let address = format!("http://{listener}");
    tokio::spawn(async move {
        edge::serve(listener, stack, std::future::pending(), calls, connections, Duration::ZERO, abandon).await;
    });
    address
}

#[tokio::test]
async fn a_panic_costs_its_own_call_is_counted_and_keeps_its_words() {
    let lines = Lines::default();
    let log = log::start_to(lines.clone(), Some("trace"));
    log::hook_panics();
    let config = config();
    let telemetry = Arc::new(Telemetry::start(&config.telemetry).unwrap());
    let count = || {
        let text = telemetry.prometheus_text().unwrap();
        let line = text.lines().find(|line| line.starts_with("scm_gateway_panics_total")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let address = serve(config, telemetry.clone()).await;
    let mut client = CertificateServiceClient::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap());
    assert_eq!(count(), 0);
    for number in 1..=3 {
        let request = SaveInfoRequest { cert_id: "p1anted".to_owned(), ..SaveInfoRequest::default() };
        let status = client.save_info(request).await.unwrap_err();
        let details = status.get_error_details();
        assert_eq!((status.code(), details.error_info().unwrap().reason.as_str()), (Code::Internal, "PANIC"));
        assert!(!format!("{status:?}").contains("p1anted"), "{status:?}");
        assert_eq!(count(), number);
        client.read_info(ReadInfoRequest::default()).await.unwrap();
    }
    log.finish(log::LAST_LINES);
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!log.contains("p1anted"), "{log}");
    let panics: Vec<_> = log.lines().filter(|line| line.contains(r#""message":"panic""#)).collect();
    assert_eq!(panics.len(), 3, "{log}");
    assert!(panics[0].contains("tests/panics.rs:") && panics[0].contains("ERROR"), "{}", panics[0]);
}
