//! Who calls: by the client's certificate, by the header of a sidecar that checked it, or by the user at the other end
//! of a Unix socket. Every request carries the answer, a [`Caller`].

use std::{borrow::Cow, convert::Infallible, sync::Arc, task};

use http::{HeaderMap, Request};
use rustls::pki_types::CertificateDer;
use tower::Service;
use x509_parser::extensions::GeneralName;

use crate::{
    caller::{Caller, Callers},
    identity,
};

/// What Envoy and its like write.
const FORWARDED_CLIENT_CERT: &str = "x-forwarded-client-cert";

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(super) enum Peer {
    /// One caller, or nobody knows who.
    Is(Caller),
    /// A sidecar, which tells with each request.
    Sidecar(Arc<Callers>),
}

impl Peer {
    /// The caller that all calls of the connection are from, if that is known.
    pub(super) fn identity(&self) -> Option<&Arc<str>> {
        match self {
            Self::Is(caller) => caller.identity(),
            Self::Sidecar(_) => None,
        }
    }

    /// Whether it is for sure that no call of the connection will be served: nothing tells who it is, or who is not listed.
    pub(super) fn is_stranger(&self, callers: &Callers) -> bool {
        matches!(self, Self::Is(caller) if callers.may_look(caller).is_err())
    }
}

/// What a certificate says of its holder. The subject's CN is none of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct SubjectAltNames<'a> {
    uris: Vec<Cow<'a, str>>,
    dns_names: Vec<Cow<'a, str>>,
}

impl SubjectAltNames<'_> {
    /// The one URI (X.509-SVID 2: there is no other beside it), else the DNS names.
    fn identities(&self) -> Vec<String> {
        match self.uris.as_slice() {
            [] => self.dns_names.iter().filter_map(|name| identity::dns_name(name)).collect(),
            [uri] => identity::uri(uri).into_iter().collect(),
            _ => Vec::new(),
        }
    }
}

/// The holder of a certificate that has been verified.
pub(super) fn of_certificate(certificate: &CertificateDer<'_>, callers: &Callers) -> Caller {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return Caller::default() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Caller::default() };
    let mut names = SubjectAltNames::default();
    for name in &extension.value.general_names {
        match name {
            GeneralName::URI(uri) => names.uris.push(Cow::Borrowed(uri)),
            GeneralName::DNSName(name) => names.dns_names.push(Cow::Borrowed(name)),
            GeneralName::Invalid(..) => return Caller::default(), // it may be one URI too many
            _ => {}
        }
    }
    callers.by_names(&names.identities())
}

/// The caller that the nearest sidecar names: the last element of the last header. What stands before it, others wrote.
fn of_headers(headers: &HeaderMap, callers: &Callers) -> Caller {
    let last = headers.get_all(FORWARDED_CLIENT_CERT).iter().next_back();
    let names = last.and_then(|value| last_element(str::from_utf8(value.as_bytes()).ok()?)); // a subject may be UTF-8
    callers.by_names(&names.map(|names| names.identities()).unwrap_or_default())
}

/// Reads the last of the elements `Key=Value;Key=Value,…`. A value may stand in quotes, with `\"` for a quote (Envoy,
/// "x-forwarded-client-cert"). `None` if it is not written so.
fn last_element(header: &str) -> Option<SubjectAltNames<'_>> {
    let mut names = SubjectAltNames::default();
    let mut rest = header;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        match key.trim() {
            key if key.is_empty() || key.contains([',', ';', '"']) => return None,
            _ if value.is_empty() => {} // Envoy writes a key without a value for what is not there
            key if key.eq_ignore_ascii_case("uri") => names.uris.push(value),
            key if key.eq_ignore_ascii_case("dns") => names.dns_names.push(value),
            _ => {}
        }
        match after.split_at_checked(1) {
            None => return Some(names),
            Some((";", after)) => rest = after,
            Some((",", after)) => (names, rest) = (SubjectAltNames::default(), after),
            Some(_) => return None,
        }
    }
}

