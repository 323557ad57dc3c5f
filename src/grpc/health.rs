//! Publishes the readiness as `grpc.health.v1`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, HealthService},
};

use crate::ops::readiness::{NotReady, Readiness};

mod service;

use service::Service;

/// How often the readiness is polled for the health service.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The health service, which gets the readiness when it has changed.
pub struct Health {
    readiness: Arc<Readiness>,
    /// The services with a health status: the whole gateway, and each RPC service with a method that is served.
    services: BTreeSet<&'static str>,
    reporter: HealthReporter,
    last_reported: Option<Result<(), NotReady>>,
    /// Cancelled when all watches end.
    watches_ended: CancellationToken,
}

impl Health {
    /// Creates the service for the RPC services `rpcs`. Until the first [`Health::publish`] it knows only the whole gateway, as serving.
    pub fn new(readiness: Arc<Readiness>, rpcs: impl Iterator<Item = &'static str>) -> Self {
        let services = rpcs.chain([""]).collect();
        let watches_ended = CancellationToken::new();
        Self { readiness, services, reporter: HealthReporter::new(), last_reported: None, watches_ended }
    }

    /// Returns the service that serves the published statuses.
    pub(super) fn service(&self) -> Service {
        Service::new(HealthService::from_health_reporter(self.reporter.clone()), self.watches_ended.clone())
    }

    /// Publishes the readiness at every poll, forever.
    pub async fn follow(&mut self) {
        loop {
            sleep(POLL_INTERVAL).await;
            self.publish().await;
        }
    }

    /// Publishes NOT_SERVING from now on.
    pub async fn drain(&mut self) {
        self.readiness.drain();
        self.publish().await;
    }

    /// Ends the health watches, which have received NOT_SERVING.
    pub async fn end_watches(&mut self) {
        for service in &self.services {
            self.reporter.clear_service_status(service).await;
        }
        self.watches_ended.cancel();
    }

    /// Publishes the readiness if it has changed. A watch gets every status that is set, so an unchanged one is not.
    pub async fn publish(&mut self) {
        let now = self.readiness.now();
        if self.last_reported == Some(now) {
            return;
        }
        match (self.last_reported, now) {
            (Some(_), Err(NotReady::NoUsableCredential)) => {
                tracing::warn!("not ready: no project has usable credentials")
            }
            (Some(_), Ok(())) => tracing::info!("ready: a project has usable credentials"),
            _ => {}
        }
        let status = if now.is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
        self.last_reported = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    };

    use futures_util::StreamExt as _;
    use tokio::time::timeout;
    use tonic::Request;
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus as Status, health_server::Health as _,
    };

    use super::{Health, NotReady, POLL_INTERVAL, Readiness};

    const SERVICES: [&str; 2] = ["", "package.Service"];

    #[tokio::test(start_paused = true)]
    async fn watches_get_changes_and_the_drain() {
        let usable = Arc::new(AtomicBool::new(true));
        let readiness = Readiness::new({
            let usable = usable.clone();
            move || usable.load(Relaxed)
        });
        let mut health = Health::new(readiness.clone(), ["package.Service"].into_iter());
        let service = health.service();
        health.publish().await;
        let mut watches = Vec::new();
        for service_name in SERVICES {
            let request = HealthCheckRequest { service: service_name.to_owned() };
            watches.push(service.watch(Request::new(request)).await.unwrap().into_inner());
        }
        let mut expect_status = async |expected: Option<Status>| {
            for watch in &mut watches {
                let next = timeout(POLL_INTERVAL, watch.next()).await.ok().map(|next| next.unwrap().unwrap().status());
                assert_eq!(next, expected);
            }
        };
        expect_status(Some(Status::Serving)).await;
        for (is_usable, now, expected) in [
            (true, Ok(()), None),
            (false, Err(NotReady::NoUsableCredential), Some(Status::NotServing)),
            (false, Err(NotReady::NoUsableCredential), None),
            (true, Ok(()), Some(Status::Serving)),
            (false, Err(NotReady::NoUsableCredential), Some(Status::NotServing)),
        ] {
            usable.store(is_usable, Relaxed);
            assert_eq!(readiness.now(), now);
            let _ = timeout(POLL_INTERVAL * 4, health.follow()).await;
            expect_status(expected).await;
        }
        usable.store(true, Relaxed);
        health.drain().await;
        assert_eq!(readiness.now(), Err(NotReady::Draining), "with any credentials");
        expect_status(Some(Status::NotServing)).await;
    }
}
