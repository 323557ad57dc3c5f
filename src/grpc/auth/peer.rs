//! Finds the identity of a peer: in its certificate, in the header of a sidecar, or in the user of a Unix socket.

use std::{borrow::Cow, mem, sync::Arc};

use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::{AccessPolicy, Caller};
use crate::{config::XfccElements, validate::identity};

/// The header in which Envoy and other sidecars forward the client certificate.
const FORWARDED_CLIENT_CERT: &str = "x-forwarded-client-cert";

/// The peer of a connection.
#[derive(Clone)]
pub(in crate::grpc) enum Peer {
    /// The caller itself, perhaps unidentified.
    Direct(Caller),
    /// A sidecar, which names the caller of each request in a header.
    Forwarded(Arc<AccessPolicy>, XfccElements),
}

impl Peer {
    /// Returns the caller of a request on this connection.
    pub(in crate::grpc) fn caller(&self, headers: &HeaderMap) -> Caller {
        match self {
            Self::Direct(caller) => caller.clone(),
            Self::Forwarded(policy, elements) => of_headers(headers, policy, *elements),
        }
    }

    /// Returns the identity of all calls on the connection, if they have the same one.
    pub(in crate::grpc) fn identity(&self) -> Option<&Arc<str>> {
        match self {
            Self::Direct(caller) => caller.identity(),
            Self::Forwarded(..) => None,
        }
    }

    /// Returns whether every call on the connection will be rejected as unidentified or unlisted.
    pub(in crate::grpc) fn is_unlisted(&self, policy: &AccessPolicy) -> bool {
        matches!(self, Self::Direct(caller) if policy.require_listed(caller).is_err())
    }
}

/// Why a caller has no identity.
const NO_CERTIFICATE: &str = "no client certificate";
const UNREADABLE_NAMES: &str = "unreadable SAN in the client certificate";
const NO_NAME: &str = "no usable SAN in the client certificate";
const SEVERAL_URIS: &str = "several URI SANs in the client certificate";
const NO_HEADER: &str = "no x-forwarded-client-cert";
const SEVERAL_ELEMENTS: &str = "several elements in x-forwarded-client-cert";
const MALFORMED_HEADER: &str = "malformed x-forwarded-client-cert";

/// The identities in a certificate. The subject's CN is not one of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct SubjectAltNames<'a> {
    uris: Vec<Cow<'a, str>>,
    dns_names: Vec<Cow<'a, str>>,
}

impl SubjectAltNames<'_> {
    /// Returns the one URI (X.509-SVID 2 allows no other), otherwise the DNS names.
    fn identities(&self) -> Result<Vec<String>, &'static str> {
        let identities: Vec<_> = match self.uris.as_slice() {
            [] => self.dns_names.iter().filter_map(|name| identity::dns_name(name)).collect(),
            [uri] => identity::uri(uri).into_iter().collect(),
            _ => return Err(SEVERAL_URIS),
        };
        if identities.is_empty() { Err(NO_NAME) } else { Ok(identities) }
    }
}

/// Returns the holder of a verified certificate.
pub(in crate::grpc) fn of_certificate(certificate: Option<&CertificateDer<'_>>, policy: &AccessPolicy) -> Caller {
    resolve(certificate.ok_or(NO_CERTIFICATE).and_then(|certificate| certified(certificate)), policy)
}

/// Returns the identities in a certificate.
fn certified(certificate: &CertificateDer<'_>) -> Result<Vec<String>, &'static str> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).map_err(|_| UNREADABLE_NAMES)?;
    let extension = certificate.subject_alternative_name().map_err(|_| UNREADABLE_NAMES)?.ok_or(NO_NAME)?;
    let mut names = SubjectAltNames::default();
    for name in &extension.value.general_names {
        match name {
            GeneralName::URI(uri) => names.uris.push(Cow::Borrowed(uri)),
            GeneralName::DNSName(name) => names.dns_names.push(Cow::Borrowed(name)),
            GeneralName::Invalid(..) => return Err(UNREADABLE_NAMES), // it may be a second URI
            _ => {}
        }
    }
    names.identities()
}

/// Returns the caller that the sidecar names.
fn of_headers(headers: &HeaderMap, policy: &AccessPolicy, elements: XfccElements) -> Caller {
    resolve(forwarded(headers, elements), policy)
}

fn resolve(identities: Result<Vec<String>, &'static str>, policy: &AccessPolicy) -> Caller {
    match identities {
        Ok(identities) => policy.resolve(&identities),
        Err(cause) => Caller::Unidentified(cause),
    }
}

