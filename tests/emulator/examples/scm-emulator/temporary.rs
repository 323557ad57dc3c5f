//! The services that issue temporary credentials, and the token files of their clients.

use std::fs::{OpenOptions, rename};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scm_emulator::{Claims, CredentialService, Issuer, Kind, Metadata, PodIdentity, ServiceOptions, Sts, Tls};
use tokio::time::sleep;

use crate::arguments::Temporary;
use crate::print_request;

/// The running services, and the variables of their clients.
#[derive(Default)]
pub(crate) struct Services {
    pub(crate) variables: Vec<(&'static str, String)>,
    running: Vec<CredentialService>,
}

/// Starts the services that the arguments name. Only STS has TLS.
pub(crate) async fn start(arguments: &Temporary, tls: Option<Tls>, issuer: &Issuer) -> io::Result<Services> {
    let mut services = Services::default();
    let options = |listen: SocketAddr, tls: Option<Tls>| ServiceOptions {
        listen,
        tls,
        validity: arguments.validity,
        observer: Some(Arc::new(print_request)),
        ..ServiceOptions::default()
    };
    if let Some(listen) = arguments.sts {
        let sts = Sts::default();
        let urns = (sts.providers[0].urn.clone(), sts.agencies[0].urn.clone());
        let service = services.start(sts, options(listen, tls), issuer).await?;
        let token = token_file(arguments, "scm-emulator-oidc.jwt", Claims::oidc)?;
        service.extend([
            ("HUAWEICLOUD_OIDC_PROVIDER_URN", urns.0),
            ("HUAWEICLOUD_OIDC_AGENCY_URN", urns.1),
            ("HUAWEICLOUD_OIDC_TOKEN_FILE", token),
        ]);
        service.add("HUAWEICLOUD_SDK_STS_ENDPOINT", CredentialService::endpoint);
    }
    if let Some(listen) = arguments.pod_identity {
        let service = services.start(PodIdentity::default(), options(listen, None), issuer).await?;
        let token = token_file(arguments, "scm-emulator-pod.jwt", Claims::pod_identity)?;
        service.extend([("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", token)]);
        service.add("HC_CONTAINER_CREDENTIALS_FULL_URI", CredentialService::full_uri);
    }
    if let Some(listen) = arguments.metadata {
        let service = services.start(Metadata::default(), options(listen, None), issuer).await?;
        service.add("SCM_GATEWAY__UPSTREAM__METADATA_ENDPOINT", CredentialService::endpoint);
    }
    Ok(services)
}

impl Services {
    async fn start(
        &mut self,
        kind: impl Into<Kind>,
        options: ServiceOptions,
        issuer: &Issuer,
    ) -> io::Result<&mut Self> {
        let listen = options.listen;
        let started = CredentialService::start(kind, options, issuer).await;
        self.running.push(started.map_err(|error| io::Error::new(error.kind(), format!("{listen}: {error}")))?);
        Ok(self)
    }

    fn extend<const N: usize>(&mut self, variables: [(&'static str, String); N]) {
        self.variables.extend(variables);
    }

    /// Adds a variable with the URL of the service that was started last.
    fn add(&mut self, name: &'static str, url: fn(&CredentialService) -> String) {
        self.variables.extend(self.running.last().map(|service| (name, url(service))));
    }
}

/// Writes a token, and replaces it after 80 % of its validity, as the kubelet does. Returns the path of the file.
fn token_file(arguments: &Temporary, name: &str, claims: fn(SystemTime) -> Claims) -> io::Result<String> {
    let path = arguments.token_folder.join(name);
    let validity = arguments.token_validity;
    let path_text = path.display().to_string();
    replace(&path, &token(claims, validity))?;
    tokio::spawn(async move {
        loop {
            sleep(validity.mul_f64(0.8)).await;
            if let Err(error) = replace(&path, &token(claims, validity)) {
                eprintln!("{}: {error}", path.display());
            }
        }
    });
    Ok(path_text)
}

#[allow(clippy::disallowed_methods, reason = "a program")]
fn token(claims: fn(SystemTime) -> Claims, validity: Duration) -> String {
    let now = SystemTime::now();
    Claims { expires_at: now + validity, ..claims(now) }.encode()
}

/// Replaces a file, which only its owner can read, in one step.
fn replace(path: &Path, token: &str) -> io::Result<()> {
    let new = PathBuf::from(format!("{}.new", path.display()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(token.as_bytes())?;
    rename(new, path)
}
