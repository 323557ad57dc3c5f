//! Who calls, and what `[[callers]]` lets them do.

use std::{collections::HashMap, sync::Arc};

use crate::{config, error::Reason};

/// Who calls, if anything tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller(Option<Arc<str>>);

impl Caller {
    /// The caller's name: a URI, a DNS name in lower case, or `uid:` and a number.
    pub fn identity(&self) -> Option<&Arc<str>> {
        self.0.as_ref()
    }
}

/// Who may call what. Without an entry, all may call everything.
#[derive(Debug, Default)]
pub struct Callers(HashMap<Arc<str>, Vec<config::Caller>>);

impl Callers {
    /// The callers listed. One that is listed more than once may do what any of its entries says.
    pub fn new(listed: &[config::Caller]) -> Self {
        let mut entries = HashMap::<_, Vec<_>>::new();
        for caller in listed {
            entries.entry(Arc::from(caller.identity.as_str())).or_default().push(caller.clone());
        }
        Self(entries)
    }

    /// The caller that goes by these names: the first of them that is listed, else the first.
    pub fn by_names<N: AsRef<str>>(&self, names: &[N]) -> Caller {
        let listed = names.iter().find_map(|name| self.0.get_key_value(name.as_ref()));
        Caller(match listed {
            Some((name, _)) => Some(name.clone()),
            None => names.first().map(|name| name.as_ref().into()),
        })
    }

    /// Whether the caller is known and may call this method, by its full name.
    pub fn may_call(&self, caller: &Caller, method: &str) -> Result<(), Reason> {
        self.may(caller, |entry| entry.methods.contains(method))
    }

    /// Whether the caller may call this method for this project.
    pub fn may_use(&self, caller: &Caller, method: &str, project: &str) -> Result<(), Reason> {
        let covers = |entry: &config::Caller| entry.projects.as_ref().is_none_or(|ids| ids.contains(project));
        self.may(caller, |entry| entry.methods.contains(method) && covers(entry))
    }

    /// Whether the caller is listed at all.
    pub fn may_look(&self, caller: &Caller) -> Result<(), Reason> {
        self.may(caller, |_| true)
    }

    fn may(&self, caller: &Caller, grants: impl Fn(&config::Caller) -> bool) -> Result<(), Reason> {
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

    use super::Callers;
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
    fn what_is_not_listed_is_refused() {
        let callers = Callers::new(&[entry("a", &[SAVE], Some(&["p"])), entry("b", &[SAVE, READ], None)]);
        let caller = |name| callers.by_names(&[name]);
        assert_eq!(callers.may_call(&caller("a"), SAVE), Ok(()));
        assert_eq!(callers.may_use(&caller("a"), SAVE, "p"), Ok(()));
        assert_eq!(callers.may_use(&caller("a"), SAVE, "q"), Err(Reason::CallerNotAllowed));
        assert_eq!(callers.may_call(&caller("a"), READ), Err(Reason::CallerNotAllowed));
        assert_eq!(callers.may_use(&caller("b"), READ, "q"), Ok(()));
        assert_eq!(callers.may_call(&caller("c"), SAVE), Err(Reason::CallerNotAllowed));
        assert_eq!(callers.may_call(&callers.by_names::<&str>(&[]), SAVE), Err(Reason::CallerUnauthenticated));
        assert_eq!(callers.may_look(&caller("a")), Ok(()));
        assert_eq!(callers.may_look(&caller("c")), Err(Reason::CallerNotAllowed));
    }

    #[test]
    fn one_entry_says_both_the_method_and_the_project() {
        let callers = Callers::new(&[entry("a", &[SAVE], Some(&["p"])), entry("a", &[READ], None)]);
        let caller = callers.by_names(&["a"]);
        assert_eq!(callers.may_use(&caller, READ, "q"), Ok(()));
        assert_eq!(callers.may_use(&caller, SAVE, "q"), Err(Reason::CallerNotAllowed));
    }

    #[test]
    fn without_a_list_all_may_call() {
        let callers = Callers::default();
        for caller in [callers.by_names(&["a"]), callers.by_names::<&str>(&[])] {
            assert_eq!(callers.may_use(&caller, SAVE, "p"), Ok(()));
        }
    }

    #[test]
    fn of_several_names_the_first_that_is_listed_counts() {
        let callers = Callers::new(&[entry("b", &[SAVE], None), entry("c", &[SAVE], None)]);
        let named = |names: &[&str]| callers.by_names(names).identity().map(|name| name.to_string());
        assert_eq!(named(&["a", "c", "b"]), Some("c".to_owned()));
        assert_eq!(named(&["a", "x"]), Some("a".to_owned()));
        assert_eq!(named(&[]), None);
    }
}
