//! Reads a certification request of PKCS#10 (RFC 2986 4) as far as the checks need it.
//!
//! x509-parser would reject a request for attributes that no check reads, and for absent attributes. It has no Microsoft
//! attributes.

use std::borrow::Cow;

use x509_parser::asn1_rs::{Any, BitString, Oid, Tag, oid};
use x509_parser::oid_registry::{OID_PKCS9_EXTENSION_REQUEST, OID_X509_COMMON_NAME, OID_X509_EXT_SUBJECT_ALT_NAME};
use x509_parser::x509::AlgorithmIdentifier;

use crate::validate::der::{
    Problem, algorithm, bit_string, document, is, is_context, list, members, next, object_identifier, only, typed,
    values,
};
use crate::validate::public_key::SubjectPublicKeyInfo;

/// The attributes that request extensions: that of RFC 2985 5.4.2, and Microsoft's szOID_CERT_EXTENSIONS (MS-WCCE
/// 2.2.2.7.7).
const EXTENSION_REQUESTS: [Oid<'static>; 2] = [OID_PKCS9_EXTENSION_REQUEST, oid!(1.3.6.1.4.1.311.2.1.14)];

/// The tags of DNS names and IP addresses among the subject alternative names (RFC 5280 4.2.1.6).
const DNS_NAME: Tag = Tag(2);
const IP_ADDRESS: Tag = Tag(7);

/// A certification request.
pub(super) struct Request<'a> {
    /// The signed bytes.
    pub(super) info: &'a [u8],
    pub(super) key: SubjectPublicKeyInfo<'a>,
    pub(super) signature_algorithm: AlgorithmIdentifier<'a>,
    pub(super) signature: BitString<'a>,
    /// Includes those of duplicate attributes and extensions.
    pub(super) names: Vec<Name<'a>>,
}

/// A requested name.
pub(super) enum Name<'a> {
    Common(Cow<'a, str>),
    Dns(&'a str),
    /// The octets of an IP address.
    Ip(&'a [u8]),
}

impl<'a> Request<'a> {
    /// Reads a request. The version is not interpreted.
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, Problem> {
        let request = document(der)?;
        let [info, signature_algorithm, signature] = members(&request)?;
        let (after_info, _) = next(request.data)?;
        let members = list(&info, Tag::Sequence)?;
        let (subject, key, attributes) = match members.as_slice() {
            [version, subject, key] if is(version, Tag::Integer) => (subject, key, Vec::new()),
            [version, subject, key, attributes] if is(version, Tag::Integer) && is_context(attributes, Tag(0)) => {
                (subject, key, values(attributes.data)?)
            }
            _ => return Err(Problem::Damaged),
        };
        let mut names = common_names(subject)?;
        for attribute in attributes {
            names.extend(requested_names(&attribute)?);
        }
        Ok(Self {
            info: &request.data[..request.data.len() - after_info.len()],
            key: SubjectPublicKeyInfo::parse(key)?,
            signature_algorithm: algorithm(&signature_algorithm)?,
            signature: bit_string(&signature)?,
            names,
        })
    }
}

/// Returns the common names of a Name (RFC 5280 4.1.2.4).
fn common_names<'a>(name: &Any<'a>) -> Result<Vec<Name<'a>>, Problem> {
    let mut names = Vec::new();
    for relative in list(name, Tag::Sequence)? {
        for attribute in list(&relative, Tag::Set)? {
            let [kind, value] = members(&attribute)?;
            if object_identifier(&kind)? == OID_X509_COMMON_NAME {
                names.extend(text(&value)?.map(Name::Common));
            }
        }
    }
    Ok(names)
}

/// Returns the DNS names and IP addresses that an Attribute requests (RFC 2986 4.1). The values of other attributes are not interpreted.
fn requested_names<'a>(attribute: &Any<'a>) -> Result<Vec<Name<'a>>, Problem> {
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

/// Returns the DNS names and IP addresses of an Extension (RFC 5280 4.1). The values of other extensions are not interpreted.
fn alternative_names<'a>(extension: &Any<'a>) -> Result<Vec<Name<'a>>, Problem> {
    let members = list(extension, Tag::Sequence)?;
    let ([kind, value] | [kind, _, value]) = members.as_slice() else {
        return Err(Problem::Damaged);
    };
    if object_identifier(kind)? != OID_X509_EXT_SUBJECT_ALT_NAME {
        return Ok(Vec::new());
    }
    let names = list(&only(typed(value, Tag::OctetString)?)?, Tag::Sequence)?;
    let name = |name: &Any<'a>| {
        if is_context(name, DNS_NAME) {
            std::str::from_utf8(name.data).ok().map(Name::Dns)
        } else {
            is_context(name, IP_ADDRESS).then_some(Name::Ip(name.data))
        }
    };
    Ok(names.iter().filter_map(name).collect())
}

/// Returns the text of a DirectoryString (RFC 5280 4.1.2.4) or of another string. The types that implementations decode
/// differently are limited to ASCII.
fn text<'a>(value: &Any<'a>) -> Result<Option<Cow<'a, str>>, Problem> {
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
