//! Reads a certification request of PKCS#10 (RFC 2986 4) as far as the checks need it.
//!
//! x509-parser would reject a request for attributes that no check reads, and for absent attributes. It has no Microsoft
//! attributes.

use std::borrow::Cow;

use x509_parser::asn1_rs::{Any, BitString, Class, Error, FromDer as _, Oid, Tag, oid};
use x509_parser::nom;
use x509_parser::oid_registry::{OID_PKCS9_EXTENSION_REQUEST, OID_X509_COMMON_NAME, OID_X509_EXT_SUBJECT_ALT_NAME};
use x509_parser::x509::AlgorithmIdentifier;

use super::{BER, DER, TRAILING};

/// The attributes that request extensions: that of RFC 2985 5.4.2, and Microsoft's szOID_CERT_EXTENSIONS (MS-WCCE
/// 2.2.2.7.7).
const EXTENSION_REQUESTS: [Oid<'static>; 2] = [OID_PKCS9_EXTENSION_REQUEST, oid!(1.3.6.1.4.1.311.2.1.14)];

/// The tag of a DNS name among the subject alternative names (RFC 5280 4.2.1.6).
const DNS_NAME: Tag = Tag(2);

/// A certification request.
pub(super) struct Request<'a> {
    /// The signed bytes.
    pub(super) info: &'a [u8],
    pub(super) key: PublicKey<'a>,
    pub(super) signature_algorithm: AlgorithmIdentifier<'a>,
    pub(super) signature: BitString<'a>,
    /// Every requested common name and DNS name. Includes those of duplicate attributes and extensions.
    pub(super) names: Vec<Cow<'a, str>>,
}

/// A SubjectPublicKeyInfo.
pub(super) struct PublicKey<'a> {
    pub(super) algorithm: AlgorithmIdentifier<'a>,
    pub(super) bits: BitString<'a>,
}

impl<'a> Request<'a> {
    /// Reads a request. The version is not interpreted.
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, &'static str> {
        let (rest, request) = next(der)?;
        if !rest.is_empty() {
            return Err(TRAILING);
        }
        let [info, signature_algorithm, signature] = members(&request)?;
        let (after_info, _) = next(request.data)?;
        let members = list(&info, Tag::Sequence)?;
        let (subject, key, attributes) = match members.as_slice() {
            [version, subject, key] if is(version, Tag::Integer) => (subject, key, Vec::new()),
            [version, subject, key, attributes] if is(version, Tag::Integer) && is_context(attributes, Tag(0)) => {
                (subject, key, values(attributes.data)?)
            }
            _ => return Err(DER),
        };
        let mut names = common_names(subject)?;
        for attribute in attributes {
            names.extend(requested_names(&attribute)?);
        }
        Ok(Self {
            info: &request.data[..request.data.len() - after_info.len()],
            key: public_key(key)?,
            signature_algorithm: algorithm(&signature_algorithm)?,
            signature: bit_string(&signature)?,
            names,
        })
    }
}

/// Returns the common names of a Name (RFC 5280 4.1.2.4).
fn common_names<'a>(name: &Any<'a>) -> Result<Vec<Cow<'a, str>>, &'static str> {
    let mut names = Vec::new();
    for relative in list(name, Tag::Sequence)? {
        for attribute in list(&relative, Tag::Set)? {
            let [kind, value] = members(&attribute)?;
            if object_identifier(&kind)? == OID_X509_COMMON_NAME {
                names.extend(text(&value)?);
            }
        }
    }
    Ok(names)
}

/// Returns the DNS names that an Attribute requests (RFC 2986 4.1). The values of other attributes are not interpreted.
fn requested_names<'a>(attribute: &Any<'a>) -> Result<Vec<Cow<'a, str>>, &'static str> {
    let [kind, values] = members(attribute)?;
    let values = list(&values, Tag::Set)?;
    let mut names = Vec::new();
    if EXTENSION_REQUESTS.contains(&object_identifier(&kind)?) {
        for extensions in values {
            for extension in list(&extensions, Tag::Sequence)? {
                names.extend(alternative_names(&extension)?);
            }
        }
    }
    Ok(names)
}

/// Returns the DNS names of an Extension (RFC 5280 4.1). The values of other extensions are not interpreted.
fn alternative_names<'a>(extension: &Any<'a>) -> Result<Vec<Cow<'a, str>>, &'static str> {
    let members = list(extension, Tag::Sequence)?;
    let ([kind, value] | [kind, _, value]) = members.as_slice() else {
        return Err(DER);
    };
    if object_identifier(kind)? != OID_X509_EXT_SUBJECT_ALT_NAME {
        return Ok(Vec::new());
    }
    let names = list(&only(typed(value, Tag::OctetString)?)?, Tag::Sequence)?;
    let dns = names.iter().filter(|name| is_context(name, DNS_NAME));
    Ok(dns.filter_map(|name| std::str::from_utf8(name.data).ok()).map(Cow::Borrowed).collect())
}

