//! Tests with the key pairs of openssl (`tests/key_pairs/`), and with keys of other tools and damaged ones.

use super::*;
use crate::validate::der::{BER, TRAILING};
use crate::validate::fixtures::{
    COMPARED, OTHERS, Pair, block, blocks, der, encrypted_keys, pair, pem, private_keys, value,
};
use crate::validate::pem::{BASE64, COPIED, EMPTY, ESCAPED, FRAME};
use crate::validate::text::CONTROL_IN_PEM;

const MISMATCH: &str = "must be another key";

/// Returns the rule that a private key breaks.
fn rule(key: &str) -> Option<&'static str> {
    check(&mut key.to_owned(), None, MISMATCH).err()
}

/// Returns the rule that a private key breaks which has to have the same public key as another.
fn rule_for(key: &str, other: &str) -> Option<&'static str> {
    let public = public_key(&pem::blocks(other).unwrap()[0]).ok();
    assert!(public.is_some());
    check(&mut key.to_owned(), public.as_ref(), MISMATCH).err()
}

const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const OCTET_STRING: u8 = 4;
const NULL: u8 = 5;
const OBJECT_IDENTIFIER: u8 = 6;
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;
const PRIME256V1: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07";
const SECP521R1: &[u8] = b"\x2b\x81\x04\x00\x23";
const EC_PUBLIC_KEY: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const ED25519: &[u8] = b"\x2b\x65\x70";

/// Returns a OneAsymmetricKey in PEM.
fn pkcs8(version: u8, algorithm: &[&[u8]], key: &[u8], more: &[u8]) -> String {
    let algorithm = value(SEQUENCE, algorithm);
    pem(PKCS8, &value(SEQUENCE, &[&value(INTEGER, &[&[version]]), &algorithm, &value(OCTET_STRING, &[key]), more]))
}

/// Returns an ECPrivateKey.
fn sec1(scalar: &[u8], more: &[u8]) -> Vec<u8> {
    value(SEQUENCE, &[&value(INTEGER, &[&[1]]), &value(OCTET_STRING, &[scalar]), more])
}

fn curve(name: &[u8]) -> Vec<u8> {
    value(CONTEXT_0, &[&value(OBJECT_IDENTIFIER, &[name])])
}

/// Returns the scalar and the public key of a P-256 key.
fn p256() -> (Vec<u8>, Vec<u8>) {
    let key = der(&block(pair("p256").a, "PRIVATE KEY"));
    let at = key.len() - 65;
    (key[36..68].to_vec(), key[at..].to_vec())
}

#[test]
fn encrypted_keys_are_rejected() {
    let mut count = 0;
    for Pair { name, a, .. } in COMPARED.iter().chain(&OTHERS) {
        for key in encrypted_keys(a) {
            count += 1;
            assert_eq!(rule(&key), Some(ENCRYPTED), "{name}\n{key}");
            assert_eq!(rule(&key.replace('\n', "\r\n")), Some(ENCRYPTED), "{name}\n{key}");
        }
    }
    assert_eq!(count, 17 + 4 + 6);
}

#[test]
fn what_is_no_private_key_is_named() {
    let Pair { a, b, .. } = pair("p256");
    let good = block(a, PKCS8);
    let [certificate, request] = ["CERTIFICATE", "CERTIFICATE REQUEST"].map(|label| block(a, label));
    let parameters = block(a, PARAMETERS);
    let renamed = |label: &str| good.replace(" PRIVATE KEY-", &format!(" {label}-"));
    for (text, expected) in [
        (String::new(), EMPTY),
        ("\r\n ".to_owned(), EMPTY),
        (certificate.clone(), LABEL),
        (request, LABEL),
        (parameters.clone(), LABEL),
        (renamed("PUBLIC KEY"), LABEL),
        (renamed("RSA PUBLIC KEY"), LABEL),
        (renamed("private key"), LABEL),
        (renamed(""), LABEL),
        (block(pair("dsa").a, "DSA PRIVATE KEY"), FORMAT),
        (renamed("SM2 PRIVATE KEY"), FORMAT),
        (renamed("ANY PRIVATE KEY"), FORMAT),
        (renamed("OPENSSH PRIVATE KEY"), OPENSSH),
        (format!("{good}{good}"), ONE),
        (format!("{good}{}", block(b, PKCS8)), ONE),
        (format!("{good}{certificate}"), ONE),
        (format!("{certificate}{good}"), ONE),
        (format!("{good}{parameters}"), ONE),
        (format!("{parameters}{good}{good}"), ONE),
        (format!("{parameters}{certificate}"), LABEL),
        ("text".to_owned(), FRAME),
        (good.replace("-----", ""), FRAME),
        (format!("Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n{good}"), FRAME),
        (format!("{good}text"), FRAME),
        (good.replace("END PRIVATE", "END RSA PRIVATE"), FRAME),
        (good.replace("-----END", "----END"), FRAME),
        (good[..good.len() / 2].to_owned(), FRAME),
        (good.replace('\n', " "), FRAME),
        (good.replace('\n', "\\n"), ESCAPED),
        (good.replace("-----", "\u{2014}"), COPIED),
        (good.replace("-----", "\u{2013}\u{2013}"), COPIED),
        (format!("\u{feff}{good}"), COPIED),
        (format!("{}\u{200b}", good.trim_end()), COPIED),
        (format!("{good}\u{1b}"), CONTROL_IN_PEM),
        (good.replacen("MIG", "M IG", 1), BASE64),
        (good.replacen("MIG", "M_IG", 1), BASE64),
        (good.replacen("MIG", "IG", 1), BASE64),
        (good.replacen("MIG", "Comment: x\n\nMIG", 1), BASE64),
        (good.repeat(20), SIZE),
        ("a".repeat(10_000_000), SIZE),
    ] {
        assert_eq!(rule(&text), Some(expected), "{text}");
    }
    assert_eq!(rule(&format!("{good}{}", "\n".repeat(10_000))), None);
}

