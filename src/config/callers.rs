//! `[[callers]]`: who may call what, and what callers are told apart by.

use std::collections::BTreeSet;

use super::problems::Problem;
use super::raw::Raw;
use super::reader::Section;
use super::{Listen, Projects, Server, values};
use crate::{proto, validate::identity};

/// What callers are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentitySource {
    /// Nothing: all callers are the same.
    None,
    /// The client certificate of `[server.tls]`.
    ClientCertificate,
    /// The `x-forwarded-client-cert` of a sidecar.
    ForwardedHeader,
    /// The user at the other end of the Unix socket.
    PeerUser,
}

/// One of `[[callers]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A URI such as `spiffe://example.org/ns/web/sa/orders`, a DNS name in lower case, or `uid:` and a number.
    pub identity: String,
    /// The full names of the methods it may call.
    pub methods: BTreeSet<&'static str>,
    /// The ids of the projects it may use; `None` for all.
    pub projects: Option<BTreeSet<String>>,
}

/// What a listener tells callers apart by.
pub(super) fn source(listen: &Listen, trust_xfcc: bool, client_ca: bool) -> IdentitySource {
    match listen {
        _ if trust_xfcc => IdentitySource::ForwardedHeader,
        _ if client_ca => IdentitySource::ClientCertificate,
        Listen::Unix(_) => IdentitySource::PeerUser,
        Listen::Tcp(_) => IdentitySource::None,
    }
}

/// Reads the list. The projects are `None` where they are not known for a problem of their own.
pub(super) fn read(root: &mut Section<'_>, server: &Server, projects: Option<&Projects>) -> Vec<Caller> {
    let source = server.identity;
    let Some(listed) = root.list("callers", |section| entry(section, source, projects)) else { return Vec::new() };
    match (source, listed.is_empty()) {
        (IdentitySource::None, false) => root.problem_at(Problem::new(
            "callers",
            "cannot be told apart: set server.tls.client_ca_file, or server.trust_xfcc behind a mesh sidecar, or \
             listen on a Unix socket",
        )),
        (IdentitySource::ClientCertificate, true) => root.problem_at(Problem::new(
            "callers",
            "is missing; with server.tls.client_ca_file it lists who may call, and all others are refused",
        )),
        (IdentitySource::None, true) if server.tls.is_some() && !server.listen.is_local() => root.warning_at(
            "callers",
            "is missing: without server.tls.client_ca_file whoever reaches the listener may call",
        ),
        (IdentitySource::ForwardedHeader, true) => root
            .warning_at("callers", "is missing; with server.trust_xfcc it would list who may call, without it all may"),
        _ => {}
    }
    listed.into_iter().flatten().collect()
}

fn entry(section: &mut Section<'_>, source: IdentitySource, projects: Option<&Projects>) -> Option<Caller> {
    let identity =
        section.required("identity", "who calls, by the client's certificate or user", |raw| identity(raw, source));
    let methods = section.required("methods", "the list of the methods it may call", methods);
    let projects = section
        .required("projects", "the list of the projects it may use, or [\"*\"]", |raw| self::projects(raw, projects));
    Some(Caller { identity: identity?, methods: methods?, projects: projects? })
}

fn identity(raw: &Raw, source: IdentitySource) -> Result<String, String> {
    let text = raw.text("the caller's identity, as text")?;
    if source == IdentitySource::PeerUser {
        let id = text.strip_prefix("uid:").and_then(|id| id.parse().ok()).and_then(identity::user);
        let expects = "expects the user at the other end of the Unix socket, such as \"uid:1000\"";
        return id.filter(|id| id == text).ok_or_else(|| expects.to_owned());
    }
    let name = if text.starts_with("uid:") { None } else { identity::uri(text).or_else(|| identity::dns_name(text)) };
    name.ok_or_else(|| {
        "expects a URI such as \"spiffe://example.org/ns/web/sa/orders\", or a DNS name of the client's certificate"
            .to_owned()
    })
}

/// An RPC as the configuration names it.
pub(super) fn short(rpc: &'static str) -> &'static str {
    rpc.rsplit('/').next().unwrap_or(rpc)
}

fn methods(raw: &Raw) -> Result<BTreeSet<&'static str>, String> {
    let method = |name: &String| proto::RPCS.iter().copied().find(|rpc| short(rpc) == name);
    let given = values::texts(raw)?;
    let known = given.iter().map(method).collect::<Option<BTreeSet<_>>>();
    known.filter(|methods| !methods.is_empty()).ok_or_else(|| {
        let all: Vec<_> = proto::RPCS.iter().map(|rpc| short(rpc)).collect();
        format!("expects a list of methods, of {}", all.join(", "))
    })
}

/// The ids; `None` for all projects.
fn projects(raw: &Raw, projects: Option<&Projects>) -> Result<Option<BTreeSet<String>>, String> {
    let given = BTreeSet::from_iter(values::texts(raw)?);
    if given.iter().eq(["*"]) {
        return Ok(None);
    }
    let is_known = |id: &String| projects.is_none_or(|projects| projects.get(id).is_some());
    match !given.is_empty() && given.iter().all(is_known) {
        true => Ok(Some(given)),
        false => Err("expects a list of the projects' ids, or [\"*\"] for all of them".to_owned()),
    }
}
