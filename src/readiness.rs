//! Whether calls are welcome here: `/readyz` asks, `grpc.health.v1` is told.
//!
//! Not from the drain on, and not while no project has a usable credential: then every call ends UPSTREAM_CREDENTIALS,
//! so who balances load, by either of the two, should go elsewhere. One project that has one is enough: the others'
//! callers are told what is wrong, and there is no readiness of a project. SCM's own state is no matter, for every
//! instance has the same SCM behind it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::sleep;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::proto::certificate_service_server::SERVICE_NAME;

/// How often it is looked for those who do not ask but are told.
const LOOK: Duration = Duration::from_millis(250);

/// The services whose health can be asked: the whole and ours.
const HEALTH_OF: [&str; 2] = ["", SERVICE_NAME];

/// Why calls are not welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// The end has begun.
    Draining,
    /// No project has a credential that can be used.
    NoUsableCredential,
}

impl NotReady {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::NoUsableCredential => "no usable credentials",
        }
    }
}

/// What decides it.
pub struct Readiness {
    draining: AtomicBool,
    has_credential: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Readiness {
    /// Ready whenever this says that a project has a usable credential, until the drain.
    pub fn new(has_credential: impl Fn() -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { draining: AtomicBool::new(false), has_credential: Box::new(has_credential) })
    }

    /// Whether calls are welcome at the moment.
    pub fn now(&self) -> Result<(), NotReady> {
        if self.draining.load(Relaxed) {
            Err(NotReady::Draining)
        } else if (self.has_credential)() {
            Ok(())
        } else {
            Err(NotReady::NoUsableCredential)
        }
    }
}

/// Tells `grpc.health.v1`.
pub struct Health {
    readiness: Arc<Readiness>,
    reporter: HealthReporter,
    told: Option<Result<(), NotReady>>,
}

impl Health {
    /// Tells it how things stand.
    pub async fn start(readiness: Arc<Readiness>, reporter: HealthReporter) -> Self {
        let mut health = Self { readiness, reporter, told: None };
        health.tell().await;
        health
    }

    /// Tells it of every change, for ever.
    pub async fn follow(&mut self) {
        loop {
            sleep(LOOK).await;
            self.tell().await;
        }
    }

    /// From now on calls are not welcome.
    pub async fn drain(&mut self) {
        self.readiness.draining.store(true, Relaxed);
        self.tell().await;
    }

    /// Ends the streams of those who watch: they have been told NOT_SERVING.
    pub async fn end_watches(&mut self) {
        for service in HEALTH_OF {
            self.reporter.clear_service_status(service).await;
        }
    }

    /// Only what is new: whoever watches gets every word.
    async fn tell(&mut self) {
        let now = self.readiness.now();
        if self.told == Some(now) {
            return;
        }
        match (self.told, now) {
            (Some(_), Err(NotReady::NoUsableCredential)) => {
                tracing::warn!("not ready: no project has usable credentials")
            }
            (Some(_), Ok(())) => tracing::info!("ready: a project has usable credentials"),
            _ => {}
        }
        let status = if now.is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in HEALTH_OF {
            self.reporter.set_service_status(service, status).await;
        }
        self.told = Some(now);
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
    use tonic_health::{
        pb::{HealthCheckRequest, health_check_response::ServingStatus as Told, health_server::Health as _},
        server::{HealthReporter, HealthService},
    };

    use super::{HEALTH_OF, Health, LOOK, NotReady, Readiness};

    #[tokio::test(start_paused = true)]
    async fn who_watches_is_told_of_changes_alone_and_of_the_drain() {
        let usable = Arc::new(AtomicBool::new(true));
        let readiness = Readiness::new({
            let usable = usable.clone();
            move || usable.load(Relaxed)
        });
        let reporter = HealthReporter::new();
        let service = HealthService::from_health_reporter(reporter.clone());
        let mut health = Health::start(readiness.clone(), reporter).await;
        let mut watches = Vec::new();
        for service_name in HEALTH_OF {
            let request = HealthCheckRequest { service: service_name.to_owned() };
            watches.push(service.watch(Request::new(request)).await.unwrap().into_inner());
        }
        let mut told = async |expected: Option<Told>| {
            for watch in &mut watches {
                let next = timeout(LOOK, watch.next()).await.ok().map(|next| next.unwrap().unwrap().status());
                assert_eq!(next, expected);
            }
        };
        told(Some(Told::Serving)).await;
        for (is_usable, now, expected) in [
            (true, Ok(()), None),
            (false, Err(NotReady::NoUsableCredential), Some(Told::NotServing)),
            (false, Err(NotReady::NoUsableCredential), None),
            (true, Ok(()), Some(Told::Serving)),
            (false, Err(NotReady::NoUsableCredential), Some(Told::NotServing)),
        ] {
            usable.store(is_usable, Relaxed);
            assert_eq!(readiness.now(), now);
            let _ = timeout(LOOK * 4, health.follow()).await;
            told(expected).await;
        }
        usable.store(true, Relaxed);
        health.drain().await;
        assert_eq!(readiness.now(), Err(NotReady::Draining), "whatever keys there are");
        told(Some(Told::NotServing)).await;
    }
}
