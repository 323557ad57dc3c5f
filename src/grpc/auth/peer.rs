//! Finds the identity of a peer: in its certificate, in the header of a sidecar, or in the user of a Unix socket.

use std::{borrow::Cow, sync::Arc};

use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::{AccessPolicy, Caller};
use crate::validate::identity;

/// The header in which Envoy and other sidecars forward the client certificate.
const FORWARDED_CLIENT_CERT: &str = "x-forwarded-client-cert";

/// The peer of a connection.
#[derive(Clone)]
pub(in crate::grpc) enum Peer {
    /// The caller itself, perhaps unidentified.
    Direct(Caller),
    /// A sidecar, which names the caller of each request in a header.
    Forwarded(Arc<AccessPolicy>),
}

impl Peer {
    /// Returns the caller of a request on this connection.
    pub(in crate::grpc) fn caller(&self, headers: &HeaderMap) -> Caller {
        match self {
            Self::Direct(caller) => caller.clone(),
            Self::Forwarded(policy) => of_headers(headers, policy),
        }
    }

    /// Returns the identity of all calls on the connection, if they have the same one.
    pub(in crate::grpc) fn identity(&self) -> Option<&Arc<str>> {
        match self {
            Self::Direct(caller) => caller.identity(),
            Self::Forwarded(_) => None,
        }
    }

    /// Returns whether every call on the connection will be rejected as unidentified or unlisted.
    pub(in crate::grpc) fn is_unlisted(&self, policy: &AccessPolicy) -> bool {
        matches!(self, Self::Direct(caller) if policy.require_listed(caller).is_err())
    }
}

/// The identities in a certificate. The subject's CN is not one of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct SubjectAltNames<'a> {
    uris: Vec<Cow<'a, str>>,
    dns_names: Vec<Cow<'a, str>>,
}

impl SubjectAltNames<'_> {
    /// Returns the one URI (X.509-SVID 2 allows no other), otherwise the DNS names.
    fn identities(&self) -> Vec<String> {
        match self.uris.as_slice() {
            [] => self.dns_names.iter().filter_map(|name| identity::dns_name(name)).collect(),
            [uri] => identity::uri(uri).into_iter().collect(),
            _ => Vec::new(),
        }
    }
}

/// Returns the holder of a verified certificate.
pub(in crate::grpc) fn of_certificate(certificate: &CertificateDer<'_>, policy: &AccessPolicy) -> Caller {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return Caller::default() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Caller::default() };
    let mut names = SubjectAltNames::default();
    for name in &extension.value.general_names {
        match name {
            GeneralName::URI(uri) => names.uris.push(Cow::Borrowed(uri)),
            GeneralName::DNSName(name) => names.dns_names.push(Cow::Borrowed(name)),
            GeneralName::Invalid(..) => return Caller::default(), // it may be a second URI
            _ => {}
        }
    }
    policy.resolve(&names.identities())
}

/// Returns the caller that the nearest sidecar names: the last element of the last header. Others may have written the
/// elements before it.
fn of_headers(headers: &HeaderMap, policy: &AccessPolicy) -> Caller {
    let last = headers.get_all(FORWARDED_CLIENT_CERT).iter().next_back();
    let names = last.and_then(|value| last_element(str::from_utf8(value.as_bytes()).ok()?)); // a subject may be UTF-8
    policy.resolve(&names.map(|names| names.identities()).unwrap_or_default())
}

/// Parses the last of the elements `Key=Value;Key=Value,…`. A value may be quoted, with `\"` for a quote (Envoy,
/// "x-forwarded-client-cert"). Returns `None` if the header has another form.
fn last_element(header: &str) -> Option<SubjectAltNames<'_>> {
    let mut names = SubjectAltNames::default();
    let mut rest = header;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        match key.trim() {
            key if key.is_empty() || key.contains([',', ';', '"']) => return None,
            _ if value.is_empty() => {} // Envoy writes a missing value as an empty one
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

/// Returns a value and the rest of the text.
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

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{FORWARDED_CLIENT_CERT, last_element, of_headers};
    use crate::grpc::auth::AccessPolicy;

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
        assert_eq!(of_headers(&headers, &AccessPolicy::default()).identity().map(AsRef::as_ref), Some("spiffe://a"));
    }

    #[test]
    fn several_uris_are_unidentified() {
        assert_eq!(identities("URI=spiffe://a;URI=spiffe://b;DNS=orders.example"), Some(vec![]));
    }

    #[test]
    fn without_a_uri_the_dns_names_count_not_the_subject() {
        let names = "Subject=\"CN=admin\";URI=;DNS=Orders.example;DNS=b.example";
        assert_eq!(identities(names), Some(vec!["orders.example".to_owned(), "b.example".to_owned()]));
        assert_eq!(identities("Hash=0123;Subject=\"CN=admin\""), Some(vec![]));
    }

    #[test]
    fn only_the_last_element_counts() {
        assert_eq!(identities("URI=spiffe://forged,By=x;URI=spiffe://true"), one("spiffe://true"));
        assert_eq!(identities("URI=spiffe://forged,By=x;Hash=y"), Some(vec![]));
        assert_eq!(identities("Subject=\"a,URI=spiffe://forged\";URI=spiffe://true"), one("spiffe://true"));
        let policy = AccessPolicy::default();
        let mut headers = HeaderMap::new();
        for value in ["URI=spiffe://forged", "URI=spiffe://true"] {
            headers.append("x-forwarded-client-cert", HeaderValue::from_static(value));
        }
        assert_eq!(of_headers(&headers, &policy).identity().map(AsRef::as_ref), Some("spiffe://true"));
    }

    #[test]
    fn an_unreadable_header_is_unidentified() {
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
