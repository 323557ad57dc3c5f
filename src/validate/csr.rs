//! Certificate signing requests: PKCS#10 (RFC 2986) in a PEM block (RFC 7468).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::asn1_rs::{Any, Class, FromDer, Header, Tag};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::domain;

mod signature;
#[cfg(test)]
mod tests;

/// The largest request in bytes, which bounds the cost of a check.
const MAX_SIZE: usize = 5_120;
/// The labels of the PEM block. Older tools write the second one (RFC 7468 7).
const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

const SIZE: &str = "must be at most 5,120 bytes: send the signing request alone";
const CONTROL: &str = "must not contain control characters other than line breaks and tabs";
const FRAME: &str = "must be exactly one PEM block, from its BEGIN line to the END line of the same name, \
     with nothing around it";
const LABEL: &str = "must be a PEM block CERTIFICATE REQUEST: do not send a certificate or a key";
const BASE64: &str = "must have nothing but base64 and line breaks (LF or CRLF) between BEGIN and END";
const DER: &str = "must contain a complete PKCS#10 request: it is damaged, create it again";
const KEY: &str = "must contain a valid public key: it is damaged, create it again";
const ALGORITHM: &str = "must be signed with an algorithm that fits its key, such as SHA-256 with RSA";
const SIGNATURE: &str = "must be signed with its own key: the signature does not verify, create it again";
const NAME: &str = "must have the domain as its common name or as a DNS subject alternative name";

/// Checks that a signing request is one PEM block with a PKCS#10 request that is signed with its own key and names
/// `domain` (in its ASCII form). With `None` the name is not checked. The signature takes up to a quarter of a
/// millisecond.
pub fn check(pem: &str, domain: Option<&str>) -> Result<(), &'static str> {
    if pem.len() > MAX_SIZE {
        return Err(SIZE);
    }
    let der = decode(pem)?;
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| DER)?;
    if !rest.is_empty() || !is_complete(&request) {
        return Err(DER);
    }
    signature::verify(&request)?;
    match domain {
        Some(domain) if !names(&request).any(|name| is_same(&name, domain)) => Err(NAME),
        _ => Ok(()),
    }
}

/// Decodes the PEM block. Lines may have any length and trailing whitespace (RFC 7468 3, the lax form), but no
/// whitespace within them. Headers are not allowed.
fn decode(pem: &str) -> Result<Vec<u8>, &'static str> {
    if pem.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(CONTROL);
    }
    let body = body(pem.trim())?;
    let mut base64 = String::with_capacity(body.len());
    for line in body.split('\n') {
        base64.push_str(line.trim_end_matches([' ', '\t', '\r']));
    }
    STANDARD.decode(base64).map_err(|_| BASE64)
}

/// Returns the text between the BEGIN line and the END line of the only block.
fn body(block: &str) -> Result<&str, &'static str> {
    let after_begin = block.strip_prefix("-----BEGIN ").ok_or(FRAME)?;
    let (label, rest) = after_begin.split_once("-----").ok_or(FRAME)?;
    if !LABELS.contains(&label) {
        return Err(LABEL);
    }
    let before_dashes = rest.strip_suffix("-----").ok_or(FRAME)?;
    let before_label = before_dashes.strip_suffix(label).ok_or(FRAME)?;
    let body = before_label.strip_suffix("-----END ").ok_or(FRAME)?;
    let begin_is_a_line = body.trim_start_matches([' ', '\t', '\r']).starts_with('\n');
    let end_is_a_line = body.ends_with('\n');
    if !begin_is_a_line || !end_is_a_line || body.contains("-----") {
        return Err(FRAME);
    }
    Ok(body)
}

/// Returns whether the outermost SEQUENCE has exactly three members and the two unsigned ones have the right types. The
/// parser ignores further members and wrong types.
fn is_complete(request: &X509CertificationRequest<'_>) -> bool {
    let check = || {
        let (content, _) = Header::from_der(request.as_raw()).ok()?;
        let rest = content.get(request.certification_request_info.raw.len()..)?;
        let (rest, algorithm) = Any::from_der(rest).ok()?;
        let (rest, signature) = Any::from_der(rest).ok()?;
        let (_, identifier) = Any::from_der(algorithm.data).ok()?;
        let has_types = is(&algorithm, Tag::Sequence) && is(&identifier, Tag::Oid) && is(&signature, Tag::BitString);
        Some(has_types && rest.is_empty())
    };
    check().unwrap_or(false)
}

/// Returns whether a value has a universal type.
fn is(value: &Any<'_>, tag: Tag) -> bool {
    value.class() == Class::Universal && value.tag() == tag
}

/// Returns every requested common name and DNS subject alternative name. Includes duplicate attributes and extensions,
/// which a request may have.
fn names<'a>(request: &'a X509CertificationRequest<'_>) -> impl Iterator<Item = Cow<'a, str>> {
    let info = &request.certification_request_info;
    let common = info.subject.iter_common_name().filter_map(|name| text(name.attr_value()));
    let attributes = info.iter_attributes();
    let extensions = attributes.filter_map(|attribute| match attribute.parsed_attribute() {
        ParsedCriAttribute::ExtensionRequest(requested) => Some(&requested.extensions),
        _ => None,
    });
    let alternative = extensions.flatten().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let dns = alternative.flatten().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(Cow::Borrowed(*name)),
        _ => None,
    });
    common.chain(dns)
}

/// Returns the text of a DirectoryString (RFC 5280 4.1.2.4). T61String is limited to ASCII, because implementations
/// decode other characters differently.
fn text<'a>(value: &'a Any<'_>) -> Option<Cow<'a, str>> {
    if value.class() != Class::Universal {
        return None;
    }
    let data = value.data;
    match value.tag() {
        Tag::PrintableString | Tag::Utf8String | Tag::Ia5String => std::str::from_utf8(data).ok().map(Cow::Borrowed),
        Tag::T61String => std::str::from_utf8(data).ok().filter(|text| text.is_ascii()).map(Cow::Borrowed),
        Tag::BmpString => {
            let units: Option<Vec<u16>> =
                data.chunks(2).map(|pair| pair.try_into().ok().map(u16::from_be_bytes)).collect();
            String::from_utf16(&units?).ok().map(Cow::Owned)
        }
        Tag::UniversalString => {
            let scalar = |four: &[u8]| four.try_into().ok().map(u32::from_be_bytes).and_then(char::from_u32);
            data.chunks(4).map(scalar).collect::<Option<String>>().map(Cow::Owned)
        }
        _ => None,
    }
}

/// Returns whether a name in the request equals the domain, in any case, as U-labels or A-labels.
fn is_same(name: &str, domain: &str) -> bool {
    name.eq_ignore_ascii_case(domain)
        || (!name.is_ascii() && domain::to_ascii(name).is_ok_and(|ascii| ascii.eq_ignore_ascii_case(domain)))
}
