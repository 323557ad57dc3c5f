//! The SCM endpoint: authenticates each request, records it, and serves it within the account's quota.

use std::sync::Arc;

use crate::credentials::Issue;
use crate::http::Request;
use crate::iam::{Accounts, Authenticator, Rejection};
use crate::journal::{Journal, Recorded, Rejected};
use crate::scm::{self, Scm, gateway_error};
use crate::script::{Reply, Script, Step};
use crate::server::Service;
use crate::{Account, Options, quota};

/// The state of the SCM endpoint.
pub(crate) struct Endpoint {
    pub(crate) accounts: Accounts,
    pub(crate) journal: Journal,
    pub(crate) scm: Scm,
    pub(crate) options: Options,
    authenticator: Authenticator,
    windows: quota::Windows,
}

impl Endpoint {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            accounts: Accounts::new(&options.accounts, options.issuer.clone()),
            journal: Journal::default(),
            scm: Scm::new(&options),
            options,
            authenticator: Authenticator::default(),
            windows: quota::Windows::default(),
        }
    }
}

impl Service for Endpoint {
    type Admitted = Result<Arc<Account>, Rejection>;

    /// Verifies a request. A rejected request is only counted.
    fn admit(&self, request: &Request) -> Self::Admitted {
        let admitted = self.authenticator.admit(request, &self.accounts, (self.options.now)());
        match &admitted {
            Ok(account) => self.journal.record(recorded(request, account)),
            Err(rejection) => {
                self.journal.reject(Rejected { reason: rejection.reason, target: request.target.clone() });
            }
        }
        admitted
    }

    fn rejection(admitted: &Self::Admitted) -> Option<&'static str> {
        admitted.as_ref().err().map(|rejection| rejection.reason)
    }

    fn step(&self, request: &Request, admitted: &Self::Admitted, script: &Script) -> Step {
        if admitted.is_ok() { scm::step(request, script) } else { Step::Serve }
    }

    /// Serves an admitted request, and answers 401 to a rejected one.
    fn serve(&self, request: &Request, admitted: Self::Admitted, _: Option<&Issue>) -> Reply {
        match admitted {
            Ok(account) => {
                let throttled = self.windows.count(request, &account, &self.options);
                throttled.unwrap_or_else(|| self.scm.serve(request, &account, &self.options))
            }
            Err(rejection) => gateway_error(401, "APIG.0301", &rejection.message),
        }
    }

    fn unreadable(&self, status: u16, text: &str) -> Reply {
        gateway_error(status, "APIG.0201", text)
    }
}

fn recorded(request: &Request, account: &Account) -> Recorded {
    Recorded {
        method: request.method.clone(),
        target: request.target.clone(),
        headers: request.texts(),
        body: request.body.clone(),
        access_key: account.access_key.clone(),
    }
}