/// Returns the text of a DirectoryString (RFC 5280 4.1.2.4) or of another string. The types that implementations decode
/// differently are limited to ASCII.
fn text<'a>(value: &Any<'a>) -> Result<Option<Cow<'a, str>>, &'static str> {
    let data = typed(value, value.tag())?;
    Ok(match value.tag() {
        Tag::PrintableString | Tag::Utf8String | Tag::Ia5String => std::str::from_utf8(data).ok().map(Cow::Borrowed),
        Tag::T61String | Tag::VisibleString | Tag::GeneralString => {
            std::str::from_utf8(data).ok().filter(|text| text.is_ascii()).map(Cow::Borrowed)
        }
        Tag::BmpString => {
            let unit = |two: &[u8]| two.try_into().ok().map(u16::from_be_bytes);
            let units: Option<Vec<u16>> = data.chunks(2).map(unit).collect();
            units.and_then(|units| String::from_utf16(&units).ok()).map(Cow::Owned)
        }
        Tag::UniversalString => {
            let scalar = |four: &[u8]| four.try_into().ok().map(u32::from_be_bytes).and_then(char::from_u32);
            data.chunks(4).map(scalar).collect::<Option<String>>().map(Cow::Owned)
        }
        _ => None,
    })
}

fn public_key<'a>(value: &Any<'a>) -> Result<PublicKey<'a>, &'static str> {
    let [key_algorithm, bits] = members(value)?;
    Ok(PublicKey { algorithm: algorithm(&key_algorithm)?, bits: bit_string(&bits)? })
}

fn algorithm<'a>(value: &Any<'a>) -> Result<AlgorithmIdentifier<'a>, &'static str> {
    match list(value, Tag::Sequence)?.as_slice() {
        [name] => Ok(AlgorithmIdentifier::new(object_identifier(name)?, None)),
        [name, parameters] => Ok(AlgorithmIdentifier::new(object_identifier(name)?, Some(parameters.clone()))),
        _ => Err(DER),
    }
}

fn bit_string<'a>(value: &Any<'a>) -> Result<BitString<'a>, &'static str> {
    typed(value, Tag::BitString)?;
    BitString::try_from(value.clone()).map_err(|_| DER)
}

fn object_identifier<'a>(value: &Any<'a>) -> Result<Oid<'a>, &'static str> {
    typed(value, Tag::Oid).map(|content| Oid::new(content.into()))
}

/// Returns the members of a SEQUENCE that has exactly `N`.
pub(super) fn members<'a, const N: usize>(value: &Any<'a>) -> Result<[Any<'a>; N], &'static str> {
    list(value, Tag::Sequence)?.try_into().map_err(|_| DER)
}

/// Returns the members of a SEQUENCE or SET.
fn list<'a>(value: &Any<'a>, tag: Tag) -> Result<Vec<Any<'a>>, &'static str> {
    values(typed(value, tag)?)
}

/// Returns the content of a value of the universal type `tag`. In DER only lists are constructed (X.690 10.2).
pub(super) fn typed<'a>(value: &Any<'a>, tag: Tag) -> Result<&'a [u8], &'static str> {
    let is_list = matches!(tag, Tag::Sequence | Tag::Set);
    match value.header.is_constructed() {
        _ if !is(value, tag) => Err(DER),
        is_constructed if is_constructed == is_list => Ok(value.data),
        true => Err(BER),
        false => Err(DER),
    }
}

/// Reads the only value.
pub(super) fn only(input: &[u8]) -> Result<Any<'_>, &'static str> {
    let (rest, value) = next(input)?;
    rest.is_empty().then_some(value).ok_or(DER)
}

/// Reads all values.
fn values(mut input: &[u8]) -> Result<Vec<Any<'_>>, &'static str> {
    let mut values = Vec::new();
    while !input.is_empty() {
        let (rest, value) = next(input)?;
        values.push(value);
        input = rest;
    }
    Ok(values)
}

/// Reads the next value. Returns the input after it, and the value.
fn next(input: &[u8]) -> Result<(&[u8], Any<'_>), &'static str> {
    Any::from_der(input).map_err(|error| match error {
        nom::Err::Error(Error::DerConstraintFailed(_)) => BER,
        _ => DER,
    })
}

/// Returns whether a value has a universal type.
pub(super) fn is(value: &Any<'_>, tag: Tag) -> bool {
    value.class() == Class::Universal && value.tag() == tag
}

/// Returns whether a value has a context-specific tag.
fn is_context(value: &Any<'_>, tag: Tag) -> bool {
    value.class() == Class::ContextSpecific && value.tag() == tag
}
