//! Tests with the key pairs of openssl (`tests/key_pairs/`), and with damaged ones.

use super::*;
use crate::validate::der::{BER, TRAILING};
use crate::validate::fixtures::{COMPARED, OTHERS, Pair, block, der, pair, pem, private_keys, replaced, value};
use crate::validate::pem::{BASE64, COPIED, EMPTY, ESCAPED, FRAME};
use crate::validate::text::CONTROL_IN_PEM;

/// Returns the violations of a certificate, a chain and a private key, by field.
fn violations(certificate: &str, chain: Option<&str>, private_key: &str) -> Vec<(String, &'static str)> {
    let mut found = Violations(Vec::new());
    let mut chain = chain.map(str::to_owned);
    import(&mut certificate.to_owned(), chain.as_mut(), &mut private_key.to_owned(), "", &mut found);
    found.0.into_iter().map(|violation| (violation.field, violation.description)).collect()
}

fn violation(field: &str, rule: &'static str) -> Vec<(String, &'static str)> {
    vec![(field.to_owned(), rule)]
}

fn certificate(pair: &str) -> String {
    block(pair, "CERTIFICATE")
}

/// Returns the rule that a certificate breaks.
fn rule(certificate: &str) -> Option<&'static str> {
    check(&mut certificate.to_owned()).err()
}

#[test]
fn a_certificate_belongs_to_its_key_in_every_format() {
    let mut count = 0;
    for Pair { name, a, b } in COMPARED.iter().chain(&OTHERS) {
        for pair in [a, b] {
            for key in private_keys(pair) {
                count += 1;
                assert_eq!(violations(&certificate(pair), None, &key), [], "{name}\n{key}");
            }
        }
    }
    // four RSA keys in two formats, six elliptic keys in three, and seven keys in PKCS#8 alone
    assert_eq!(count, 2 * (4 * 2 + 6 * 3 + 7));
}

#[test]
fn another_key_of_the_same_algorithm_is_rejected() {
    for Pair { name, a, b } in &COMPARED {
        for (certificate, keys) in [(certificate(a), private_keys(b)), (certificate(b), private_keys(a))] {
            for key in keys {
                assert_eq!(violations(&certificate, None, &key), violation("private_key", MISMATCH), "{name}\n{key}");
            }
        }
    }
}

#[test]
fn keys_of_other_algorithms_are_not_compared() {
    for Pair { name, a, b } in &OTHERS {
        for key in private_keys(b) {
            assert_eq!(violations(&certificate(a), None, &key), [], "{name}\n{key}");
        }
    }
    // The parameters may be those of P-256.
    for [certified, private] in [["p256_explicit", "p256"], ["p256", "p256_explicit"]] {
        let private = block(pair(private).a, "PRIVATE KEY");
        assert_eq!(violations(&certificate(pair(certified).a), None, &private), [], "{certified}");
    }
}

#[test]
fn a_key_of_another_algorithm_is_rejected_if_one_is_compared() {
    let is_elliptic = |name: &str| name.starts_with("p256") || name == "p384";
    for Pair { name, a, .. } in &COMPARED {
        for other in COMPARED.iter().chain(&OTHERS).filter(|other| other.name != *name) {
            let certificates = [certificate(a), certificate(other.a)];
            let keys = [block(other.a, "PRIVATE KEY"), block(a, "PRIVATE KEY")];
            for (certificate, key) in certificates.iter().zip(keys) {
                let is_compared = !(is_elliptic(name) && other.name == "p256_explicit");
                let expected = if is_compared { violation("private_key", MISMATCH) } else { Vec::new() };
                assert_eq!(violations(certificate, None, &key), expected, "{name} {}", other.name);
            }
        }
    }
}

#[test]
fn the_key_belongs_to_the_first_certificate() {
    let Pair { a, b, .. } = pair("p256");
    let [leaf, issuer] = [a, b].map(|pair| certificate(pair));
    let key = block(a, "PRIVATE KEY");
    let mismatch = violation("private_key", MISMATCH);
    for (certificate, chain, expected) in [
        (format!("{leaf}{issuer}"), None, Vec::new()),
        (format!("{leaf}\n\r\n \t\n{issuer}"), None, Vec::new()),
        (leaf.clone(), Some(format!("{issuer}{leaf}")), Vec::new()),
        (format!("{leaf}{issuer}"), Some(issuer.clone()), Vec::new()),
        (format!("{issuer}{leaf}"), None, mismatch.clone()),
        (issuer, Some(leaf), mismatch),
    ] {
        assert_eq!(violations(&certificate, chain.as_deref(), &key), expected, "{certificate}");
    }
}

