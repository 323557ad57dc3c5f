//! Tests of encodings that real tools write, and of broken ones. Each request has a valid signature.

use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};

use super::*;
use crate::validate::fixtures::value;

const CHALLENGE_PASSWORD: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x07";
const EXTENSION_REQUEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
const MICROSOFT_EXTENSIONS: &[u8] = b"\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0e";
const UNKNOWN: &[u8] = b"\x2a\x03\x04";
const COMMON_NAME: &[u8] = b"\x55\x04\x03";
const ORGANIZATION: &[u8] = b"\x55\x04\x0a";
const KEY_USAGE: &[u8] = b"\x55\x1d\x0f";
const SUBJECT_ALT_NAME: &[u8] = b"\x55\x1d\x11";
const ECDSA_WITH_SHA256: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03\x02";

const BOOLEAN: u8 = 1;
const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const OCTET_STRING: u8 = 4;
const NULL: u8 = 5;
const OBJECT_IDENTIFIER: u8 = 6;
const UTF8_STRING: u8 = 12;
const NUMERIC_STRING: u8 = 18;
const PRINTABLE_STRING: u8 = 19;
const T61_STRING: u8 = 20;
const IA5_STRING: u8 = 22;
const VISIBLE_STRING: u8 = 26;
const GENERAL_STRING: u8 = 27;
const UNIVERSAL_STRING: u8 = 28;
const BMP_STRING: u8 = 30;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONSTRUCTED: u8 = 0x20;
const CONTEXT: u8 = 0x80;

/// Returns a value with an indefinite length (X.690 8.1.3.6).
fn indefinite(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[tag, 0x80], &parts.concat()[..], &[0, 0]].concat()
}

fn attribute(kind: &[u8], values: &[&[u8]]) -> Vec<u8> {
    value(SEQUENCE, &[&value(OBJECT_IDENTIFIER, &[kind]), &value(SET, values)])
}

fn relative_name(kind: &[u8], name: &[u8]) -> Vec<u8> {
    value(SET, &[&value(SEQUENCE, &[&value(OBJECT_IDENTIFIER, &[kind]), name])])
}

fn extension(kind: &[u8], content: &[u8]) -> Vec<u8> {
    value(SEQUENCE, &[&value(OBJECT_IDENTIFIER, &[kind]), &value(OCTET_STRING, &[content])])
}

fn dns_name(name: &str) -> Vec<u8> {
    value(CONTEXT | 2, &[name.as_bytes()])
}

/// Returns an extension with alternative names.
fn alternative(names: &[&[u8]]) -> Vec<u8> {
    extension(SUBJECT_ALT_NAME, &value(SEQUENCE, names))
}

/// Returns the request with this CertificationRequestInfo, except for its key, which stands after the subject.
fn signed(sequence: fn(u8, &[&[u8]]) -> Vec<u8>, version: &[u8], subject: &[u8], attributes: &[u8]) -> String {
    let key = KeyPair::generate().unwrap();
    let info = sequence(SEQUENCE, &[version, subject, &key.subject_public_key_info(), attributes]);
    let signature = value(BIT_STRING, &[&[0], &key.sign(&info).unwrap()]);
    let algorithm = value(SEQUENCE, &[&value(OBJECT_IDENTIFIER, &[ECDSA_WITH_SHA256])]);
    pem(&sequence(SEQUENCE, &[&info, &algorithm, &signature]))
}

/// Returns a request with the members of a subject and of the attributes.
fn request(subject: &[&[u8]], attributes: &[&[u8]]) -> String {
    let attributes = value(CONTEXT | CONSTRUCTED, attributes);
    signed(value, &value(INTEGER, &[&[0]]), &value(SEQUENCE, subject), &attributes)
}

fn common_name() -> Vec<u8> {
    relative_name(COMMON_NAME, &value(UTF8_STRING, &[DOMAIN.as_bytes()]))
}

/// Returns a text in a string type.
fn string(tag: u8, text: &str) -> Vec<u8> {
    match tag {
        BMP_STRING => value(tag, &[&text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>()]),
        UNIVERSAL_STRING => value(tag, &[&text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect::<Vec<_>>()]),
        _ => value(tag, &[text.as_bytes()]),
    }
}

const STRINGS: [u8; 8] = [
    UTF8_STRING,
    PRINTABLE_STRING,
    T61_STRING,
    IA5_STRING,
    VISIBLE_STRING,
    GENERAL_STRING,
    UNIVERSAL_STRING,
    BMP_STRING,
];

