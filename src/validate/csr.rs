//! Certificate signing requests: PKCS#10 (RFC 2986) in a PEM block (RFC 7468).

use std::borrow::Cow;

use self::pkcs10::{Name, Request};
use super::public_key::PublicKey;
use super::{Violations, domain, names, pem, private_key};

mod pkcs10;
mod signature;
#[cfg(test)]
mod tests;

/// The largest request in bytes, which bounds the cost of a check.
const MAX_SIZE: usize = 5_120;
/// The labels of the PEM block. Older tools write the second one (RFC 7468 7).
const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

const SIZE: &str = "must be at most 5,120 bytes: send the signing request alone";
const ONE: &str = "must be exactly one PEM block: send the signing request alone";
const LABEL: &str = "must be a PEM block CERTIFICATE REQUEST: do not send a certificate or a key";
const DER: &str = "must contain a complete PKCS#10 request: it is damaged or not a request, create it again";
const KEY: &str = "must contain a valid public key: create the key and the request again";
const ALGORITHM: &str = "must be signed with an algorithm that fits its key, such as SHA-256 with RSA";
const SIGNATURE: &str = "must be signed with its own key: the signature does not verify, create it again";
const NAME: &str = "must have the domain as its common name or as a DNS subject alternative name";
const ADDRESS: &str = "must have the IPv4 address as its common name or as an IP subject alternative name";
const MISMATCH: &str = "must be the key of csr, which has another public key: send the key that signed it";

/// Checks that a signing request is one PEM block with a PKCS#10 request that is signed with its own key and names
/// `domain`, which is a host name in its ASCII form or an IPv4 address. With `None` the name is not checked. The
/// signature takes up to a quarter of a millisecond.
pub fn check(pem: &str, domain: Option<&str>) -> Result<(), &'static str> {
    let der = decode(pem)?;
    let request = parse(&der)?;
    match domain {
        Some(domain) => check_names(&request, domain),
        None => Ok(()),
    }
}

/// Checks the names of CreateCsr, and converts them to the form that is sent.
pub fn create(domain_name: &mut String, sans: &mut [String], at: &str, found: &mut Violations) {
    let ascii = found.report(at, "domain_name", domain::to_ascii(domain_name));
    names::sans(sans, ascii.as_deref(), at, found);
    if let Some(Cow::Owned(ascii)) = ascii {
        *domain_name = ascii;
    }
}

/// Checks the signing request and the private key of UploadCsr, which has to be that of the request and may be empty.
/// Removes whitespace around the key.
pub fn upload(csr: &str, private_key: Option<&mut String>, at: &str, found: &mut Violations) {
    let requested = found.report(at, "csr", public_key(csr));
    let Some(private_key) = private_key else { return };
    pem::trim(private_key);
    if !private_key.is_empty() {
        found.report(at, "private_key", private_key::check(private_key, requested.as_ref(), MISMATCH));
    }
}

/// Returns the public key of a signing request.
fn public_key(pem: &str) -> Result<PublicKey, &'static str> {
    let der = decode(pem)?;
    parse(&der)?.key.key().ok_or(KEY)
}

/// Decodes the only PEM block.
fn decode(pem: &str) -> Result<Vec<u8>, &'static str> {
    if pem.len() > MAX_SIZE {
        return Err(SIZE);
    }
    let block = pem::only(pem, ONE)?;
    if !LABELS.contains(&block.label) {
        return Err(LABEL);
    }
    block.decode()
}

/// Reads a request, and verifies its signature.
fn parse(der: &[u8]) -> Result<Request<'_>, &'static str> {
    let request = Request::parse(der).map_err(|problem| problem.rule(DER))?;
    signature::verify(&request)?;
    Ok(request)
}

/// Checks that a request names a host or an IPv4 address.
fn check_names(request: &Request<'_>, domain: &str) -> Result<(), &'static str> {
    let address = domain::ipv4(domain);
    let is_named = request.names.iter().any(|name| match (name, address) {
        (Name::Common(name), None) => is_same(name, domain),
        (Name::Dns(name), None) => is_same(name, domain),
        (Name::Common(name), Some(_)) => name == domain,
        (Name::Ip(octets), Some(address)) => *octets == address.octets(),
        (Name::Ip(_), None) | (Name::Dns(_), Some(_)) => false,
    });
    match address {
        _ if is_named => Ok(()),
        None => Err(NAME),
        Some(_) => Err(ADDRESS),
    }
}

/// Returns whether a name in the request equals the domain, in any case, as U-labels or A-labels.
fn is_same(name: &str, domain: &str) -> bool {
    name.eq_ignore_ascii_case(domain)
        || (!name.is_ascii() && domain::to_ascii(name).is_ok_and(|ascii| ascii.eq_ignore_ascii_case(domain)))
}