#[test]
fn parameters_before_an_elliptic_key_are_removed() {
    for Pair { name, a, .. } in COMPARED.iter().chain(&OTHERS) {
        for parameters in blocks(a, PARAMETERS) {
            for key in blocks(a, SEC1).into_iter().filter(|key| !key.contains("ENCRYPTED")) {
                let mut text = format!("\n{parameters}\r\n{key}");
                assert_eq!(check(&mut text, None, MISMATCH), Ok(()), "{name}");
                assert_eq!(text, key.trim_end(), "{name}");
            }
        }
    }
}

#[test]
fn damaged_keys_are_rejected() {
    for Pair { name, a, .. } in COMPARED.iter().chain(&OTHERS).filter(|pair| pair.name != "rsa_4096") {
        for key in private_keys(a) {
            let label = key.split("-----").nth(1).unwrap().trim_start_matches("BEGIN ");
            let good = der(&key);
            for length in 0..good.len() {
                assert_eq!(rule(&pem(label, &good[..length])), Some(DER), "{name} {label} {length}");
            }
            for after in [&[0_u8][..], b"\x05\x00"] {
                assert_eq!(rule(&pem(label, &[&good, after].concat())), Some(TRAILING), "{name} {label}");
            }
            let header = if good[1] == 0x82 { 4 } else { usize::from(good[1] > 0x80) + 2 };
            let indefinite = [&[0x30, 0x80], &good[header..], &[0, 0]].concat();
            assert_eq!(rule(&pem(label, &indefinite)), Some(BER), "{name} {label}");
        }
    }
}

#[test]
fn a_key_under_the_label_of_another_format_is_rejected() {
    for (name, from, to) in [
        ("rsa_2048", PKCS8, PKCS1),
        ("rsa_2048", PKCS8, SEC1),
        ("rsa_2048", PKCS1, PKCS8),
        ("rsa_2048", PKCS1, SEC1),
        ("p256", PKCS8, PKCS1),
        ("p256", PKCS8, SEC1),
        ("p256", SEC1, PKCS8),
        ("p256", SEC1, PKCS1),
        ("p256", "CERTIFICATE", PKCS8),
        ("p256", "CERTIFICATE REQUEST", PKCS8),
        ("p256", "ENCRYPTED PRIVATE KEY", PKCS8),
    ] {
        let key = blocks(pair(name).a, from).into_iter().find(|block| !block.contains("Proc-Type")).unwrap();
        assert_eq!(rule(&pem(to, &der(&key))), Some(DER), "{name} {from} {to}");
    }
}

#[test]
fn a_changed_number_is_found_wherever_it_is() {
    let accepted = |name: &str, label: &str| -> Vec<usize> {
        let key = blocks(pair(name).a, label).swap_remove(0);
        let good = der(&key);
        let changed = |at: usize| {
            let mut changed = good.clone();
            changed[at] ^= 1;
            pem(label, &changed)
        };
        (0..good.len()).filter(|at| rule_for(&changed(*at), &key).is_none()).collect()
    };
    // The version of PKCS#8 is not interpreted. A changed tag of a curve's name makes a curve without a name, whose keys
    // are not compared. Another version of an RSA key has other numbers, too, and these are not verified.
    assert_eq!(accepted("p256", PKCS8), [5, 17]);
    assert_eq!(accepted("p384", PKCS8), [5, 17]);
    assert_eq!(accepted("ed25519", PKCS8), [4]);
    assert_eq!(accepted("p256", SEC1), [41]);
    assert_eq!(accepted("rsa_2048", PKCS1), [6]);
}