#[test]
fn whitespace_around_the_texts_is_removed() {
    let Pair { a, .. } = pair("p256");
    let [certificate, key] = [certificate(a), private_keys(a).swap_remove(1)].map(|text| text.trim_end().to_owned());
    for (before, after) in [("", "\n"), ("", "\r\n\r\n"), ("\r\n", ""), ("\n \t\n", " \n"), ("\u{3000}", "\u{a0}")] {
        for line_end in ["\n", "\r\n", " \n", "\t\r\n"] {
            let [certificate, key] = [&certificate, &key].map(|text| text.replace('\n', line_end));
            let around = |text: &str| format!("{before}{text}{after}");
            let (mut sent, mut chain, mut private) = (around(&certificate), around(&certificate), around(&key));
            let mut found = Violations(Vec::new());
            import(&mut sent, Some(&mut chain), &mut private, "", &mut found);
            assert_eq!((sent, chain, private), (certificate.clone(), certificate, key), "{found:?}");
            assert!(found.0.is_empty(), "{found:?}");
        }
    }
}

#[test]
fn a_chain_may_be_empty() {
    let Pair { a, .. } = pair("p256");
    for text in ["", "\n", " \r\n"] {
        let mut chain = text.to_owned();
        let mut found = Violations(Vec::new());
        import(&mut certificate(a), Some(&mut chain), &mut block(a, "PRIVATE KEY"), "", &mut found);
        assert!(chain.is_empty() && found.0.is_empty(), "{found:?}");
    }
}

#[test]
fn every_field_is_named_with_the_path_of_the_message() {
    let mut found = Violations(Vec::new());
    let [mut certificate, mut chain, mut key] = [const { String::new() }; 3].map(|text| text + "x");
    import(&mut certificate, Some(&mut chain), &mut key, "in.", &mut found);
    let fields: Vec<_> = found.0.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["in.certificate", "in.certificate_chain", "in.private_key"]);
}

#[test]
fn what_is_no_certificate_is_named() {
    let Pair { a, .. } = pair("p256");
    let good = certificate(a);
    let [request, key, legacy, encrypted] =
        ["CERTIFICATE REQUEST", "PRIVATE KEY", "EC PARAMETERS", "ENCRYPTED PRIVATE KEY"].map(|label| block(a, label));
    let renamed = |label: &str| good.replace(" CERTIFICATE-", &format!(" {label}-"));
    for (text, expected) in [
        (String::new(), EMPTY),
        ("\r\n".to_owned(), EMPTY),
        (request.clone(), REQUEST),
        (request.replace(" CERTIFICATE", " NEW CERTIFICATE"), REQUEST),
        (format!("{good}{request}"), REQUEST),
        (key.clone(), PRIVATE_KEY),
        (encrypted, PRIVATE_KEY),
        (format!("{good}{key}"), PRIVATE_KEY),
        (format!("{key}{good}"), PRIVATE_KEY),
        (legacy, LABEL),
        (renamed("TRUSTED CERTIFICATE"), LABEL),
        (renamed("X509 CERTIFICATE"), LABEL),
        (renamed("PKCS7"), LABEL),
        (renamed("PUBLIC KEY"), LABEL),
        (renamed("certificate"), LABEL),
        (renamed(""), LABEL),
        ("text".to_owned(), FRAME),
        (good.replace("-----", ""), FRAME),
        (format!("Bag Attributes\n{good}"), FRAME),
        (format!("{good}subject=CN = www.example.com\n{good}"), FRAME),
        (format!("{good}text"), FRAME),
        (format!("{}{good}", good.trim_end()), FRAME),
        (good.replace("END CERTIFICATE", "END CERTIFICATES"), FRAME),
        (good.replace("-----END", "----END"), FRAME),
        (good.replace("\n-----END", "-----END"), FRAME),
        (good.replace("BEGIN CERTIFICATE-----\n", "BEGIN CERTIFICATE-----"), FRAME),
        (good.replace('\n', "\r"), FRAME),
        (good[..good.len() / 2].to_owned(), FRAME),
        (good.replace('\n', "\\n"), ESCAPED),
        (good.replace("-----", "\u{2014}"), COPIED),
        (format!("\u{feff}{good}"), COPIED),
        (format!("\u{201c}{}\u{201d}", good.trim_end()), COPIED),
        (format!("{good}\0"), CONTROL_IN_PEM),
        (good.replacen("MII", "M II", 1), BASE64),
        (good.replacen("MII", "M-I", 1), BASE64),
        (good.replacen("MII", "", 1), BASE64),
        (good.repeat(20), SIZE),
        ("a".repeat(10_000_000), SIZE),
    ] {
        assert_eq!(rule(&text), Some(expected), "{text}");
    }
    assert_eq!(rule(&format!("{good}{}", " ".repeat(10_000))), None);
}

