//! Puts the rooms together: builds everything from a configuration, serves, drains, flushes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::oneshot, task::JoinSet, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::server::HealthReporter;

use crate::{
    admin::Admin,
    agency,
    caller::Callers,
    clock::Clock,
    config::Config,
    edge::{
        self,
        connections::{Admission, Connections},
        listener::Listener,
        tls::Tls,
    },
    readiness::{Health, Readiness},
    rotation,
    service::Gateway,
    telemetry::{self, Telemetry},
    upstream::{Upstream, transport},
    workers::Workers,
};

/// The gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {error}")]
    Listen {
        /// The key that names the address.
        key: &'static str,
        /// The address.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// Not as many threads can be started.
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
    /// The reflection service cannot be built.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Where a gateway listens: with port 0 in the configuration, the ports that the system chose.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The gRPC listener, `IP:PORT` or `unix:PATH`.
    pub server: String,
    /// The admin listener.
    pub admin: SocketAddr,
}

/// Runs a gateway on these workers until `stop` is done and it has drained. `started` is told the addresses once calls
/// are welcome.
pub async fn run(
    config: Config,
    workers: Workers,
    clock: Clock,
    started: oneshot::Sender<Addresses>,
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let telemetry = Arc::new(Telemetry::start(&config.telemetry)?);
    workers.measure(&telemetry.meter);
    let abandon = CancellationToken::new();
    let upstream = Upstream::new(
        &config.upstream,
        &config.projects,
        telemetry.clone(),
        clock.clone(),
        workers.count(),
        abandon.clone(),
    )?;
    let agency = agency::look_after(&config, upstream.targets(), clock.clone(), &telemetry.meter);
    let key_rotation = rotation::keys(config.projects.clone(), upstream.targets().clone(), telemetry.meter.clone());
    let callers = Arc::new(Callers::new(&config.callers));
    let tls = config.server.tls.as_ref().map(|tls| Tls::new(&tls.material)).transpose()?;
    let (targets, transport) = (upstream.targets().clone(), upstream.transport().clone());
    let readiness = Readiness::new(move || targets.has_usable_key());
    let gateway = Gateway::new(upstream, callers.clone(), &config.server, &telemetry.meter, abandon.clone());
    let reporter = HealthReporter::new();
    let routes = edge::routes::all(&config.server, gateway, &reporter)?;
    let calls = TaskTracker::new();
    let most = config.upstream.timeout;
    let stack = edge::stack(routes, telemetry.clone(), calls.clone(), callers.clone(), most, &config.server);
    let admission = Admission { tls: tls.clone(), source: config.server.identity, callers };
    let connections =
        Connections::new(admission, &config.server.connections, workers.balancer(), most, &telemetry.meter);

    let listener = listen(&config).await?;
    let (admin_listener, admin_address) = listen_admin(&config).await?;
    let addresses = Addresses { server: listener.to_string(), admin: admin_address };
    let admin = Admin::new(telemetry.clone(), readiness.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(admin.serve(admin_listener));
    tasks.spawn(key_rotation);
    tasks.spawn(agency);
    if let Some(ca) = config.upstream.ca.clone() {
        tasks.spawn(rotation::trust_roots(ca, transport, telemetry.meter.clone()));
    }
    if let Some((config, tls)) = config.server.tls.clone().zip(tls) {
        tls.measure(&telemetry.meter, clock);
        tasks.spawn(rotation::listener(config, tls, telemetry.meter.clone()));
    }

    let mut health = Health::start(readiness, reporter).await;
    tracing::info!(listen = %addresses.server, admin = %addresses.admin, version = env!("CARGO_PKG_VERSION"), "serving");
    let _ = started.send(addresses); // nobody has to listen

    // All of the end has to fit into `drain`.
    let drain = config.server.drain;
    let (lame_duck, flush) = (config.server.lame_duck, telemetry::FLUSH.min(drain / 4));
    let stop = async {
        tokio::select! { () = stop => {}, () = health.follow() => {} }
        tracing::info!("draining");
        health.drain().await;
        sleep(lame_duck).await;
        health.end_watches().await;
    };
    let drain = drain.saturating_sub(lame_duck + flush + last_lines(drain));
    edge::serve(listener, stack, stop, calls, connections, drain, abandon).await;
    drop(workers); // what they give up ends its spans and writes its lines
    telemetry.shutdown(flush).await;
    drop(tasks); // the operator can ask to the end
    tracing::info!("stopped");
    Ok(())
}

/// How much of `drain` is for the reader of the last log lines, when all else is done.
pub fn last_lines(drain: Duration) -> Duration {
    telemetry::log::LAST_LINES.min(drain / 20)
}

/// Builds what [`run`] would build and binds nothing: what `--check` is for.
pub async fn check(config: &Config) -> Result<(), StartError> {
    let telemetry = Arc::new(Telemetry::check(&config.telemetry)?);
    let (clock, stop) = (Clock::system(), CancellationToken::new());
    let upstream = Upstream::new(&config.upstream, &config.projects, telemetry.clone(), clock.clone(), 1, stop)?;
    config.server.tls.as_ref().map(|tls| Tls::new(&tls.material)).transpose()?;
    drop(agency::look_after(config, upstream.targets(), clock, &telemetry.meter)); // never polled, it asks nobody
    Ok(())
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
    let fails = |error| StartError::Listen { key: "admin.listen", address: address.to_string(), error };
    let listener = TcpListener::bind(address).await.map_err(fails)?;
    let address = listener.local_addr().map_err(fails)?;
    Ok((listener, address))
}
