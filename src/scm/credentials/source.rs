//! The sources of credentials: one trait, and a module for each source.
//!
//! A project has one source, which the configuration names, and never falls back to another one.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio::task::spawn_blocking;

use crate::{
    clock::Clock,
    config::{self, CredentialsSource, secret::Credentials},
    scm::client::transport::Transport,
};

pub(super) mod ecs_agency;
mod environment;
mod expiration;
mod files;
pub(super) mod oidc;
pub(super) mod pod_identity;
mod profile;
pub(super) mod service;
#[cfg(test)]
mod tests;
mod token;

use service::Service;

/// The time between two polls of files.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A source of credentials.
pub(crate) trait Source: Send + Sync {
    /// What the source has: [`Credentials`] that are valid until they are replaced, or [`TemporaryCredentials`].
    type Credentials;

    /// Gets the current credentials.
    fn get(&self) -> BoxFuture<'_, Result<Self::Credentials, Failure>>;

    /// Waits until `get` may have another result than the last time, for a reason other than the time that has passed.
    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(pending())
    }
}

/// Any source of these credentials.
pub(crate) type DynSource<T> = dyn Source<Credentials = T>;

/// Credentials with an expiry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TemporaryCredentials {
    pub(crate) credentials: Credentials,
    /// By the clock of the gateway.
    pub(crate) expires_at: SystemTime,
}

/// Why a source has no credentials.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(super) kind: FailureKind,
    /// For the log. It holds nothing of a file or a response, except a status and the vendor's error code.
    pub(crate) problem: String,
}

/// Decides when the next exchange is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The service has rejected the request, and will probably reject the next one too.
    Rejected,
    /// Anything else: the next try may succeed.
    Failed {
        /// The `Retry-After` of the response.
        retry_after: Option<Duration>,
    },
}

impl Failure {
    pub(super) fn failed(problem: impl Into<String>) -> Self {
        Self { kind: FailureKind::Failed { retry_after: None }, problem: problem.into() }
    }
}

/// Returns the source of a project's permanent credentials, which the configuration has read once. Returns `None` if the
/// credentials are temporary.
pub(crate) fn permanent(source: &CredentialsSource, at_start: &Credentials) -> Option<Arc<DynSource<Credentials>>> {
    match source {
        CredentialsSource::Environment => Some(Arc::new(environment::Environment(at_start.clone()))),
        CredentialsSource::Files(files) => Some(Arc::new(files::Files(files.clone()))),
        CredentialsSource::Profile(path) => Some(Arc::new(profile::Profile(path.clone()))),
        CredentialsSource::Temporary(_) => None,
    }
}

/// Returns the source of temporary credentials, whose service is reached by `transport`.
pub(super) fn temporary(
    source: &config::TemporarySource,
    transport: &Arc<Transport>,
    clock: &Clock,
) -> Arc<DynSource<TemporaryCredentials>> {
    let service = |name| Service::new(name, transport.clone(), clock.clone());
    match source {
        config::TemporarySource::Oidc(oidc) => Arc::new(oidc::OidcFederation::new(oidc.clone(), service("STS"))),
        config::TemporarySource::PodIdentity(pod) => {
            Arc::new(pod_identity::PodIdentityAgent::new(pod.clone(), service("the pod identity agent")))
        }
        config::TemporarySource::EcsAgency(endpoint) => {
            Arc::new(ecs_agency::MetadataService::new(endpoint.clone(), service("the metadata service")))
        }
    }
}

/// Reads files on a thread that may block.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, Failure> {
    let read = spawn_blocking(read).await.unwrap_or_else(|_| Err("the read was aborted".to_owned()));
    read.map_err(Failure::failed)
}
