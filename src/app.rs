//! The gateway as a whole: builds everything from a configuration, serves, drains, flushes telemetry.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::oneshot, task::JoinSet, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::{Clock, Moment},
    config::Config,
    grpc::{
        auth::AccessPolicy,
        connection::{Admission, Connections, listener::Listener, tls::Tls},
        gateway::Gateway,
        health::Health,
        routes::{self, Rpcs},
        server::Server,
        stack,
    },
    ops::{
        admin::{Admin, Pages},
        readiness::Readiness,
        telemetry::{self, Telemetry},
    },
    reload,
    runtime::Workers,
    scm::{
        client::{Upstream, transport},
        credentials::refresher,
    },
};

mod status;

use status::Sources;

/// The gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("{key}: cannot listen on {address}: {error}")]
    Listen {
        /// The configuration key of the address.
        key: &'static str,
        /// The address.
        address: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The worker threads cannot be started.
    #[error("server.worker_threads: {0}")]
    Workers(#[from] io::Error),
    /// The client of SCM cannot be built.
    #[error(transparent)]
    Upstream(#[from] transport::BuildError),
    /// The listener's certificate cannot be used.
    #[error("server.tls: {0}")]
    Tls(#[from] rustls::Error),
    /// Telemetry cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] telemetry::StartError),
}

/// The addresses of a running gateway. For port 0 in the configuration they have the port that the system chose.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The gRPC listener, `IP:PORT` or `unix:PATH`.
    pub server: String,
    /// The admin listener.
    pub admin: SocketAddr,
}

/// How `[server] drain` is divided. All phases together take no longer.
struct Shutdown {
    /// How long new connections are still accepted after health has become NOT_SERVING.
    lame_duck: Duration,
    /// How long connections drain.
    drain: Duration,
    /// How long telemetry is flushed, if there is an exporter.
    flush: Option<Duration>,
}

impl Shutdown {
    /// Divides `drain`. `flush_timeout` is `None` without an exporter.
    fn new(drain: Duration, lame_duck: Duration, flush_timeout: Option<Duration>) -> Self {
        let flush = flush_timeout.map(|timeout| timeout.min(drain / 4));
        let other = lame_duck + flush.unwrap_or_default() + log_flush_timeout(drain);
        Self { lame_duck, drain: drain.saturating_sub(other), flush }
    }
}

/// Returns the part of `drain` in which the last log lines are written, after everything else.
pub fn log_flush_timeout(drain: Duration) -> Duration {
    telemetry::log::FLUSH_TIMEOUT.min(drain / 20)
}

/// Runs a gateway on these workers until `stop` completes and the gateway has drained. Sends the addresses to `started` once
/// calls are accepted.
pub async fn run(
    config: Config,
    workers: Workers,
    clock: Clock,
    started: oneshot::Sender<Addresses>,
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let app = App::build(&config, workers, clock).await?;
    app.serve(started, stop).await;
    Ok(())
}

/// A gateway whose listeners are bound.
struct App {
    server: Server<Rpcs>,
    health: Health,
    addresses: Addresses,
    /// The admin listener, and the tasks that reload files and refresh credentials.
    tasks: JoinSet<()>,
    telemetry: Arc<Telemetry>,
    workers: Workers,
    shutdown: Shutdown,
}

impl App {
    async fn build(config: &Config, workers: Workers, clock: Clock) -> Result<Self, StartError> {
        let telemetry = Arc::new(Telemetry::start(&config.telemetry)?);
        let meter = &telemetry.meter;
        workers.register_metrics(meter);
        let abort = CancellationToken::new();
        let upstream = upstream(config, &telemetry, &clock, workers.count(), abort.clone())?;
        let projects = upstream.projects().clone();
        let transport = upstream.transport().clone();
        let tls = config.server.tls.as_ref().map(|tls| Tls::new(&tls.material)).transpose()?;
        let policy = Arc::new(AccessPolicy::new(&config.callers));
        let calls = TaskTracker::new();
        let usable = projects.clone();
        let readiness = Readiness::new(move || usable.has_usable_credentials());
        let health = Health::new(readiness.clone(), config.server.services());
        let gateway = Gateway::new(upstream, policy.clone(), config, &telemetry, abort.clone());
        let routes = routes::all(&config.server, gateway.clone(), &health);
        let max_duration = config.upstream.timeout;
        let shared = stack::Shared::new(telemetry.clone(), calls.clone(), policy.clone(), max_duration, &config.server);
        let admission = Admission { tls: tls.clone(), source: config.server.identity, policy };
        let limits = &config.server.connections;
        let connections = Arc::new(Connections::new(routes, shared, admission, limits, workers.picker(), meter));

        let listener = listen(config).await?;
        let (admin_listener, admin_address) = listen_admin(config).await?;
        let addresses = Addresses { server: listener.to_string(), admin: admin_address };
        let mut tasks = JoinSet::new();
        let sources = Sources {
            clock: clock.clone(),
            started: Moment::now(&clock),
            addresses: addresses.clone(),
            readiness: readiness.clone(),
            tls: tls.clone(),
            gateway,
            connections: connections.clone(),
            telemetry: telemetry.clone(),
        };
        let pages = config.admin.pages.then(|| Pages::new(move || sources.status(), config.listing()));
        tasks.spawn(Admin::new(telemetry.clone(), readiness, admin_address.ip(), pages).serve(admin_listener));
        tasks.spawn(reload::credentials(config.projects.clone(), projects.clone(), meter.clone()));
        tasks.spawn(refresher::refresh(&config.projects, &projects, &transport, &clock, meter));
        if let Some(ca) = config.upstream.ca.clone() {
            tasks.spawn(reload::trust_roots(ca, transport, meter.clone()));
        }
        if let Some((config, tls)) = config.server.tls.clone().zip(tls) {
            tls.register_metrics(meter, clock.clone());
            tasks.spawn(reload::listener(config, tls, clock, meter.clone()));
        }
        let server = Server { listener, connections, calls, abort };
        let flush_timeout = config.telemetry.has_exporter().then_some(telemetry::FLUSH_TIMEOUT);
        let shutdown = Shutdown::new(config.server.drain, config.server.lame_duck, flush_timeout);
        Ok(Self { server, health, addresses, tasks, telemetry, workers, shutdown })
    }

    async fn serve(self, started: oneshot::Sender<Addresses>, stop: impl Future<Output = ()>) {
        let Self { server, mut health, addresses, tasks, telemetry, workers, shutdown } = self;
        health.publish().await;
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(listen = %addresses.server, admin = %addresses.admin, version, "serving");
        let _ = started.send(addresses); // the receiver may have been dropped
        let stop = async {
            tokio::select! { () = stop => {}, () = health.follow() => {} }
            tracing::info!("draining");
            health.drain().await;
            sleep(shutdown.lame_duck).await;
            health.end_watches().await;
        };
        server.serve(stop, shutdown.drain).await;
        drop(workers); // the calls that this aborts end their spans and write their log lines
        if let Some(limit) = shutdown.flush {
            telemetry.shutdown(limit).await;
        }
        drop(tasks); // the admin listener answers until the end
        tracing::info!("stopped");
    }
}

/// Builds everything that [`run`] builds, without binding a listener: for `--check`.
pub async fn check(config: &Config) -> Result<(), StartError> {
    let telemetry = Arc::new(Telemetry::check(&config.telemetry)?);
    let clock = Clock::system();
    let upstream = upstream(config, &telemetry, &clock, 1, CancellationToken::new())?;
    config.server.tls.as_ref().map(|tls| Tls::new(&tls.material)).transpose()?;
    // Never polled, so nothing is sent.
    drop(refresher::refresh(&config.projects, upstream.projects(), upstream.transport(), &clock, &telemetry.meter));
    Ok(())
}

fn upstream(
    config: &Config,
    telemetry: &Arc<Telemetry>,
    clock: &Clock,
    workers: usize,
    abort: CancellationToken,
) -> Result<Upstream, transport::BuildError> {
    Upstream::new(&config.upstream, &config.projects, telemetry.clone(), clock.clone(), workers, abort)
}

async fn listen(config: &Config) -> Result<Listener, StartError> {
    let listen = &config.server.listen;
    Listener::bind(listen).await.map_err(|error| StartError::Listen {
        key: "server.listen",
        address: listen.to_string(),
        error,
    })
}

async fn listen_admin(config: &Config) -> Result<(TcpListener, SocketAddr), StartError> {
    let address = config.admin.listen;
    let failed = |error| StartError::Listen { key: "admin.listen", address: address.to_string(), error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Shutdown;

    #[test]
    fn flush_time_is_kept_back_only_with_an_exporter() {
        let secs = Duration::from_secs;
        let divided = |drain, flush_timeout| {
            let shutdown = Shutdown::new(drain, secs(2), flush_timeout);
            (shutdown.drain, shutdown.flush)
        };
        assert_eq!(divided(secs(20), Some(secs(2))), (secs(15), Some(secs(2))));
        assert_eq!(divided(secs(20), None), (secs(17), None));
        assert_eq!(divided(secs(4), Some(secs(2))), (Duration::from_millis(800), Some(secs(1))));
        assert_eq!(divided(secs(2), None), (Duration::ZERO, None));
    }
}