/// A value and what follows it.
fn value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return (!value.contains('"')).then_some((Cow::Borrowed(value), after));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    loop {
        match characters.next()? {
            (end, '"') => return Some((Cow::Owned(value), &quoted[end + 1..])),
            (_, '\\') => value.push(characters.next()?.1),
            (_, character) => value.push(character),
        }
    }
}

/// The outermost service of a connection: says who calls.
#[derive(Clone)]
pub(super) struct Identify<S> {
    inner: S,
    peer: Peer,
}

impl<S> Identify<S> {
    pub(super) fn new(inner: S, peer: Peer) -> Self {
        Self { inner, peer }
    }
}

impl<S, B> Service<Request<B>> for Identify<S>
where
    S: Service<Request<B>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let caller = match &self.peer {
            Peer::Is(caller) => caller.clone(),
            Peer::Sidecar(callers) => of_headers(request.headers(), callers),
        };
        request.extensions_mut().insert(caller);
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{FORWARDED_CLIENT_CERT, last_element, of_headers};
    use crate::caller::Callers;

    fn identities(header: &str) -> Option<Vec<String>> {
        last_element(header).map(|names| names.identities())
    }

    fn one(identity: &str) -> Option<Vec<String>> {
        Some(vec![identity.to_owned()])
    }

    #[test]
    fn the_one_uri_is_the_identity() {
        let istio = "By=spiffe://cluster.local/ns/scm/sa/gateway;Hash=0123;Subject=\"CN=x,O=\\\"y;URI=spiffe://evil\\\"\";\
                     URI=spiffe://cluster.local/ns/web/sa/orders;DNS=orders.example";
        assert_eq!(identities(istio), one("spiffe://cluster.local/ns/web/sa/orders"));
        assert_eq!(identities("uri=\"spiffe://a/b,c;d\""), one("spiffe://a/b,c;d"));
        let value = HeaderValue::from_bytes("Subject=\"CN=Jörg\";URI=spiffe://a".as_bytes()).unwrap();
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static(FORWARDED_CLIENT_CERT), value)]);
        assert_eq!(of_headers(&headers, &Callers::default()).identity().map(AsRef::as_ref), Some("spiffe://a"));
    }

    #[test]
    fn several_uris_are_nobody() {
        assert_eq!(identities("URI=spiffe://a;URI=spiffe://b;DNS=orders.example"), Some(vec![]));
    }

    #[test]
    fn without_a_uri_the_dns_names_count_and_never_the_subject() {
        let names = "Subject=\"CN=admin\";URI=;DNS=Orders.example;DNS=b.example";
        assert_eq!(identities(names), Some(vec!["orders.example".to_owned(), "b.example".to_owned()]));
        assert_eq!(identities("Hash=0123;Subject=\"CN=admin\""), Some(vec![]));
    }

    #[test]
    fn the_last_element_counts_for_the_client_may_have_written_the_others() {
        assert_eq!(identities("URI=spiffe://forged,By=x;URI=spiffe://true"), one("spiffe://true"));
        assert_eq!(identities("URI=spiffe://forged,By=x;Hash=y"), Some(vec![]));
        assert_eq!(identities("Subject=\"a,URI=spiffe://forged\";URI=spiffe://true"), one("spiffe://true"));
        let (callers, mut headers) = (Callers::default(), HeaderMap::new());
        for value in ["URI=spiffe://forged", "URI=spiffe://true"] {
            headers.append("x-forwarded-client-cert", HeaderValue::from_static(value));
        }
        assert_eq!(of_headers(&headers, &callers).identity().map(AsRef::as_ref), Some("spiffe://true"));
    }

    #[test]
    fn what_cannot_be_read_is_nobody() {
        for bad in [
            "",
            ",",
            ";",
            "URI",
            "=",
            "=x",
            "URI=\"spiffe://a",
            "URI=\"spiffe://a\"x",
            "URI=spiffe://a\"b\"",
            "URI=spiffe://a;",
            "URI=spiffe://a,",
            "URI=\"a\\",
            "x;URI=spiffe://a",
        ] {
            assert_eq!(identities(bad), None, "{bad:?}");
        }
        for odd in ["URI=no-scheme", "URI=spiffe://a b", "DNS=spiffe://a"] {
            assert_eq!(identities(odd), Some(vec![]), "{odd:?}");
        }
    }
}
