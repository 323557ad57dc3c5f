//! A listening service: its port and connections, its script and its counters, whatever it serves.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::credentials::Issue;
use crate::http::Request;
use crate::journal::Counters;
use crate::options::{Clock, Observer};
use crate::script::{Reply, Script, Step};
use crate::{Tls, connection, tls};

/// What is served on a port.
pub(crate) trait Service: Send + Sync + 'static {
    /// What is known of a request before its step is chosen.
    type Admitted: Send;

    /// Verifies and records a request.
    fn admit(&self, request: &Request) -> Self::Admitted;

    /// Returns why a request is rejected, if it is.
    fn rejection(admitted: &Self::Admitted) -> Option<&'static str>;

    /// Returns the step of a request for which the script has no next step.
    fn step(&self, request: &Request, admitted: &Self::Admitted, script: &Script) -> Step;

    /// Serves a request, with these changes to the credentials that it gets.
    fn serve(&self, request: &Request, admitted: Self::Admitted, issue: Option<&Issue>) -> Reply;

    /// Returns the response to a request that cannot be read.
    fn unreadable(&self, status: u16, text: &str) -> Reply;
}

/// The settings of a server.
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) tls: Option<Tls>,
    pub(crate) now: Clock,
    pub(crate) service_time: Duration,
    pub(crate) observer: Option<Observer>,
}

/// The state that all connections share.
pub(crate) struct Server<S> {
    pub(crate) service: S,
    pub(crate) settings: Settings,
    pub(crate) script: Script,
    pub(crate) counters: Counters,
    /// With `false`, no request gets a response.
    pub(crate) responding: watch::Sender<bool>,
    certificates: Mutex<tls::Certificates>,
}

impl<S> Server<S> {
    pub(crate) fn certificates(&self) -> MutexGuard<'_, tls::Certificates> {
        self.certificates.lock().expect("no panic while the lock is held")
    }
}

/// A server with its port. Dropping it closes the port and all connections.
pub(crate) struct Listening<S> {
    pub(crate) server: Arc<Server<S>>,
    pub(crate) address: SocketAddr,
    listener: JoinHandle<()>,
}

impl<S: Service> Listening<S> {
    pub(crate) async fn start(service: S, settings: Settings, script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let server = Arc::new(Server {
            service,
            certificates: Mutex::new(tls::Certificates::new(settings.tls.clone())),
            settings,
            script,
            counters: Counters::default(),
            responding: watch::Sender::new(true),
        });
        let listener = tokio::spawn(listen(listener, Arc::clone(&server)));
        Ok(Self { server, address, listener })
    }

    /// Returns the URL to call, without a trailing slash.
    pub(crate) fn endpoint(&self) -> String {
        match self.server.settings.tls {
            None => format!("http://{}", self.address),
            Some(_) => format!("https://localhost:{}", self.address.port()),
        }
    }
}

impl<S> Drop for Listening<S> {
    fn drop(&mut self) {
        // The listener task owns the tasks of the connections.
        self.listener.abort();
    }
}

async fn listen<S: Service>(listener: TcpListener, server: Arc<Server<S>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let open = server.counters.connection();
                    let server = Arc::clone(&server);
                    connections.spawn(async move {
                        connection::run(socket, server).await;
                        drop(open);
                    });
                }
                // For example no free file descriptors: an immediate retry would only use CPU.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
