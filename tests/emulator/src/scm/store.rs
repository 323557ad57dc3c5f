//! What SCM holds, and what one request sees of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use super::certificate::Certificate;
use super::csrs::Csr;
use super::failure::Failure;
use super::life::{Action, Status};
use super::seed::Seed;
use crate::time::milliseconds;
use crate::{Account, Options};

/// Everything that SCM holds, of all accounts.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) certificates: HashMap<String, Certificate>,
    /// The ids of certificates that were deleted or returned.
    pub(crate) gone: HashSet<String>,
    pub(crate) csrs: BTreeMap<String, Csr>,
    /// How far the life of the certificates is ahead of the clock.
    pub(crate) ahead: Duration,
    /// The number of ids given out.
    ids: u64,
}

impl Store {
    pub(crate) fn seed(&mut self, seed: &Seed, now: SystemTime) {
        self.gone.remove(&seed.id);
        self.certificates.insert(seed.id.clone(), Certificate::seeded(seed, now));
    }
}

/// What an operation works with: the store, on behalf of an account, at a time.
pub(crate) struct World<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) account: &'a Account,
    pub(crate) options: &'a Options,
    pub(crate) now: SystemTime,
}

impl World<'_> {
    /// Returns a certificate of the account in its present state. An id that nobody has used yet becomes a paid
    /// certificate of the account.
    pub(crate) fn certificate(&mut self, id: &str) -> Result<&mut Certificate, Failure> {
        let options = self.options;
        if options.unknown.iter().any(|unknown| unknown == id) {
            return Err(Failure::no_certificate());
        }
        if options.foreign.iter().any(|foreign| foreign == id) {
            return Err(Failure::foreign());
        }
        if self.store.gone.contains(id) {
            return Err(Failure::gone());
        }
        if !self.store.certificates.contains_key(id) {
            let status = match options.issued.iter().any(|issued| issued == id) {
                true => Status::Issued,
                false if is_id(id) => Status::Paid,
                false => return Err(Failure::no_certificate()),
            };
            let seed = Seed { owner: self.account.domain_id.clone(), ..Seed::new(id).status(status) };
            self.store.seed(&seed, self.now);
        }
        let certificate = self.store.certificates.get_mut(id).ok_or_else(Failure::no_certificate)?;
        if certificate.owner != self.account.domain_id {
            return Err(Failure::foreign());
        }
        certificate.settle(self.now, options.review_step);
        Ok(certificate)
    }

    /// Returns a certificate whose state allows an action.
    pub(crate) fn certificate_for(&mut self, id: &str, action: Action) -> Result<&mut Certificate, Failure> {
        let now = self.now;
        let certificate = self.certificate(id)?;
        if certificate.allows(action, now) { Ok(certificate) } else { Err(Failure::state()) }
    }

    /// Returns all certificates of the account in their present states, in the order of their ids.
    pub(crate) fn certificates(&mut self) -> Vec<&mut Certificate> {
        let Self { store, account, options, now } = self;
        let all = store.certificates.values_mut();
        let mut own: Vec<_> = all.filter(|certificate| certificate.owner == account.domain_id).collect();
        own.iter_mut().for_each(|certificate| certificate.settle(*now, options.review_step));
        own.sort_by(|a, b| a.id.cmp(&b.id));
        own
    }

    /// Removes a certificate. Its id stays used.
    pub(crate) fn remove(&mut self, id: &str) {
        self.store.certificates.remove(id);
        self.store.gone.insert(id.to_owned());
    }

    /// Returns a certificate id that nobody has used: `scs` and 13 digits, the milliseconds of its creation.
    pub(crate) fn new_id(&mut self) -> String {
        loop {
            self.store.ids += 1;
            let number = (milliseconds(self.now) + self.store.ids) % 10_000_000_000_000;
            let id = format!("scs{number:013}");
            let listed = |list: &[String]| list.contains(&id);
            let used = self.store.certificates.contains_key(&id) || self.store.gone.contains(&id);
            if !(used || listed(&self.options.unknown) || listed(&self.options.foreign) || listed(&self.options.issued))
            {
                return id;
            }
        }
    }

    /// Returns a number that no other order or CSR has.
    pub(crate) fn new_number(&mut self) -> u64 {
        self.store.ids += 1;
        milliseconds(self.now) + self.store.ids
    }

    /// Whether a target project or a resource of another service exists.
    pub(crate) fn knows(&self, name: &str) -> bool {
        !self.options.unknown.iter().any(|unknown| unknown == name)
    }
}

/// Whether an id has the vendor's form.
fn is_id(id: &str) -> bool {
    let digits = id.strip_prefix("scs").unwrap_or_default();
    digits.len() == 13 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Splits a joined list at `;` or `,`, without empty elements.
pub(crate) fn split(joined: &str) -> Vec<String> {
    let parts = joined.split([';', ',']).map(str::trim);
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