/// Returns the identities in the only element, or in the last one, which the nearest proxy has appended. Others may have
/// written the elements before it.
fn forwarded(headers: &HeaderMap, elements: XfccElements) -> Result<Vec<String>, &'static str> {
    let mut lines = headers.get_all(FORWARDED_CLIENT_CERT).iter();
    let last = lines.next_back().ok_or(NO_HEADER)?;
    let text = str::from_utf8(last.as_bytes()).map_err(|_| MALFORMED_HEADER)?; // a subject may be UTF-8
    let (names, is_only) = last_element(text).ok_or(MALFORMED_HEADER)?;
    if elements == XfccElements::One && !(is_only && lines.next_back().is_none()) {
        return Err(SEVERAL_ELEMENTS);
    }
    names.identities()
}

/// Parses the last of the elements `Key=Value;Key=Value,…`, and returns whether it is the only one. A value may be quoted,
/// with `\"` for a quote (Envoy, "x-forwarded-client-cert"). Returns `None` if the header has another form.
fn last_element(header: &str) -> Option<(SubjectAltNames<'_>, bool)> {
    let mut element = Element::default();
    let mut is_only = true;
    let mut rest = header;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        element.add(key.trim(), value)?;
        if after.is_empty() {
            return Some((element.names, is_only));
        } else if let Some(after) = after.strip_prefix(';') {
            rest = after;
        } else {
            is_only = false;
            (element, rest) = (Element::default(), after.strip_prefix(',')?);
        }
    }
}

/// The keys of an element, in the order in which Envoy writes the last two.
const KEYS: [&str; 7] = ["By", "Hash", "Cert", "Chain", "Subject", "URI", "DNS"];
const URI: usize = 5;
const DNS: usize = 6;

/// One element of the header.
///
/// Envoy does not quote SANs. A SAN with a semicolon would be cut short, or name another URI, if the order were free.
#[derive(Default)]
struct Element<'a> {
    names: SubjectAltNames<'a>,
    /// Whether each key was given.
    given: [bool; KEYS.len()],
    /// The lowest key that may follow.
    next: usize,
}

