//! Callers, and what `[[callers]]` allows them to do.

use std::{collections::HashMap, sync::Arc};

use crate::{config, error::Reason};

pub(super) mod peer;

/// A caller, perhaps unidentified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The identity: a URI, a DNS name in lower case, or `uid:` and a number.
    Identified(Arc<str>),
    /// Why there is no identity: one of a fixed set of texts.
    Unidentified(&'static str),
}

impl Default for Caller {
    fn default() -> Self {
        Self::Unidentified("no identity")
    }
}

impl Caller {
    /// Returns the caller's identity.
    pub fn identity(&self) -> Option<&Arc<str>> {
        match self {
            Self::Identified(identity) => Some(identity),
            Self::Unidentified(_) => None,
        }
    }

    /// Returns why there is no identity.
    pub fn cause(&self) -> Option<&'static str> {
        match self {
            Self::Identified(_) => None,
            Self::Unidentified(cause) => Some(cause),
        }
    }
}

/// Which caller may call which method for which project. Without entries, everything is allowed.
#[derive(Debug, Default)]
pub struct AccessPolicy(HashMap<Arc<str>, Vec<config::Caller>>);

impl AccessPolicy {
    /// Creates the policy. A caller that is listed more than once may do what any of its entries allows.
    pub fn new(listed: &[config::Caller]) -> Self {
        let mut entries = HashMap::<_, Vec<_>>::new();
        for caller in listed {
            entries.entry(Arc::from(caller.identity.as_str())).or_default().push(caller.clone());
        }
        Self(entries)
    }

    /// Returns the caller with these names: the first name that is listed, otherwise the first name.
    pub fn resolve<N: AsRef<str>>(&self, names: &[N]) -> Caller {
        let listed = names.iter().find_map(|name| self.0.get_key_value(name.as_ref()));
        match (listed, names.first()) {
            (Some((name, _)), _) => Caller::Identified(name.clone()),
            (None, Some(name)) => Caller::Identified(name.as_ref().into()),
            (None, None) => Caller::default(),
        }
    }

    /// Checks that the caller may call this method, given by its full name.
    pub fn authorize_method(&self, caller: &Caller, method: &str) -> Result<(), Reason> {
        self.authorize(caller, |entry| entry.methods.contains(method))
    }

    /// Checks that the caller may call this method for this project.
    pub fn authorize_project(&self, caller: &Caller, method: &str, project: &str) -> Result<(), Reason> {
        let covers = |entry: &config::Caller| entry.projects.as_ref().is_none_or(|ids| ids.contains(project));
        self.authorize(caller, |entry| entry.methods.contains(method) && covers(entry))
    }

    /// Checks that the caller is listed.
    pub fn require_listed(&self, caller: &Caller) -> Result<(), Reason> {
        self.authorize(caller, |_| true)
    }

    fn authorize(&self, caller: &Caller, grants: impl Fn(&config::Caller) -> bool) -> Result<(), Reason> {
        if self.0.is_empty() {
            return Ok(());
        }
        let identity = caller.identity().ok_or(Reason::CallerUnauthenticated)?;
        let entries = self.0.get(identity).map_or(&[][..], Vec::as_slice);
        if entries.iter().any(grants) { Ok(()) } else { Err(Reason::CallerNotAllowed) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::AccessPolicy;
    use crate::{config, error::Reason};

    const SAVE: &str = "s/SaveInfo";
    const READ: &str = "s/ReadInfo";

    fn entry(identity: &str, methods: &[&'static str], projects: Option<&[&str]>) -> config::Caller {
        let projects = projects.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect());
        config::Caller {
            identity: identity.to_owned(),
            methods: BTreeSet::from_iter(methods.iter().copied()),
            projects,
        }
    }

    #[test]
    fn unlisted_callers_methods_and_projects_are_rejected() {
        let policy = AccessPolicy::new(&[entry("a", &[SAVE], Some(&["p"])), entry("b", &[SAVE, READ], None)]);
        let caller = |name| policy.resolve(&[name]);
        assert_eq!(policy.authorize_method(&caller("a"), SAVE), Ok(()));
        assert_eq!(policy.authorize_project(&caller("a"), SAVE, "p"), Ok(()));
        assert_eq!(policy.authorize_project(&caller("a"), SAVE, "q"), Err(Reason::CallerNotAllowed));
        assert_eq!(policy.authorize_method(&caller("a"), READ), Err(Reason::CallerNotAllowed));
        assert_eq!(policy.authorize_project(&caller("b"), READ, "q"), Ok(()));
        assert_eq!(policy.authorize_method(&caller("c"), SAVE), Err(Reason::CallerNotAllowed));
        assert_eq!(policy.authorize_method(&policy.resolve::<&str>(&[]), SAVE), Err(Reason::CallerUnauthenticated));
        assert_eq!(policy.require_listed(&caller("a")), Ok(()));
        assert_eq!(policy.require_listed(&caller("c")), Err(Reason::CallerNotAllowed));
    }

    #[test]
    fn one_entry_grants_both_method_and_project() {
        let policy = AccessPolicy::new(&[entry("a", &[SAVE], Some(&["p"])), entry("a", &[READ], None)]);
        let caller = policy.resolve(&["a"]);
        assert_eq!(policy.authorize_project(&caller, READ, "q"), Ok(()));
        assert_eq!(policy.authorize_project(&caller, SAVE, "q"), Err(Reason::CallerNotAllowed));
    }

    #[test]
    fn without_entries_everything_is_allowed() {
        let policy = AccessPolicy::default();
        for caller in [policy.resolve(&["a"]), policy.resolve::<&str>(&[])] {
            assert_eq!(policy.authorize_project(&caller, SAVE, "p"), Ok(()));
        }
    }

    #[test]
    fn the_first_listed_name_counts() {
        let policy = AccessPolicy::new(&[entry("b", &[SAVE], None), entry("c", &[SAVE], None)]);
        let named = |names: &[&str]| policy.resolve(names).identity().map(|name| name.to_string());
        assert_eq!(named(&["a", "c", "b"]), Some("c".to_owned()));
        assert_eq!(named(&["a", "x"]), Some("a".to_owned()));
        assert_eq!(named(&[]), None);
    }
}
