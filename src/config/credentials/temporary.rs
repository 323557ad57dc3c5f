//! The services that issue temporary credentials, and what they are asked with.

use std::fmt;
use std::time::Duration;

use super::token::TokenFile;
use crate::config::Endpoint;

/// A service that issues temporary credentials. Projects with equal sources share one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemporarySource {
    /// The vendor's STS, which exchanges an OIDC token, such as a projected service account token of Kubernetes.
    Oidc(Oidc),
    /// The pod identity agent of CCE, which exchanges the token that it mounts into the pod.
    PodIdentity(PodIdentity),
    /// The metadata service of the ECS that the gateway runs on, which returns credentials of the ECS's agency.
    EcsAgency(Endpoint),
}

impl TemporarySource {
    /// Returns the name of the source in metrics and on the status page.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Oidc(_) => "oidc",
            Self::PodIdentity(_) => "pod_identity",
            Self::EcsAgency(_) => "ecs_agency",
        }
    }

    /// Returns the service that issues the credentials.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Oidc(oidc) => &oidc.sts_endpoint,
            Self::PodIdentity(pod) => &pod.endpoint,
            Self::EcsAgency(endpoint) => endpoint,
        }
    }
}

/// `[projects.oidc]`, or the variables `HUAWEICLOUD_OIDC_*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// STS: the scheme and authority.
    pub sts_endpoint: Endpoint,
    /// The OIDC provider in IAM: `iam::ACCOUNT:oidcProvider:NAME`.
    pub provider_urn: String,
    /// The trust agency: `iam::ACCOUNT:agency:NAME`.
    pub agency_urn: String,
    /// The file with the OIDC token.
    pub token_file: TokenFile,
    /// The name in the vendor's audit log.
    pub session_name: String,
    /// The requested validity of the credentials: whole seconds.
    pub duration: Duration,
    /// A policy in JSON that narrows the rights of the agency.
    pub policy: Option<String>,
    /// The ids of policies that narrow the rights of the agency.
    pub policy_ids: Vec<String>,
}

/// `[projects.pod_identity]`, or the variables `HC_CONTAINER_*`.
#[derive(Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// The agent: the scheme and authority of `credentials_full_uri`.
    pub endpoint: Endpoint,
    /// The path and query of `credentials_full_uri`; begins with `/`.
    pub path: String,
    /// The file with the pod's token.
    pub authorization_token_file: TokenFile,
}

impl fmt::Debug for PodIdentity {
    /// Omits the path, whose query may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, path: _, authorization_token_file } = self;
        let mut shown = f.debug_struct("PodIdentity");
        shown.field("endpoint", endpoint).field("authorization_token_file", authorization_token_file);
        shown.finish_non_exhaustive()
    }
}