impl<'a> Element<'a> {
    /// Adds a value. Returns `None` for an unknown key, for a second value of a key that has one, for anything but `DNS` after
    /// a URI, and for anything else after `DNS`.
    fn add(&mut self, key: &str, value: Cow<'a, str>) -> Option<()> {
        let key = KEYS.iter().position(|known| known.eq_ignore_ascii_case(key)).filter(|key| *key >= self.next)?;
        let is_list = ["By", "URI", "DNS"].contains(&KEYS[key]);
        if mem::replace(&mut self.given[key], true) && !is_list {
            return None;
        }
        match key {
            URI if value.is_empty() => self.next = DNS, // Envoy writes a missing URI as an empty one
            URI => {
                self.next = URI;
                self.names.uris.push(value);
            }
            DNS => {
                self.next = DNS;
                self.names.dns_names.push(value);
            }
            _ => {}
        }
        Some(())
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

    use super::{
        FORWARDED_CLIENT_CERT, MALFORMED_HEADER, NO_HEADER, NO_NAME, SEVERAL_ELEMENTS, SEVERAL_URIS, forwarded,
    };
    use crate::config::XfccElements::{Last, One};

    /// Returns the identities in header lines, joined by blanks, as `one` and as `last`.
    fn identities(lines: &[&str]) -> [Result<String, &'static str>; 2] {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_CLIENT_CERT, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        [One, Last].map(|elements| forwarded(&headers, elements).map(|names| names.join(" ")))
    }

    #[test]
    fn the_names_of_one_element_are_the_identity() {
        let istio = "By=spiffe://cluster.local/ns/scm/sa/gateway;Hash=0123;Subject=\"CN=x,O=\\\"y;URI=spiffe://evil\\\"\";\
                     URI=spiffe://cluster.local/ns/web/sa/orders;DNS=orders.example";
        for (header, expected) in [
            (istio, Ok("spiffe://cluster.local/ns/web/sa/orders")),
            ("uri=\"spiffe://a/b,c;d\"", Ok("spiffe://a/b,c;d")),
            ("URI=\"spiffe://a/\\\"b\\\\\"", Ok("spiffe://a/\"b\\")),
            ("Subject=\"CN=J\u{f6}rg\";URI=spiffe://a", Ok("spiffe://a")),
            ("By=spiffe://x;By=spiffe://y;Hash=0;URI=spiffe://a", Ok("spiffe://a")),
            ("Hash=0;Cert=\"x,y\";Chain=\"x;y\";Subject=\"\";URI=spiffe://a;DNS=a;DNS=b", Ok("spiffe://a")),
            ("Subject=\"a,URI=spiffe://forged\";URI=spiffe://true", Ok("spiffe://true")),
            ("Subject=\"CN=admin\";URI=;DNS=Orders.example;DNS=b.example", Ok("orders.example b.example")),
            ("Subject=\"\";Hash=0;URI=;DNS=;DNS=b.example", Ok("b.example")),
            ("URI=spiffe://a;URI=spiffe://b;DNS=orders.example", Err(SEVERAL_URIS)),
            ("URI=spiffe://a;URI=spiffe://a", Err(SEVERAL_URIS)),
            ("URI=spiffe://a;uri=\"spiffe://b\"", Err(SEVERAL_URIS)),
            ("Hash=0123;Subject=\"CN=admin\"", Err(NO_NAME)),
            ("URI=no-scheme", Err(NO_NAME)),
            ("URI=spiffe://a b", Err(NO_NAME)),
            ("DNS=spiffe://a", Err(NO_NAME)),
        ] {
            assert_eq!(identities(&[header]), [expected.map(str::to_owned), expected.map(str::to_owned)], "{header:?}");
        }
        assert_eq!(identities(&[]), [Err(NO_HEADER), Err(NO_HEADER)]);
    }

    #[test]
    fn several_elements_are_rejected_unless_the_last_counts() {
        for (lines, last) in [
            (&["URI=spiffe://forged,By=x;URI=spiffe://true"][..], Ok("spiffe://true")),
            (&["URI=spiffe://forged,By=x;Hash=y"], Err(NO_NAME)),
            (&["By=x;Hash=y,URI=spiffe://true"], Ok("spiffe://true")),
            (&["URI=spiffe://a,URI=spiffe://a"], Ok("spiffe://a")),
            (&["URI=spiffe://forged", "URI=spiffe://true"], Ok("spiffe://true")),
            (&["URI=spiffe://a", "URI=spiffe://a"], Ok("spiffe://a")),
            (&["", "URI=spiffe://true"], Ok("spiffe://true")),
        ] {
            assert_eq!(identities(lines), [Err(SEVERAL_ELEMENTS), last.map(str::to_owned)], "{lines:?}");
        }
    }

    /// Envoy does not quote URIs, which may contain what looks like the rest of a header.
    #[test]
    fn a_uri_that_contains_keys_is_not_cut_short() {
        let orders = "spiffe://example.org/orders";
        for (uri, expected) in [
            ("x:a,By=x;URI=spiffe://example.org/orders", SEVERAL_ELEMENTS),
            ("x:a,URI=spiffe://example.org/orders", SEVERAL_ELEMENTS),
            ("spiffe://example.org/orders,By=x", SEVERAL_ELEMENTS),
            ("spiffe://example.org/orders,x", MALFORMED_HEADER),
            ("x:a;URI=spiffe://example.org/orders", SEVERAL_URIS),
            ("spiffe://example.org/orders;URI=x:a", SEVERAL_URIS),
            ("spiffe://example.org/orders;a=b", MALFORMED_HEADER),
            ("spiffe://example.org/orders;By=b", MALFORMED_HEADER),
            ("spiffe://example.org/orders;Hash=b", MALFORMED_HEADER),
            ("spiffe://example.org/orders;Subject=b", MALFORMED_HEADER),
            ("spiffe://example.org/orders;a", MALFORMED_HEADER),
            ("spiffe://example.org/orders;", MALFORMED_HEADER),
            ("spiffe://example.org/orders\"x\"", MALFORMED_HEADER),
            ("\"spiffe://example.org/orders\"x", MALFORMED_HEADER),
        ] {
            let header = format!("By=spiffe://gateway;Hash=0123;URI={uri};DNS=a.example");
            let [one, last] = identities(&[&header]);
            assert_eq!(one, Err(expected), "{header:?}");
            assert!(last != Ok(orders.to_owned()) || expected == SEVERAL_ELEMENTS, "{header:?}");
        }
    }

    #[test]
    fn a_malformed_header_is_unidentified() {
        for bad in [
            "",
            ",",
            ";",
            "URI",
            "=",
            "=x",
            "URI=\"spiffe://a",
            "URI=\"spiffe://a\"x",
            "URI=\"spiffe://a\"é",
            "URI=\"spiffe://forged\"é,URI=spiffe://true",
            "URI=spiffe://a\"b\"",
            "URI=spiffe://a;",
            "URI=spiffe://a,",
            "URI=\"a\\",
            "x;URI=spiffe://a",
            "Key=x;URI=spiffe://a",
            "DNS=a.example;URI=spiffe://a",
            "URI=;URI=spiffe://a",
            "URI=;DNS=x;URI=spiffe://a",
            "URI=spiffe://a;Hash=0",
            "DNS=a.example;Hash=0",
            "Hash=x;Hash=y;URI=spiffe://a",
            "Subject=\"x\";Subject=\"y\";URI=spiffe://a",
        ] {
            assert_eq!(identities(&[bad]), [Err(MALFORMED_HEADER), Err(MALFORMED_HEADER)], "{bad:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_CLIENT_CERT, HeaderValue::from_bytes(b"URI=spiffe://\xff").unwrap());
        assert_eq!(forwarded(&headers, One), Err(MALFORMED_HEADER));
    }
}