#[test]
fn values_of_other_attributes_are_not_interpreted() {
    let mut attributes: Vec<Vec<u8>> = [CHALLENGE_PASSWORD, UNKNOWN]
        .into_iter()
        .flat_map(|kind| {
            let of = move |values: &[&[u8]]| attribute(kind, values);
            let texts = STRINGS.map(|tag| of(&[&string(tag, "s@cr*t")]));
            let others = [
                of(&[]),
                of(&[&value(UTF8_STRING, &[])]),
                of(&[&value(NUMERIC_STRING, &[b"1234"])]),
                of(&[&value(T61_STRING, &[b"secr\xe9t"])]),
                of(&[&value(UTF8_STRING, &[b"secr\xe9t"])]),
                of(&[&value(BMP_STRING, &[b"odd"])]),
                of(&[&value(OCTET_STRING, &[b"secret"]), &value(NULL, &[])]),
                of(&[&value(SEQUENCE, &[&value(INTEGER, &[&[1]]), &value(BIT_STRING, &[&[0]])])]),
            ];
            texts.into_iter().chain(others)
        })
        .collect();
    attributes.push(attribute(EXTENSION_REQUEST, &[]));
    attributes.push(attribute(EXTENSION_REQUEST, &[&value(SEQUENCE, &[])]));
    for attribute in &attributes {
        assert_eq!(check(&request(&[&common_name()], &[attribute]), Some(DOMAIN)), Ok(()), "{attribute:02x?}");
        assert_eq!(check(&request(&[&common_name()], &[attribute, attribute]), Some(DOMAIN)), Ok(()));
    }
}

#[test]
fn attributes_and_subject_may_be_absent_or_empty() {
    let zero = value(INTEGER, &[&[0]]);
    let subject = value(SEQUENCE, &[&common_name()]);
    assert_eq!(check(&signed(value, &zero, &subject, &[]), Some(DOMAIN)), Ok(()));
    assert_eq!(check(&request(&[&common_name()], &[]), Some(DOMAIN)), Ok(()));
    assert_eq!(check(&request(&[], &[]), None), Ok(()));
    assert_eq!(check(&request(&[], &[]), Some(DOMAIN)), Err(NAME));
    let alternative = value(SEQUENCE, &[&alternative(&[&dns_name(DOMAIN)])]);
    assert_eq!(check(&request(&[], &[&attribute(EXTENSION_REQUEST, &[&alternative])]), Some(DOMAIN)), Ok(()));
    for version in [&[1][..], &[2], &[0xff], &[1, 0, 0, 0, 0, 0]] {
        let version = value(INTEGER, &[version]);
        assert_eq!(check(&signed(value, &version, &subject, &[]), Some(DOMAIN)), Ok(()), "{version:?}");
    }
}

#[test]
fn names_are_read_from_every_extension_request() {
    let usage = value(SEQUENCE, &[&extension(KEY_USAGE, &value(BIT_STRING, &[&[5, 0xa0]]))]);
    let other = value(SEQUENCE, &[&alternative(&[&dns_name("other.example.com")])]);
    let wanted = value(SEQUENCE, &[&alternative(&[&dns_name(DOMAIN)])]);
    let critical = [&value(OBJECT_IDENTIFIER, &[SUBJECT_ALT_NAME])[..], &value(BOOLEAN, &[&[0xff]])].concat();
    let content = value(OCTET_STRING, &[&value(SEQUENCE, &[&dns_name(DOMAIN)])]);
    let critical = value(SEQUENCE, &[&value(SEQUENCE, &[&critical, &content])]);
    for attributes in [
        &[attribute(EXTENSION_REQUEST, &[&wanted])][..],
        &[attribute(MICROSOFT_EXTENSIONS, &[&wanted])],
        &[attribute(EXTENSION_REQUEST, &[&usage]), attribute(MICROSOFT_EXTENSIONS, &[&wanted])],
        &[attribute(MICROSOFT_EXTENSIONS, &[&wanted]), attribute(EXTENSION_REQUEST, &[&usage])],
        &[attribute(EXTENSION_REQUEST, &[&other]), attribute(EXTENSION_REQUEST, &[&wanted])],
        &[attribute(EXTENSION_REQUEST, &[&usage, &other, &wanted])],
        &[attribute(EXTENSION_REQUEST, &[&critical])],
    ] {
        let attributes: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
        let text = request(&[], &attributes);
        assert_eq!(check(&text, Some(DOMAIN)), Ok(()), "{attributes:02x?}");
        assert_eq!(check(&text, Some("www.example.org")), Err(NAME), "{attributes:02x?}");
    }
    let unknown = request(&[], &[&attribute(UNKNOWN, &[&wanted])]);
    assert_eq!(check(&unknown, Some(DOMAIN)), Err(NAME));
}

