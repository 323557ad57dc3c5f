//! Workload identity: temporary credentials of STS and the pod identity agent, in exchange for a token, and of an ECS.

mod ecs_agency;
mod faults;
mod leaks;
mod outages;
mod projects;
mod refresh;
mod start;

use std::time::{Duration, SystemTime};

use scm_emulator::{
    Agency, Claims, CredentialService, Emulator, Issued, Kind, Metadata, PodIdentity, Provider, SAMPLE_PROJECT,
    ServiceOptions, Sts,
};
use serde_json::Value;
use tonic::{Code, Request, Status};

use crate::harness::{Gateway, METADATA_ENDPOINT, assert_status, emulator, folder::Folder, sample, until};

const EXPIRY: &str = "scm_gateway_credentials_time_to_expiry_seconds{";

/// SCM, a service that issues its credentials, and the file with the token that the service accepts.
struct Lab {
    emulator: Emulator,
    service: CredentialService,
    /// The name of the service in metrics.
    source: &'static str,
    folder: Folder,
}

impl Lab {
    async fn sts() -> Self {
        Self::with_sts(ServiceOptions::default()).await
    }

    async fn with_sts(options: ServiceOptions) -> Self {
        Self::start(emulator().await, "oidc", Sts::default(), options).await
    }

    async fn pod_identity() -> Self {
        Self::start(emulator().await, "pod_identity", PodIdentity::default(), ServiceOptions::default()).await
    }

    async fn ecs_agency(metadata: Metadata) -> Self {
        Self::start(emulator().await, "ecs_agency", metadata, ServiceOptions::default()).await
    }

    /// Starts a service, with a valid token if it needs one.
    async fn start(emulator: Emulator, source: &'static str, kind: impl Into<Kind>, options: ServiceOptions) -> Self {
        let service = CredentialService::start(kind, options, &emulator.issuer()).await.unwrap();
        let lab = Self { emulator, service, source, folder: Folder::new() };
        lab.replace_token(&lab.claims());
        lab
    }

    /// Replaces the token as the kubelet does, in one step. Returns the token.
    fn replace_token(&self, claims: &Claims) -> String {
        let token = claims.encode();
        std::fs::rename(self.folder.file("new", &token), self.folder.path("token")).unwrap();
        token
    }

