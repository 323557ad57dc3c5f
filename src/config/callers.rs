//! `[[callers]]`: which caller may call which methods for which projects.

use std::collections::{BTreeMap, BTreeSet};

use super::listen::IdentitySource;
use super::methods;
use super::projects::Projects;
use super::reader::{Raw, Section, values};
use super::server::Server;
use crate::{
    proto::{RPCS, Rpc},
    validate::identity,
};

/// An entry of `[[callers]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A URI such as `spiffe://example.org/ns/web/sa/orders`, a DNS name in lower case, or `uid:` and a number.
    pub identity: String,
    /// The full names of the methods that the caller may call.
    pub methods: BTreeSet<&'static str>,
    /// The ids of the projects that the caller may use, or `None` for all.
    pub projects: Option<BTreeSet<String>>,
}

/// Reads the list. `projects` is `None` if the projects are invalid themselves.
pub(super) fn read(root: &mut Section<'_>, server: &Server, projects: Option<&Projects>) -> Vec<Caller> {
    let source = server.identity;
    let Some(listed) = root.list("callers", |section| entry(section, server, projects)) else { return Vec::new() };
    let report = root.report();
    match (source, listed.is_empty()) {
        (IdentitySource::None, false) => report.problem(
            "callers",
            "cannot be told apart: set server.tls.client_ca_file, or server.trust_xfcc behind a mesh sidecar, or \
             listen on a Unix socket",
        ),
        (IdentitySource::ClientCertificate, true) => report.problem(
            "callers",
            "is missing; with server.tls.client_ca_file it lists who may call, and all others are rejected",
        ),
        (IdentitySource::None, true) if server.tls.is_some() && !server.listen.is_local() => report
            .warning("callers", "is missing: without server.tls.client_ca_file every client that can connect may call"),
        (IdentitySource::ForwardedHeader(_), true) => report.warning(
            "callers",
            "is missing; with server.trust_xfcc it would list who may call, without it every caller is allowed",
        ),
        _ => {}
    }
    listed.into_iter().flatten().collect()
}

fn entry(section: &mut Section<'_>, server: &Server, projects: Option<&Projects>) -> Option<Caller> {
    let (source, enabled) = (server.identity, &server.methods);
    let identity =
        section.required("identity", "who calls, by the client's certificate or user", |raw| identity(raw, source));
    let methods = section.required("methods", "the list of the methods it may call", methods::parse);
    let projects = section
        .required("projects", "the list of the projects it may use, or [\"*\"]", |raw| self::projects(raw, projects));
    let by_name = |rpc: &&Rpc| rpc.granted_by_name && !enabled.contains(rpc.name);
    let granted = methods.iter().flat_map(|methods| RPCS.iter().filter(|rpc| methods.contains(rpc.name)));
    for rpc in granted.filter(by_name) {
        let name = rpc.short_name();
        section.warning("methods", &format!("has {name}, which is not enabled: add it to server.methods"));
    }
    if methods.as_ref().is_some_and(|methods| methods.is_disjoint(enabled)) {
        section.warning("methods", "has no method of server.methods, so this entry allows nothing");
    }
    Some(Caller { identity: identity?, methods: methods?, projects: projects? })
}

/// Returns a line for each caller that says what it may call, or one for all callers.
pub(super) fn permissions(callers: &[Caller], enabled: &BTreeSet<&'static str>) -> Vec<String> {
    if callers.is_empty() {
        return vec![format!("every caller may call {}, for every project", methods::shown(enabled))];
    }
    let clause = |caller: &Caller| {
        let methods: BTreeSet<_> = caller.methods.intersection(enabled).copied().collect();
        let projects = caller.projects.as_ref().map(|ids| ids.iter().cloned().collect::<Vec<_>>().join(", "));
        let projects = projects.map_or_else(|| "every project".to_owned(), |ids| format!("project {ids}"));
        (!methods.is_empty()).then(|| format!("{}, for {projects}", methods::shown(&methods)))
    };
    let mut lines = BTreeMap::<_, Vec<_>>::new();
    for caller in callers {
        lines.entry(&caller.identity).or_default().extend(clause(caller));
    }
    let line = |(identity, clauses): (&String, Vec<String>)| match clauses.is_empty() {
        true => format!("{identity} may call nothing"),
        false => format!("{identity} may call {}", clauses.join("; ")),
    };
    lines.into_iter().map(line).collect()
}

fn identity(raw: &Raw, source: IdentitySource) -> Result<String, String> {
    let text = raw.text("the caller's identity, as text")?;
    if source == IdentitySource::PeerUser {
        let user = text.strip_prefix("uid:").and_then(|id| id.parse().ok()).and_then(identity::user);
        let expects = "expects the user at the other end of the Unix socket, such as \"uid:1000\"";
        return user.filter(|user| user == text).ok_or_else(|| expects.to_owned());
    }
    let name = if text.starts_with("uid:") { None } else { identity::uri(text).or_else(|| identity::dns_name(text)) };
    name.ok_or_else(|| {
        "expects a URI such as \"spiffe://example.org/ns/web/sa/orders\", or a DNS name of the client's certificate"
            .to_owned()
    })
}

/// Parses the project ids. Returns `None` for all projects.
fn projects(raw: &Raw, projects: Option<&Projects>) -> Result<Option<BTreeSet<String>>, String> {
    let ids = BTreeSet::from_iter(values::texts(raw)?);
    if ids.iter().eq(["*"]) {
        return Ok(None);
    }
    let is_known = |id: &String| projects.is_none_or(|projects| projects.get(id).is_some());
    if !ids.is_empty() && ids.iter().all(is_known) {
        Ok(Some(ids))
    } else {
        Err("expects a list of the projects' ids, or [\"*\"] for all of them".to_owned())
    }
}