#[test]
fn alternative_names_of_other_kinds_are_ignored() {
    let others = [
        value(CONTEXT | CONSTRUCTED, &[&value(OBJECT_IDENTIFIER, &[UNKNOWN]), &value(CONTEXT | CONSTRUCTED, &[])]),
        value(CONTEXT | 1, &[b"a@example.com"]),
        value(CONTEXT | CONSTRUCTED | 3, &[&value(SEQUENCE, &[])]),
        value(CONTEXT | CONSTRUCTED | 4, &[&value(SEQUENCE, &[&common_name()])]),
        value(CONTEXT | CONSTRUCTED | 5, &[&value(CONTEXT | CONSTRUCTED | 1, &[])]),
        value(CONTEXT | 6, &[b"https://b\xfccher.example/"]),
        value(CONTEXT | 7, &[&[192, 0, 2, 1]]),
        value(CONTEXT | 7, &[b"192.0.2.1"]),
        value(CONTEXT | 8, &[UNKNOWN]),
        value(CONTEXT | 9, &[b"unknown"]),
        value(CONTEXT | 2, &[b"b\xfccher.example"]),
        value(CONTEXT | 2, &[]),
    ];
    for other in others {
        for names in [[&dns_name(DOMAIN)[..], &other], [&other, &dns_name(DOMAIN)]] {
            let requested = value(SEQUENCE, &[&alternative(&names)]);
            let text = request(&[], &[&attribute(EXTENSION_REQUEST, &[&requested])]);
            assert_eq!(check(&text, Some(DOMAIN)), Ok(()), "{other:02x?}");
        }
    }
}

#[test]
fn names_are_read_from_every_string_type() {
    for tag in STRINGS {
        let name = relative_name(COMMON_NAME, &string(tag, DOMAIN));
        assert_eq!(check(&request(&[&name], &[]), Some(DOMAIN)), Ok(()), "{tag}");
        let organization = relative_name(ORGANIZATION, &string(tag, "A&B*@_"));
        assert_eq!(check(&request(&[&organization, &common_name()], &[]), Some(DOMAIN)), Ok(()), "{tag}");
    }
    let others = [
        value(T61_STRING, &[b"M\xfcller"]),
        value(PRINTABLE_STRING, &[b"M\xfcller"]),
        value(UTF8_STRING, &[b"M\xfcller"]),
        value(UTF8_STRING, &[]),
        value(BMP_STRING, &[b"odd"]),
        value(BMP_STRING, &[b"\xd8\x3d\x00\x41"]),
        value(BIT_STRING, &[&[7, 0x80]]),
        value(SEQUENCE, &[&value(UTF8_STRING, &[b"street"])]),
    ];
    for other in others {
        let organization = relative_name(ORGANIZATION, &other);
        let name = relative_name(COMMON_NAME, &other);
        assert_eq!(check(&request(&[&organization, &common_name()], &[]), Some(DOMAIN)), Ok(()), "{other:02x?}");
        if other[0] != SEQUENCE {
            assert_eq!(check(&request(&[&name], &[]), Some(DOMAIN)), Err(NAME), "{other:02x?}");
            assert_eq!(check(&request(&[&name, &common_name()], &[]), Some(DOMAIN)), Ok(()), "{other:02x?}");
        }
    }
    let empty = value(SET, &[]);
    assert_eq!(check(&request(&[&empty, &common_name()], &[]), Some(DOMAIN)), Ok(()));
    let unit = value(SEQUENCE, &[&value(OBJECT_IDENTIFIER, &[ORGANIZATION]), &value(UTF8_STRING, &[b"unit"])]);
    let name = value(SEQUENCE, &[&value(OBJECT_IDENTIFIER, &[COMMON_NAME]), &value(UTF8_STRING, &[DOMAIN.as_bytes()])]);
    assert_eq!(check(&request(&[&value(SET, &[&unit, &name])], &[]), Some(DOMAIN)), Ok(()));
}