#[test]
fn numbers_that_do_not_belong_together_are_named() {
    let (scalar, point) = p256();
    let other = &der(&block(pair("p256").b, PKCS8))[73..];
    let public = |point: &[u8]| value(CONTEXT_1, &[&value(BIT_STRING, &[&[0], point])]);
    let named = curve(PRIME256V1);
    for key in [
        sec1(&scalar, &[&named[..], &public(other)].concat()),
        sec1(&scalar, &[&named[..], &public(&point[1..])].concat()),
        sec1(&[0; 32], &named),
        sec1(&[0xff; 32], &named),
        sec1(&[], &named),
    ] {
        assert_eq!(rule(&pem(SEC1, &key)), Some(KEY), "{key:02x?}");
    }
    let rsa = der(&block(pair("rsa_2048").a, PKCS8));
    let last = rsa.len() - 1;
    for at in [last, last - 200, last - 400, last - 600] {
        let mut changed = rsa.clone();
        changed[at] ^= 2;
        assert_eq!(rule(&pem(PKCS8, &changed)), Some(KEY), "{at}");
    }
}

#[test]
fn elliptic_keys_of_other_tools_are_read() {
    let (scalar, point) = p256();
    let good = block(pair("p256").a, PKCS8);
    let other = block(pair("p256").b, PKCS8);
    let named = curve(PRIME256V1);
    let public = value(CONTEXT_1, &[&value(BIT_STRING, &[&[0], &point])]);
    let compressed = [&[2 + (point[64] & 1)], &point[1..33]].concat();
    let compressed = value(CONTEXT_1, &[&value(BIT_STRING, &[&[0], &compressed])]);
    let padded = [&[0], &scalar[..]].concat();
    let algorithm = [&value(OBJECT_IDENTIFIER, &[EC_PUBLIC_KEY])[..], &value(OBJECT_IDENTIFIER, &[PRIME256V1])];
    let attributes = value(CONTEXT_0, &[&value(SEQUENCE, &[])]);
    for key in [
        pem(SEC1, &sec1(&scalar, &named)),
        pem(SEC1, &sec1(&scalar, &[&named[..], &public].concat())),
        pem(SEC1, &sec1(&scalar, &[&named[..], &compressed].concat())),
        pem(SEC1, &sec1(&padded, &named)),
        pkcs8(0, &algorithm, &sec1(&scalar, &[]), &[]),
        pkcs8(0, &algorithm, &sec1(&scalar, &public), &[]),
        pkcs8(0, &algorithm, &sec1(&scalar, &[&named[..], &public].concat()), &[]),
        pkcs8(0, &algorithm, &sec1(&scalar, &public), &attributes),
        pkcs8(1, &algorithm, &sec1(&scalar, &[]), &value(0x81, &[&[0], &point])),
    ] {
        assert_eq!(rule_for(&key, &good), None, "{key}");
        assert_eq!(rule_for(&key, &other), Some(MISMATCH), "{key}");
    }
    assert_eq!(rule(&pem(SEC1, &sec1(&scalar, &public))), Some(DER), "no curve");
    assert_eq!(rule(&pem(SEC1, &sec1(&scalar, &curve(SECP521R1)))), None, "another curve");
    let null = value(CONTEXT_0, &[&value(NULL, &[])]);
    assert_eq!(rule(&pem(SEC1, &sec1(&scalar, &null))), None, "an implicit curve");
}

#[test]
fn ed25519_keys_of_other_tools_are_read() {
    let good = block(pair("ed25519").a, PKCS8);
    let bytes = der(&good);
    let seed = &bytes[bytes.len() - 32..];
    let public = [7; 32]; // not interpreted
    let algorithm = [&value(OBJECT_IDENTIFIER, &[ED25519])[..]];
    let key = value(OCTET_STRING, &[seed]);
    for key in [
        pkcs8(0, &algorithm, &key, &[]),
        pkcs8(1, &algorithm, &key, &value(0x81, &[&[0], &public])), // RFC 5958
        pkcs8(1, &algorithm, &key, &value(CONTEXT_1, &[&value(BIT_STRING, &[&[0], &public])])), // ring before 0.17
    ] {
        assert_eq!(rule_for(&key, &good), None, "{key}");
        assert_eq!(rule_for(&key, &block(pair("ed25519").b, PKCS8)), Some(MISMATCH), "{key}");
    }
    for (key, expected) in [
        (value(OCTET_STRING, &[&seed[1..]]), KEY),
        (value(OCTET_STRING, &[seed, &[0]]), KEY),
        (value(OCTET_STRING, &[]), KEY),
        (seed.to_vec(), DER),
        (Vec::new(), DER),
    ] {
        assert_eq!(rule(&pkcs8(0, &algorithm, &key, &[])), Some(expected), "{}", key.len());
    }
}

#[test]
fn keys_of_rcgen_are_read() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(rule(&key.serialize_pem()), None, "{algorithm:?}");
    }
}

#[test]
fn no_copy_outgrows_its_buffer() {
    for key in private_keys(pair("rsa_4096").a) {
        let blocks = pem::blocks(&key).unwrap();
        let der = blocks[0].decode_secret().unwrap();
        assert!(der.len() <= der.capacity() && der.capacity() <= key.len(), "{} {}", der.len(), der.capacity());
    }
}

#[test]
fn every_rule_says_what_the_text_must_be() {
    for rule in [SIZE, LABEL, ONE, FORMAT, OPENSSH, ENCRYPTED, DER, KEY] {
        assert!(rule.starts_with("must ") && rule.contains(": "), "{rule}");
    }
}
