//! Certificates (RFC 5280 4.1) in PEM, with the chain and the private key that are imported with them.

use x509_parser::asn1_rs::Tag;
use zeroize::Zeroize as _;

use super::der::{Problem, document, is_context, list, members};
use super::pem::{self, Block};
use super::public_key::{PublicKey, SubjectPublicKeyInfo};
use super::{Violations, private_key};

#[cfg(test)]
mod tests;

/// The largest text in bytes, which bounds the cost of a check.
const MAX_SIZE: usize = 8_192;

const SIZE: &str = "must be at most 8,192 bytes: leave out certificates that clients have, such as the root";
const LABEL: &str = "must be PEM blocks CERTIFICATE: convert other formats with `openssl x509` or \
     `openssl pkcs7 -print_certs`";
const REQUEST: &str = "must be the certificate that was issued: do not send the signing request";
const PRIVATE_KEY: &str = "must not contain a private key: send it in private_key";
const DER: &str = "must contain complete certificates: one is damaged, copy it again";
const KEY: &str = "must contain a valid public key: use another certificate";
const MISMATCH: &str = "must be the key of the first block of certificate, which has another public key: send the \
     key that it was issued for, and its certificate first";

/// Checks a certificate, its chain, which may be empty, and its private key, and removes whitespace around each. The key
/// has to belong to the first certificate of `certificate`.
pub fn import(
    certificate: &mut String,
    chain: Option<&mut String>,
    private_key: &mut String,
    at: &str,
    found: &mut Violations,
) {
    let key = found.report(at, "certificate", check(certificate));
    if let Some(chain) = chain {
        pem::trim(chain);
        if !chain.is_empty() {
            found.report(at, "certificate_chain", check(chain));
        }
    }
    found.report(at, "private_key", private_key::check(private_key, key.as_ref(), MISMATCH));
}

/// Checks one or more certificates, and removes whitespace around `text`. Returns the public key of the first.
fn check(text: &mut String) -> Result<PublicKey, &'static str> {
    pem::trim(text);
    if text.len() > MAX_SIZE {
        return Err(SIZE);
    }
    let keys = pem::blocks(text)?.iter().map(public_key).collect::<Result<Vec<_>, _>>();
    if keys.as_ref().err() == Some(&PRIVATE_KEY) {
        text.zeroize();
    }
    keys?.into_iter().next().flatten().ok_or(KEY)
}

/// Returns the public key of a certificate, or `None` if it is invalid.
fn public_key(block: &Block<'_>) -> Result<Option<PublicKey>, &'static str> {
    match block.label {
        "CERTIFICATE" => {}
        label if label.ends_with("PRIVATE KEY") => return Err(PRIVATE_KEY),
        label if label.ends_with("CERTIFICATE REQUEST") => return Err(REQUEST),
        _ => return Err(LABEL),
    }
    let der = block.decode()?;
    subject_public_key_info(&der).map(|info| info.key()).map_err(|problem| problem.rule(DER))
}

/// Reads the public key of a certificate (RFC 5280 4.1). The other members are not interpreted: x509-parser would reject
/// a certificate for extensions that no check reads.
fn subject_public_key_info(der: &[u8]) -> Result<SubjectPublicKeyInfo<'_>, Problem> {
    let [to_be_signed, _, _] = members(&document(der)?)?;
    let members = list(&to_be_signed, Tag::Sequence)?;
    // The version is optional, and followed by serial number, signature, issuer, validity, subject and public key.
    let is_version = members.first().is_some_and(|first| is_context(first, Tag(0)));
    let key = members.get(if is_version { 6 } else { 5 }).ok_or(Problem::Damaged)?;
    SubjectPublicKeyInfo::parse(key)
}