    /// Returns the vendor's variables for STS.
    fn oidc_variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("HUAWEICLOUD_OIDC_PROVIDER_URN", Provider::default().urn),
            ("HUAWEICLOUD_OIDC_AGENCY_URN", Agency::default().urn),
            ("HUAWEICLOUD_OIDC_TOKEN_FILE", self.folder.path("token")),
            ("HUAWEICLOUD_SDK_STS_ENDPOINT", self.service.endpoint()),
        ]
    }

    /// Returns the vendor's variables for the pod identity agent.
    fn pod_identity_variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("HC_CONTAINER_CREDENTIALS_FULL_URI", self.service.full_uri()),
            ("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", self.folder.path("token")),
        ]
    }

    /// Returns the variables for the service.
    fn variables(&self) -> Vec<(&'static str, String)> {
        match self.source {
            "oidc" => self.oidc_variables(),
            "pod_identity" => self.pod_identity_variables(),
            "ecs_agency" => vec![(METADATA_ENDPOINT, self.service.endpoint())],
            other => panic!("no variables for {other}"),
        }
    }

    /// Returns the claims of a new token that the service accepts.
    fn claims(&self) -> Claims {
        let now = SystemTime::now();
        if self.source == "oidc" { Claims::oidc(now) } else { Claims::pod_identity(now) }
    }

    /// Returns the keys of the gateway's configuration for one project.
    fn keys(&self) -> Vec<(&'static str, String)> {
        let mut keys = vec![("SCM_GATEWAY__PROJECTS__0__ID", SAMPLE_PROJECT.to_owned())];
        let token_file = self.folder.path("token");
        match self.source {
            "oidc" => keys.extend([
                ("SCM_GATEWAY__PROJECTS__0__OIDC__PROVIDER_URN", Provider::default().urn),
                ("SCM_GATEWAY__PROJECTS__0__OIDC__AGENCY_URN", Agency::default().urn),
                ("SCM_GATEWAY__PROJECTS__0__OIDC__TOKEN_FILE", token_file),
                ("SCM_GATEWAY__UPSTREAM__STS_ENDPOINT", self.service.endpoint()),
            ]),
            "pod_identity" => keys.extend([
                ("SCM_GATEWAY__PROJECTS__0__POD_IDENTITY__CREDENTIALS_FULL_URI", self.service.full_uri()),
                ("SCM_GATEWAY__PROJECTS__0__POD_IDENTITY__AUTHORIZATION_TOKEN_FILE", token_file),
            ]),
            "ecs_agency" => keys.extend(self.variables()),
            other => panic!("no keys for {other}"),
        }
        keys
    }

    /// Starts a gateway that has no access key of its own.
    async fn gateway(&self, variables: &[(&'static str, String)]) -> Gateway {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Gateway::without_access_key(&self.emulator, &variables).await
    }

    /// Returns the last credentials that were issued.
    fn issued(&self) -> Issued {
        self.emulator.issuer().issued().pop().expect("credentials were issued")
    }

    /// Makes a call and asserts that SCM saw the last credentials that were issued.
    async fn assert_last_credentials_are_used(&self, gateway: &Gateway) {
        gateway.save(sample()).await.unwrap();
        let account = self.issued().account;
        let sent = self.emulator.journal().pop().unwrap();
        assert_eq!(sent.access_key, account.access_key);
        assert_eq!(sent.header("x-security-token"), account.security_token.as_deref());
    }

    /// Waits until the service has received this number of requests.
    async fn wait_for_exchanges(&self, count: usize) {
        let received = self.service.wait_for_attempts(count);
        let waited = tokio::time::timeout(Duration::from_secs(30), received).await;
        assert!(waited.is_ok(), "{count} exchanges: {:?}", self.service.exchanges());
    }
}

/// Makes a call with a deadline of 200 ms.
async fn call_with_short_deadline(gateway: &Gateway) -> Result<(), Status> {
    let mut request = Request::new(sample());
    request.set_timeout(Duration::from_millis(200));
    gateway.untimed_client().save_info(request).await.map(drop)
}

/// Asserts that a call fails because there are no credentials, and that the gateway is not ready but alive.
async fn assert_no_credentials(lab: &Lab, gateway: &Gateway) {
    let attempts = lab.emulator.attempts();
    let status = call_with_short_deadline(gateway).await.unwrap_err();
    assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", None);
    assert_eq!(lab.emulator.attempts(), attempts, "nothing is sent");
    assert_eq!(gateway.admin("/readyz").await, (503, "not ready: no usable credentials\n".into()));
    assert_eq!(gateway.admin("/livez").await, (200, "live\n".into()), "a restart would not help");
}

impl Lab {
    /// Returns the number of exchanges with this outcome that the gateway counts.
    async fn exchanges(&self, gateway: &Gateway, outcome: &str) -> u64 {
        let labels = [format!("source=\"{}\"", self.source), format!("outcome=\"{outcome}\"")];
        let page = gateway.admin("/metrics").await.1;
        let mut series = page.lines().filter(|line| line.starts_with("scm_gateway_credentials_exchanges_total{"));
        let line = series.find(|line| labels.iter().all(|label| line.contains(label)));
        line.unwrap_or_else(|| panic!("{labels:?} in {page}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until the gateway has counted this number of exchanges with this outcome.
    async fn wait_for_outcome(&self, gateway: &Gateway, outcome: &str, count: u64) {
        let what = format!("{count} exchanges of {} that are {outcome}", self.source);
        until(&what, || async { self.exchanges(gateway, outcome).await >= count }).await;
    }
}

/// Returns the credentials of the first project on the status page.
async fn credentials_status(gateway: &Gateway) -> Value {
    let (_, status) = gateway.admin("/status").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    status["projects"][0]["credentials"].clone()
}
