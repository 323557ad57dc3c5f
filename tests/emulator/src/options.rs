//! What an emulator is started with.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::{Answered, Step, Tls};

/// The access key of the sample account; made up.
pub const SAMPLE_ACCESS_KEY: &str = "EXAMPLEAK0000000000A";
/// The secret key of the sample account; made up.
pub const SAMPLE_SECRET_KEY: &str = "EXAMPLESK/not+a=real~secret00000000000001";
/// The project of the sample account; made up.
pub const SAMPLE_PROJECT: &str = "0123456789abcdef0123456789abcdef";

/// Tells the time; a test's own clock makes dates old and locks end without any waiting.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

#[allow(clippy::disallowed_methods, reason = "the one default of the injected clock")]
fn system_time() -> SystemTime {
    SystemTime::now()
}

/// Is told of every request that is dealt with.
pub type Observer = Arc<dyn Fn(&Answered) + Send + Sync>;

/// Credentials and what they are good for.
#[derive(Clone)]
pub struct Account {
    /// The access key (AK).
    pub access_key: String,
    /// The secret key (SK).
    pub secret_key: String,
    /// The token that belongs to temporary credentials.
    pub security_token: Option<String>,
    /// The projects of the account; another one gets 403.
    pub projects: Vec<String>,
}

impl Account {
    /// The made-up account of [`Options::default`].
    #[must_use]
    pub fn sample() -> Self {
        Self {
            access_key: SAMPLE_ACCESS_KEY.to_owned(),
            secret_key: SAMPLE_SECRET_KEY.to_owned(),
            security_token: None,
            projects: vec![SAMPLE_PROJECT.to_owned()],
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

/// How often an account may call.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    /// So many calls are served in each window; the next ones get 429, without a word on when to come back.
    pub calls: u32,
    /// How long a window is.
    pub per: Duration,
}

/// What an emulator is started with. Any certificate id of `scs` and 13 digits is known, if no list here says
/// otherwise.
#[derive(Clone)]
pub struct Options {
    /// Who may sign.
    pub accounts: Vec<Account>,
    /// Certificates that do not exist: SCM.0008.
    pub unknown: Vec<String>,
    /// Certificates of another tenant: SCM.0003.
    pub foreign: Vec<String>,
    /// Certificates that are issued, so nothing can be saved any more: SCM.0010.
    pub issued: Vec<String>,
    /// What becomes of every signed request for these certificates, where the script says nothing else.
    pub steps: Vec<(String, Step)>,
    /// TLS, or plain text without it.
    pub tls: Option<Tls>,
    /// The server's clock.
    pub now: Clock,
    /// How often each account may call; as it likes without one.
    pub quota: Option<Quota>,
    /// How long the usual service of a request takes.
    pub service_time: Duration,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Is told of every request that is dealt with.
    pub observer: Option<Observer>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            accounts: vec![Account::sample()],
            unknown: Vec::new(),
            foreign: Vec::new(),
            issued: Vec::new(),
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
