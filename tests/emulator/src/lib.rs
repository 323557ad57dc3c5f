//! An emulator of the vendor's SCM endpoint, for tests and manual use.
//!
//! It verifies the signature of every request from the bytes received, with its own code. It rejects requests and
//! locks access keys as the vendor does, and checks each request against the vendor's `operations.json`. In memory it
//! holds certificates, which the operations and time move from state to state, and CSRs. A script makes it fail on
//! purpose.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use scm_emulator::{Emulator, Options, Reply, Step};
//!
//! let emulator = Emulator::start(Options::default()).await?;
//! emulator.script(Step::Reply(Reply::json(503, "{}")));
//! let endpoint = emulator.endpoint();
//! // … let a client talk to the endpoint …
//! assert_eq!(emulator.journal().len(), 1);
//! # Ok(())
//! # }
//! ```

mod api;
mod connection;
mod http;
mod iam;
mod journal;
mod options;
mod quota;
mod scm;
mod script;
mod signature;
mod time;
mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

pub use journal::{Processed, Recorded, Rejected};
pub use options::{
    Account, Clock, Observer, Options, Quota, SAMPLE_ACCESS_KEY, SAMPLE_DOMAIN, SAMPLE_PROJECT, SAMPLE_SECRET_KEY,
};
pub use scm::{Product, Seed, Status};
pub use script::{Reply, Step, Then};
pub use tls::Tls;

/// The state that all connections share.
struct Shared {
    options: Options,
    accounts: RwLock<Arc<[Account]>>,
    certificates: Mutex<tls::Certificates>,
    authenticator: iam::Authenticator,
    journal: journal::Journal,
    scm: scm::Scm,
    windows: quota::Windows,
    script: script::Script,
}

impl Shared {
    fn accounts(&self) -> Arc<[Account]> {
        Arc::clone(&self.accounts.read().expect("no panic while the lock is held"))
    }

    fn certificates(&self) -> MutexGuard<'_, tls::Certificates> {
        self.certificates.lock().expect("no panic while the lock is held")
    }
}

/// A running emulator. Dropping it closes its port and all its connections.
pub struct Emulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: JoinHandle<()>,
}

impl Emulator {
    /// Starts an emulator.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            accounts: RwLock::new(options.accounts.as_slice().into()),
            certificates: Mutex::new(tls::Certificates::new(options.tls.clone())),
            scm: scm::Scm::new(&options),
            options,
            authenticator: iam::Authenticator::default(),
            journal: journal::Journal::default(),
            windows: quota::Windows::default(),
            script: script::Script::default(),
        });
        let listener = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self { shared, address, listener })
    }

    /// Returns the URL to call, without a trailing slash.
    #[must_use]
    pub fn endpoint(&self) -> String {
        match self.shared.options.tls {
            None => format!("http://{}", self.address),
            Some(_) => format!("https://localhost:{}", self.address.port()),
        }
    }

    /// Returns the address that the emulator listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Appends a step to the script.
    pub fn script(&self, step: Step) {
        self.scripts([step]);
    }

    /// Appends steps to the script.
    pub fn scripts(&self, steps: impl IntoIterator<Item = Step>) {
        self.shared.script.push(steps);
    }

    /// Returns the number of script steps that no request has used yet.
    #[must_use]
    pub fn steps_left(&self) -> usize {
        self.shared.script.len()
    }

    /// Sets the step of the next request that is signed correctly, has no other step, and has this key: an id in its
    /// path (of a certificate, a CSR or a product), or the name of its operation, such as `ListCsr`.
    pub fn script_for(&self, key: &str, step: Step) {
        self.shared.script.insert(key, step);
    }

    /// Removes and returns the step of a key that no request has used.
    #[must_use]
    pub fn take_unused(&self, key: &str) -> Option<Step> {
        self.shared.script.take(key)
    }

    /// Puts a certificate in a state, whatever it was before.
    pub fn seed(&self, seed: &Seed) {
        self.shared.scm.seed(seed, &self.shared.options);
    }

    /// Puts a CSR for a domain in the store of the sample account. Its key is generated at its first use.
    pub fn seed_csr(&self, id: &str, domain: &str) {
        self.shared.scm.seed_csr(id, SAMPLE_DOMAIN, domain, &self.shared.options);
    }

    /// Lets time pass in the life of the certificates. The clock that signatures are verified with stays.
    pub fn advance(&self, by: Duration) {
        self.shared.scm.advance(by);
    }

    /// Returns the state of a certificate, or `None` if nobody has used its id, or it was deleted.
    #[must_use]
    pub fn status(&self, certificate: &str) -> Option<Status> {
        self.shared.scm.status(certificate, &self.shared.options)
    }

    /// Returns the reminders that are turned on for a certificate, in alphabetical order.
    #[must_use]
    pub fn notices(&self, certificate: &str) -> Vec<String> {
        self.shared.scm.notices(certificate)
    }

    /// Replaces the accounts whose signatures are valid.
    pub fn set_accounts(&self, accounts: &[Account]) {
        *self.shared.accounts.write().expect("no panic while the lock is held") = accounts.into();
    }

    /// Replaces the certificate that new connections get. An emulator without TLS keeps using plain text.
    pub fn set_tls(&self, tls: Tls) {
        self.shared.certificates().replace(tls);
    }

    /// Sets the certificate of the next connection only.
    pub fn script_tls(&self, tls: Tls) {
        self.shared.certificates().script(tls);
    }

    /// Removes and returns the requests with a valid signature, so that a long test does not keep them all.
    #[must_use]
    pub fn take_journal(&self) -> Vec<Recorded> {
        self.shared.journal.take_recorded()
    }

    /// Returns the requests with a valid signature, in order of arrival.
    #[must_use]
    pub fn journal(&self) -> Vec<Recorded> {
        self.shared.journal.recorded()
    }

    /// Returns the requests that were rejected because of their signature.
    #[must_use]
    pub fn rejections(&self) -> Vec<Rejected> {
        self.shared.journal.rejected()
    }

    /// Returns the number of requests, each counted once its head is complete.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.shared.journal.attempts()
    }

    /// Returns the number of accepted TCP connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.journal.connections()
    }

    /// Returns the number of open TCP connections.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.journal.open_connections()
    }

    /// Returns the draft of a certificate: the JSON object of its last save or application, as it was sent.
    #[must_use]
    pub fn saved(&self, project: &str, certificate: &str) -> Option<Value> {
        self.shared.scm.saved(project, certificate)
    }

    /// Waits until at least `count` requests have arrived, without a timeout.
    pub async fn wait_for_attempts(&self, count: usize) {
        self.shared.journal.wait_for_attempts(count).await;
    }

    /// Waits until exactly `count` connections are open, without a timeout.
    pub async fn wait_for_open_connections(&self, count: usize) {
        self.shared.journal.wait_for_open_connections(count).await;
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // The listener task owns the tasks of the connections.
        self.listener.abort();
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let open = shared.journal.connection();
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        connection::run(socket, shared).await;
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
