//! An emulator of the vendor's SCM endpoint, for tests and manual use.
//!
//! It verifies the signature of every request from the bytes received, with its own code. It rejects requests and
//! locks access keys as the vendor does, and checks each request against the vendor's `operations.json`. In memory it
//! holds certificates, which the operations and time move from state to state, and CSRs. A script makes it fail on
//! purpose.
//!
//! [`CredentialService`] emulates the services that issue temporary credentials, which SCM then accepts.
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
mod credentials;
mod endpoint;
mod http;
mod iam;
mod journal;
mod options;
mod quota;
mod scm;
mod script;
mod server;
mod signature;
mod time;
mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

pub use credentials::{
    Agency, Association, Claims, CredentialService, Exchange, Field, Issue, Issued, Issuer, Kind, Metadata,
    PodIdentity, Provider, Rights, ServiceOptions, Sts, TimeFormat, Version,
};
pub use journal::{Processed, Recorded, Rejected};
pub use options::{
    Account, Clock, Observer, Options, Quota, SAMPLE_ACCESS_KEY, SAMPLE_DOMAIN, SAMPLE_PROJECT, SAMPLE_SECRET_KEY,
};
pub use scm::{Product, Seed, Status};
pub use script::{Reply, Step, Then};
pub use tls::Tls;

use endpoint::Endpoint;
use script::Script;
use server::{Listening, Settings};

/// A running emulator of SCM. Dropping it closes its port and all its connections.
pub struct Emulator(Listening<Endpoint>);

impl Emulator {
    /// Starts an emulator.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let settings = Settings {
            listen: options.listen,
            tls: options.tls.clone(),
            now: Arc::clone(&options.now),
            service_time: options.service_time,
            observer: options.observer.clone(),
        };
        let script = Script::new(options.steps.clone());
        Listening::start(Endpoint::new(options), settings, script).await.map(Self)
    }

    /// Returns the URL to call, without a trailing slash.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.0.endpoint()
    }

    /// Returns the address that the emulator listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Returns the issuer of the temporary credentials that this emulator accepts.
    #[must_use]
    pub fn issuer(&self) -> Issuer {
        self.scm_endpoint().options.issuer.clone()
    }

    fn scm_endpoint(&self) -> &Endpoint {
        &self.0.server.service
    }

    /// Appends a step to the script.
    pub fn script(&self, step: Step) {
        self.scripts([step]);
    }

    /// Appends steps to the script.
    pub fn scripts(&self, steps: impl IntoIterator<Item = Step>) {
        self.0.server.script.push(steps);
    }

    /// Returns the number of script steps that no request has used yet.
    #[must_use]
    pub fn steps_left(&self) -> usize {
        self.0.server.script.len()
    }

    /// Sets the step of the next request that is signed correctly, has no other step, and has this key: an id in its
    /// path (of a certificate, a CSR or a product), or the name of its operation, such as `ListCsr`.
    pub fn script_for(&self, key: &str, step: Step) {
        self.0.server.script.insert(key, step);
    }

    /// Removes and returns the step of a key that no request has used.
    #[must_use]
    pub fn take_unused(&self, key: &str) -> Option<Step> {
        self.0.server.script.take(key)
    }

    /// Puts a certificate in a state, whatever it was before.
    pub fn seed(&self, seed: &Seed) {
        self.scm_endpoint().scm.seed(seed, &self.scm_endpoint().options);
    }

    /// Puts a CSR for a domain in the store of the sample account. Its key is generated at its first use.
    pub fn seed_csr(&self, id: &str, domain: &str) {
        self.scm_endpoint().scm.seed_csr(id, SAMPLE_DOMAIN, domain, &self.scm_endpoint().options);
    }

    /// Lets time pass in the life of the certificates. The clock that signatures are verified with stays.
    pub fn advance(&self, by: Duration) {
        self.scm_endpoint().scm.advance(by);
    }

    /// Returns the state of a certificate, or `None` if nobody has used its id, or it was deleted.
    #[must_use]
    pub fn status(&self, certificate: &str) -> Option<Status> {
        self.scm_endpoint().scm.status(certificate, &self.scm_endpoint().options)
    }

    /// Returns the reminders that are turned on for a certificate, in alphabetical order.
    #[must_use]
    pub fn notices(&self, certificate: &str) -> Vec<String> {
        self.scm_endpoint().scm.notices(certificate)
    }

    /// Replaces the accounts whose signatures are valid.
    pub fn set_accounts(&self, accounts: &[Account]) {
        self.scm_endpoint().accounts.set(accounts);
    }

    /// Replaces the certificate that new connections get. An emulator without TLS keeps using plain text.
    pub fn set_tls(&self, tls: Tls) {
        self.0.server.certificates().replace(tls);
    }

    /// Sets the certificate of the next connection only.
    pub fn script_tls(&self, tls: Tls) {
        self.0.server.certificates().script(tls);
    }

    /// Removes and returns the requests with a valid signature, so that a long test does not keep them all.
    #[must_use]
    pub fn take_journal(&self) -> Vec<Recorded> {
        self.scm_endpoint().journal.take_recorded()
    }

    /// Returns the requests with a valid signature, in order of arrival.
    #[must_use]
    pub fn journal(&self) -> Vec<Recorded> {
        self.scm_endpoint().journal.recorded()
    }

    /// Returns the requests that were rejected because of their signature.
    #[must_use]
    pub fn rejections(&self) -> Vec<Rejected> {
        self.scm_endpoint().journal.rejected()
    }

    /// Returns the number of requests, each counted once its head is complete.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.0.server.counters.attempts()
    }

    /// Returns the number of accepted TCP connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.server.counters.connections()
    }

    /// Returns the number of open TCP connections.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.0.server.counters.open_connections()
    }

    /// Returns the draft of a certificate: the JSON object of its last save or application, as it was sent.
    #[must_use]
    pub fn saved(&self, project: &str, certificate: &str) -> Option<Value> {
        self.scm_endpoint().scm.saved(project, certificate)
    }

    /// Waits until at least `count` requests have arrived, without a timeout.
    pub async fn wait_for_attempts(&self, count: usize) {
        self.0.server.counters.wait_for_attempts(count).await;
    }

    /// Waits until exactly `count` connections are open, without a timeout.
    pub async fn wait_for_open_connections(&self, count: usize) {
        self.0.server.counters.wait_for_open_connections(count).await;
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("address", &self.0.address).finish_non_exhaustive()
    }
}
