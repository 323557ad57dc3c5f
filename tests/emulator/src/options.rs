//! The options of an emulator.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::credentials::Issuer;
use crate::{Processed, Seed, Step, Tls};

/// The invented access key of the sample account.
pub const SAMPLE_ACCESS_KEY: &str = "EXAMPLEAK0000000000A";
/// The invented secret key of the sample account.
pub const SAMPLE_SECRET_KEY: &str = "EXAMPLESK/not+a=real~secret00000000000001";
/// The invented project of the sample account.
pub const SAMPLE_PROJECT: &str = "0123456789abcdef0123456789abcdef";
/// The invented domain id of the sample account.
pub const SAMPLE_DOMAIN: &str = "fedcba9876543210fedcba9876543210";

/// A clock. With its own clock a test can let dates expire and locks end without waiting.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

#[allow(clippy::disallowed_methods, reason = "the default of the injected clock")]
pub(crate) fn system_time() -> SystemTime {
    SystemTime::now()
}

/// A function that is called for every processed request.
pub type Observer = Arc<dyn Fn(&Processed) + Send + Sync>;

/// Credentials and the projects that they can access.
#[derive(Clone)]
pub struct Account {
    /// The access key (AK).
    pub access_key: String,
    /// The secret key (SK).
    pub secret_key: String,
    /// The token that belongs to temporary credentials.
    pub security_token: Option<String>,
    /// The projects of the account. Requests for other projects get 403.
    pub projects: Vec<String>,
    /// The domain id: the tenant that owns certificates and CSRs. Accounts with the same one share them.
    pub domain_id: String,
}

impl Account {
    /// Returns the invented account of [`Options::default`].
    #[must_use]
    pub fn sample() -> Self {
        Self {
            access_key: SAMPLE_ACCESS_KEY.to_owned(),
            secret_key: SAMPLE_SECRET_KEY.to_owned(),
            security_token: None,
            projects: vec![SAMPLE_PROJECT.to_owned()],
            domain_id: SAMPLE_DOMAIN.to_owned(),
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("access_key", &self.access_key)
            .field("projects", &self.projects)
            .finish_non_exhaustive()
    }
}

/// The maximum call rate of an account.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    /// The calls served in each window. Further calls get 429 without `Retry-After`.
    pub calls: u32,
    /// The length of a window.
    pub per: Duration,
}

/// The options of an emulator.
///
/// Every certificate id of `scs` and 13 digits exists. Its first use makes it a paid certificate of the caller's
/// account, unless a list here says otherwise.
#[derive(Clone)]
pub struct Options {
    /// The accounts whose signatures are valid.
    pub accounts: Vec<Account>,
    /// The issuer of temporary credentials, which are valid until they expire.
    pub issuer: Issuer,
    /// Certificates that do not exist: SCM.0008. Also target projects and resources of other services to which a push
    /// or a deployment fails.
    pub unknown: Vec<String>,
    /// Certificates of another tenant: SCM.0003.
    pub foreign: Vec<String>,
    /// Certificates that are already issued, so that a save is rejected: SCM.0010.
    pub issued: Vec<String>,
    /// Certificates to begin with.
    pub certificates: Vec<Seed>,
    /// How long each step takes that needs no caller: the proof of the domain, each review of the CA, a withdrawal.
    pub review_step: Duration,
    /// The step of every correctly signed request with these keys, unless the script has another one. A key is an id in
    /// the path, or the name of an operation.
    pub steps: Vec<(String, Step)>,
    /// The TLS configuration. Without it the emulator uses plain text.
    pub tls: Option<Tls>,
    /// The server's clock.
    pub now: Clock,
    /// The quota of each account, or `None` for unlimited calls.
    pub quota: Option<Quota>,
    /// The time that a regular response takes.
    pub service_time: Duration,
    /// The address to listen on. Port 0 selects a free port.
    pub listen: SocketAddr,
    /// The function that is called for every processed request.
    pub observer: Option<Observer>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            accounts: vec![Account::sample()],
            issuer: Issuer::default(),
            unknown: Vec::new(),
            foreign: Vec::new(),
            issued: Vec::new(),
            certificates: Vec::new(),
            review_step: Duration::from_secs(5),
            steps: Vec::new(),
            tls: None,
            now: Arc::new(system_time),
            quota: None,
            service_time: Duration::ZERO,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            observer: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("accounts", &self.accounts)
            .field("tls", &self.tls)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}