#[test]
fn broken_encodings_are_rejected() {
    let zero = value(INTEGER, &[&[0]]);
    let subject = value(SEQUENCE, &[&common_name()]);
    let password = value(UTF8_STRING, &[b"secret"]);
    let kind = value(OBJECT_IDENTIFIER, &[CHALLENGE_PASSWORD]);
    let broken_attributes = [
        value(CONTEXT | CONSTRUCTED | 1, &[&attribute(CHALLENGE_PASSWORD, &[&password])]),
        value(SET, &[&attribute(CHALLENGE_PASSWORD, &[&password])]),
        value(CONTEXT | CONSTRUCTED, &[&[0xff, 0xff, 0xff]]),
        value(CONTEXT | CONSTRUCTED, &[&[0x30, 0x20, 0x06]]),
        value(CONTEXT | CONSTRUCTED, &[&password]),
        value(CONTEXT | CONSTRUCTED, &[&value(SEQUENCE, &[&kind])]),
        value(CONTEXT | CONSTRUCTED, &[&value(SEQUENCE, &[&kind, &password])]),
        value(CONTEXT | CONSTRUCTED, &[&value(SEQUENCE, &[&kind, &value(SET, &[&password]), &password])]),
        value(CONTEXT | CONSTRUCTED, &[&attribute(EXTENSION_REQUEST, &[&password])]),
        value(CONTEXT | CONSTRUCTED, &[&attribute(MICROSOFT_EXTENSIONS, &[&value(SEQUENCE, &[&password])])]),
        value(
            CONTEXT | CONSTRUCTED,
            &[&attribute(EXTENSION_REQUEST, &[&value(SEQUENCE, &[&extension(SUBJECT_ALT_NAME, b"\xff")])])],
        ),
        [value(CONTEXT | CONSTRUCTED, &[]), value(NULL, &[])].concat(),
    ];
    for attributes in &broken_attributes {
        assert_eq!(check(&signed(value, &zero, &subject, attributes), Some(DOMAIN)), Err(DER), "{attributes:02x?}");
    }
    for subject in [value(SET, &[]), value(SEQUENCE, &[&password]), value(SEQUENCE, &[&value(SET, &[&password])])] {
        assert_eq!(check(&signed(value, &zero, &subject, &[]), None), Err(DER), "{subject:02x?}");
    }
    for version in [value(NULL, &[]), Vec::new()] {
        assert_eq!(check(&signed(value, &version, &subject, &[]), None), Err(DER), "{version:02x?}");
    }
}

#[test]
fn forms_of_ber_are_named() {
    let zero = value(INTEGER, &[&[0]]);
    let subject = value(SEQUENCE, &[&common_name()]);
    let attributes = indefinite(CONTEXT | CONSTRUCTED, &[&attribute(UNKNOWN, &[])]);
    let halves = DOMAIN.split_at(4);
    let halves = [halves.0, halves.1].map(|half| value(UTF8_STRING, &[half.as_bytes()]));
    let name = relative_name(COMMON_NAME, &value(UTF8_STRING | CONSTRUCTED, &[&halves.concat()]));
    for text in [
        signed(indefinite, &zero, &subject, &[]),
        signed(value, &zero, &indefinite(SEQUENCE, &[&common_name()]), &[]),
        signed(value, &zero, &subject, &attributes),
        request(&[&name], &[]),
    ] {
        assert_eq!(check(&text, Some(DOMAIN)), Err(BER), "{text}");
    }
}

#[test]
fn an_ipv4_address_is_a_common_name_or_ip_address() {
    const HOST: &str = "192.0.2.1";
    let common = |text: &str| request(&[&relative_name(COMMON_NAME, &value(UTF8_STRING, &[text.as_bytes()]))], &[]);
    let names = |names: &[&[u8]]| {
        let requested = value(SEQUENCE, &[&alternative(names)]);
        request(&[], &[&attribute(EXTENSION_REQUEST, &[&requested])])
    };
    let ip = |octets: &[u8]| value(CONTEXT | 7, &[octets]);
    for text in [
        common(HOST),
        names(&[&ip(&[192, 0, 2, 1])]),
        names(&[&dns_name(DOMAIN), &ip(&[192, 0, 2, 2]), &ip(&[192, 0, 2, 1])]),
    ] {
        assert_eq!(check(&text, Some(HOST)), Ok(()), "{text}");
        assert_eq!(check(&text, Some("192.0.2.11")), Err(ADDRESS), "{text}");
    }
    for text in [
        common("192.0.2.01"),
        common(" 192.0.2.1"),
        common(DOMAIN),
        names(&[&dns_name(HOST)]),
        names(&[&value(CONTEXT | 6, &[HOST.as_bytes()])]),
        names(&[&ip(HOST.as_bytes())]),
        names(&[&ip(&[192, 0, 2])]),
        names(&[&ip(&[192, 0, 2, 1, 0])]),
        names(&[&ip(&[192, 0, 2, 1, 255, 255, 255, 255])]),
        names(&[&ip(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1])]),
        names(&[&ip(&[])]),
        request(&[], &[]),
    ] {
        assert_eq!(check(&text, Some(HOST)), Err(ADDRESS), "{text}");
        assert_eq!(check(&text, None), Ok(()), "{text}");
    }
    assert_eq!(check(&names(&[&ip(&[192, 0, 2, 1])]), Some(DOMAIN)), Err(NAME));
}