#[test]
fn damaged_certificates_are_rejected() {
    for name in ["rsa_2048", "p256", "ed25519", "dsa"] {
        let good = der(&certificate(pair(name).a));
        let text = |der: &[u8]| pem("CERTIFICATE", der);
        assert_eq!(rule(&text(&good)), None, "{name}");
        for length in 0..good.len() {
            assert_eq!(rule(&text(&good[..length])), Some(DER), "{name} {length}");
        }
        for after in [&[0_u8][..], b"\x05\x00", &good] {
            assert_eq!(rule(&text(&[&good, after].concat())), Some(TRAILING), "{name}");
        }
        let mut indefinite = good.clone();
        indefinite.splice(1..4, [0x80]);
        indefinite.extend([0, 0]);
        assert_eq!(rule(&text(&indefinite)), Some(BER), "{name}");
        let second = format!("{}{}", text(&good), text(&good[..good.len() - 1]));
        assert_eq!(rule(&second), Some(DER), "{name}");
    }
    for label in ["CERTIFICATE REQUEST", "PRIVATE KEY", "EC PARAMETERS"] {
        let other = pem("CERTIFICATE", &der(&block(pair("p384").a, label)));
        assert_eq!(rule(&other), Some(DER), "{label}");
    }
}

#[test]
fn certificates_with_an_invalid_key_are_rejected() {
    let p256 = der(&certificate(pair("p256").a));
    // a BIT STRING of 66 bytes with an uncompressed point
    for invalid in [[0x03, 0x42, 0x00, 0x06], [0x03, 0x42, 0x01, 0x04], [0x03, 0x42, 0x00, 0x02]] {
        let text = pem("CERTIFICATE", &replaced(&p256, &[0x03, 0x42, 0x00, 0x04], &invalid));
        assert_eq!(rule(&text), Some(KEY), "{invalid:?}");
    }
    let rsa = der(&certificate(pair("rsa_2048").a));
    let negative = replaced(&rsa, &[0x02, 0x82, 0x01, 0x01, 0x00], &[0x02, 0x82, 0x01, 0x01, 0xff]);
    assert_eq!(rule(&pem("CERTIFICATE", &negative)), Some(KEY));
}

#[test]
fn extensions_are_not_interpreted() {
    let good = der(&certificate(pair("p256").a));
    // the value of basicConstraints, CA
    let other = replaced(&good, &[0x30, 0x03, 0x01, 0x01, 0xff], &[0xff; 5]);
    assert_eq!(rule(&pem("CERTIFICATE", &other)), None);
}

#[test]
fn certificates_of_version_1_are_accepted() {
    let Pair { a, b, .. } = pair("p256");
    let good = der(&certificate(a));
    let [0x30, 0x82, _, _, 0x30, 0x82, high, low, content @ ..] = good.as_slice() else { panic!("other lengths") };
    let (to_be_signed, rest) = content.split_at(usize::from(u16::from_be_bytes([*high, *low])));
    let without_version = to_be_signed.strip_prefix(b"\xa0\x03\x02\x01\x02").unwrap();
    let version_1 = pem("CERTIFICATE", &value(0x30, &[&value(0x30, &[without_version]), rest]));
    assert_eq!(violations(&version_1, None, &block(a, "PRIVATE KEY")), []);
    assert_eq!(violations(&version_1, None, &block(b, "PRIVATE KEY")), violation("private_key", MISMATCH));
}

#[test]
fn changed_bytes_cause_no_panic() {
    for name in ["rsa_2048", "p256_compressed", "ed25519", "sm2"] {
        let good = der(&certificate(pair(name).a));
        for at in 0..good.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = good.clone();
                changed[at] ^= change;
                let _ = rule(&pem("CERTIFICATE", &changed));
            }
        }
    }
}

#[test]
fn every_rule_says_what_the_text_must_be() {
    for rule in [SIZE, LABEL, REQUEST, PRIVATE_KEY, DER, KEY, MISMATCH] {
        assert!(rule.starts_with("must ") && rule.contains(": "), "{rule}");
    }
}

#[test]
fn no_violation_shows_a_private_key() {
    const MARKER: &str = "p1anted";
    let Pair { a, b, .. } = pair("rsa_2048");
    for key in private_keys(a).into_iter().chain(private_keys(b)) {
        let ends = key.char_indices().filter(|(_, char)| "-\n".contains(*char)).map(|(at, _)| at);
        for at in ends.chain([0, key.len(), key.len() / 2]) {
            let mut planted = key.clone();
            planted.insert_str(at, MARKER);
            let mut found = Violations(Vec::new());
            import(&mut planted.clone(), Some(&mut planted.clone()), &mut planted, "", &mut found);
            assert!(!found.0.is_empty() && !format!("{found:?}").contains(MARKER), "{found:?}");
        }
    }
}
