//! A panic in a handler fails only its own call. A separate test target, because the panic hook is process-wide.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use scm_gateway::{
    clock::Clock,
    config::{self, Config, Environment},
    grpc::{
        connection::{Admission, Connections, listener::Listener},
        routes::Routes,
        server::Server,
        service::{
            notification_service_client::NotificationServiceClient,
            notification_service_server::{NotificationService, NotificationServiceServer},
        },
        stack,
    },
    ops::telemetry::{Format, Telemetry, log},
    proto::{
        DisableNotificationRequest, DisableNotificationResponse, EnableNotificationRequest, EnableNotificationResponse,
    },
    runtime::Workers,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status, service, transport::Endpoint};
use tonic_types::StatusExt as _;

/// A service that panics with text of the caller.
struct Defective;

#[tonic::async_trait]
impl NotificationService for Defective {
    async fn enable_notification(
        &self,
        request: Request<EnableNotificationRequest>,
    ) -> Result<Response<EnableNotificationResponse>, Status> {
        panic!("{}", request.into_inner().project_id);
    }

    async fn disable_notification(
        &self,
        _: Request<DisableNotificationRequest>,
    ) -> Result<Response<DisableNotificationResponse>, Status> {
        Ok(Response::new(DisableNotificationResponse::default()))
    }
}

/// A log writer whose output can be read.
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
    config::load(None, &environment, &Clock::system()).unwrap()
}

/// Serves the defective service behind the real stack, and returns its address.
async fn serve(config: Config, telemetry: Arc<Telemetry>) -> String {
    let routes = Routes::new(NotificationServiceServer::new(Defective), service::Routes::default());
    let calls = TaskTracker::new();
    let max_duration = Duration::from_secs(10);
    let shared = stack::Shared::new(telemetry.clone(), calls.clone(), Arc::default(), max_duration, &config.server);
    let admission = Admission { tls: None, source: config.server.identity, policy: Arc::default() };
    let limits = &config.server.connections;
    let workers = Workers::current().picker();
    let connections = Arc::new(Connections::new(routes, shared, admission, limits, workers, &telemetry.meter));
    let listener = Listener::bind(&config.server.listen).await.unwrap();
    let address = format!("http://{listener}");
    let server = Server { listener, connections, calls, abort: CancellationToken::new() };
    tokio::spawn(server.serve(std::future::pending(), Duration::ZERO));
    address
}

#[tokio::test]
async fn a_panic_fails_only_its_own_call_and_is_counted() {
    let lines = Lines::default();
    let log = log::start_to(lines.clone(), Some("trace"));
    log::hook_panics();
    let config = config();
    let telemetry = Arc::new(Telemetry::start(&config.telemetry).unwrap());
    let count = || {
        let text = telemetry.exposition(Format::Text).unwrap();
        let line = text.lines().find(|line| line.starts_with("scm_gateway_panics_total")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let address = serve(config, telemetry.clone()).await;
    let mut client = NotificationServiceClient::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap());
    assert_eq!(count(), 0);
    for number in 1..=3 {
        let request = EnableNotificationRequest { project_id: "p1anted".to_owned(), ..Default::default() };
        let status = client.enable_notification(request).await.unwrap_err();
        let details = status.get_error_details();
        assert_eq!((status.code(), details.error_info().unwrap().reason.as_str()), (Code::Internal, "PANIC"));
        assert!(!format!("{status:?}").contains("p1anted"), "{status:?}");
        assert_eq!(count(), number);
        client.disable_notification(DisableNotificationRequest::default()).await.unwrap();
    }
    log.flush(log::FLUSH_TIMEOUT);
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!log.contains("p1anted"), "{log}");
    let panics: Vec<_> = log.lines().filter(|line| line.contains(r#""message":"panic""#)).collect();
    assert_eq!(panics.len(), 3, "{log}");
    assert!(panics[0].contains("tests/panics.rs:") && panics[0].contains("ERROR"), "{}", panics[0]);
}
