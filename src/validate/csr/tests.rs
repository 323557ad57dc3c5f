//! Tests with valid and damaged requests of openssl, keytool and Python (`tests/csr/`), and of rcgen.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{ADDRESS, ALGORITHM, DER, KEY, LABEL, MISMATCH, NAME, ONE, SIGNATURE, SIZE, check, create, upload};
use crate::validate::der::{BER, TRAILING};
use crate::validate::fixtures::{COMPARED, OTHERS, Pair, block, der, pair, private_keys, replaced};
use crate::validate::pem::{BASE64, COPIED, EMPTY, ESCAPED, FRAME};
use crate::validate::text::CONTROL_IN_PEM;
use crate::validate::{Violations, fixtures};

const DOMAIN: &str = "www.example.com";

macro_rules! pem {
    ($name:literal) => {
        ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/csr/", $name, ".pem")))
    };
}

mod encoding;
mod signature;

const RSA: &str = pem!("rsa_2048").1;
const P256: &str = pem!("p256_sha256").1;

fn pem(der: &[u8]) -> String {
    fixtures::pem("CERTIFICATE REQUEST", der)
}

fn flipped(der: &[u8], at: usize) -> Vec<u8> {
    let mut der = der.to_vec();
    der[at] ^= 1;
    der
}

#[test]
fn requests_of_rcgen_are_accepted() {
    let algorithms = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
    ];
    for algorithm in algorithms {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.example".to_owned(), DOMAIN.to_owned()]).unwrap();
        let text = params.serialize_request(&key).unwrap().pem().unwrap();
        assert_eq!(check(&text, Some(DOMAIN)), Ok(()));
        assert_eq!(check(&text, Some("b.example")), Err(NAME));
    }
}

#[test]
fn the_domain_is_a_common_name_or_dns_name() {
    let accepted = [
        (pem!("p256_sha256"), DOMAIN),
        (pem!("p256_sha256"), "WWW.EXAMPLE.com"),
        (pem!("cn_other_case"), DOMAIN),
        (pem!("cn_second"), DOMAIN),
        (pem!("cn_second"), "other.example.com"),
        (pem!("cn_wildcard"), "*.example.com"),
        (pem!("cn_t61"), DOMAIN),
        (pem!("cn_u_label"), "xn--bcher-kva.example"),
        (pem!("cn_bmp"), "xn--bcher-kva.example"),
        (pem!("san_only"), DOMAIN),
        (pem!("san_only"), "other.example.com"),
        (pem!("san_only"), "192.0.2.1"),
        (pem!("challenge"), DOMAIN),
        (pem!("challenge_bmp"), DOMAIN),
        (pem!("challenge_t61"), DOMAIN),
        (pem!("challenge_ia5"), "other.example.com"),
        (pem!("keytool_san"), "other.example.com"),
        (pem!("no_attributes"), DOMAIN),
        (pem!("certreq"), DOMAIN),
    ];
    for ((name, text), domain) in accepted {
        assert_eq!(check(text, Some(domain)), Ok(()), "{name} {domain}");
    }
    let rejected = [
        (pem!("p256_sha256"), "example.com"),
        (pem!("p256_sha256"), "*.example.com"),
        (pem!("p256_sha256"), ""),
        (pem!("cn_wildcard"), DOMAIN),
        (pem!("cn_wildcard"), "example.com"),
        (pem!("cn_other"), DOMAIN),
        (pem!("cn_u_label"), "bcher.example"),
        (pem!("san_not_dns"), DOMAIN),
        (pem!("no_name"), DOMAIN),
    ];
    for ((name, text), domain) in rejected {
        assert_eq!(check(text, Some(domain)), Err(NAME), "{name} {domain}");
    }
}

#[test]
fn names_are_not_checked_without_a_domain() {
    for (name, text) in [pem!("cn_other"), pem!("no_name"), pem!("san_not_dns")] {
        assert_eq!(check(text, None), Ok(()), "{name}");
    }
}

#[test]
fn older_labels_and_other_line_ends_are_accepted() {
    let (_, new_header) = pem!("new_header");
    assert!(new_header.starts_with("-----BEGIN NEW CERTIFICATE REQUEST-----"));
    assert_eq!(check(new_header, Some(DOMAIN)), Ok(()));
    let texts = [
        P256.replace('\n', " \n"),
        P256.replace('\n', "\t \r\n"),
        P256.replace('\n', "\r\n"),
        P256.trim().to_owned(),
        format!("\n\t \r\n{P256}\n \t\u{a0}\u{3000}\n"),
        pem(&der(P256)),
        P256.replace("-----\nMIH", "-----\n\nMIH"),
        der(P256).chunks(3).fold(String::from("-----BEGIN CERTIFICATE REQUEST-----\n"), |text, three| {
            text + &STANDARD.encode(three) + "\n"
        }) + "-----END CERTIFICATE REQUEST-----",
    ];
    for text in texts {
        assert_eq!(check(&text, Some(DOMAIN)), Ok(()), "{text}");
    }
}

#[test]
fn other_than_one_pem_block_is_rejected() {
    let body = STANDARD.encode(der(P256));
    let texts = [
        "text".to_owned(),
        body.clone(),
        format!("Certificate:\n{P256}"),
        format!("{P256}text"),
        P256.replace("END CERTIFICATE REQUEST", "END CERTIFICATE"),
        P256.replace("END CERTIFICATE REQUEST", "END NEW CERTIFICATE REQUEST"),
        P256.replace("BEGIN CERTIFICATE REQUEST", "BEGIN NEW CERTIFICATE REQUEST"),
        P256.replace("-----END", "----END"),
        P256.lines().next().unwrap().to_owned(),
        P256.lines().last().unwrap().to_owned(),
        "-----BEGIN CERTIFICATE REQUEST-----".to_owned() + "-----END CERTIFICATE REQUEST-----",
        format!("-----BEGIN CERTIFICATE REQUEST-----{body}\n-----END CERTIFICATE REQUEST-----"),
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----"),
        P256.replace('\n', "\r"),
        P256.replacen("BEGIN", "begin", 1),
    ];
    for text in texts {
        assert_eq!(check(&text, Some(DOMAIN)), Err(FRAME), "{text}");
    }
    for text in ["", " ", "\r\n"] {
        assert_eq!(check(text, Some(DOMAIN)), Err(EMPTY), "{text:?}");
    }
    for text in [format!("{P256}{P256}"), format!("{P256}\n\n{}", pem!("certificate").1)] {
        assert_eq!(check(&text, Some(DOMAIN)), Err(ONE), "{text}");
    }
}

#[test]
fn blocks_with_another_label_are_rejected() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let texts = [
        pem!("certificate").1.to_owned(),
        pem!("public_key").1.to_owned(),
        key,
        P256.replace("CERTIFICATE REQUEST", "certificate request"),
        P256.replace("CERTIFICATE REQUEST", " CERTIFICATE REQUEST"),
        P256.replace("CERTIFICATE REQUEST", "X509 CERTIFICATE REQUEST"),
    ];
    for text in texts {
        assert_eq!(check(&text, Some(DOMAIN)), Err(LABEL), "{text}");
    }
}

#[test]
fn invalid_base64_is_rejected() {
    let texts = [
        P256.replace("-----\nMIH", "-----\nProc-Type: 4,ENCRYPTED\n\nMIH"),
        P256.replace("-----\nMIH", "-----\n MIH"),
        P256.replace("-----\nMIH", "-----\n\tMIH"),
        P256.replace("-----\nMIH", "-----\nM IH"),
        P256.replace("-----\nMIH", "-----\nM\rIH"),
        P256.replace("-----\nMIH", "-----\nM_IH"),
        P256.replace("-----\nMIH", "-----\nM=IH"),
        P256.replace("-----\nMIH", "-----\nMéIH"),
        P256.replace("-----\nMIH", "-----\nIH"),
        P256.replace("\n-----END", "=\n-----END"),
    ];
    for text in texts {
        assert_eq!(check(&text, Some(DOMAIN)), Err(BASE64), "{text}");
    }
}

#[test]
fn control_characters_are_rejected() {
    for control in ['\0', '\u{b}', '\u{c}', '\u{1b}', '\u{7f}', '\u{85}', '\u{9f}'] {
        for text in
            [format!("{P256}{control}"), format!("{control}{P256}"), P256.replace("MIH", &format!("M{control}IH"))]
        {
            assert_eq!(check(&text, Some(DOMAIN)), Err(CONTROL_IN_PEM), "{text:?}");
        }
    }
}

#[test]
fn requests_over_5120_bytes_are_rejected() {
    let padding = 5_120 - P256.len();
    assert_eq!(check(&format!("{P256}{}", " ".repeat(padding)), Some(DOMAIN)), Ok(()));
    assert_eq!(check(&format!("{P256}{}", " ".repeat(padding + 1)), Some(DOMAIN)), Err(SIZE));
    assert_eq!(check(&"a".repeat(10_000_000), Some(DOMAIN)), Err(SIZE));
}

#[test]
fn incomplete_requests_are_rejected() {
    let request = der(P256);
    for length in 0..request.len() {
        assert_eq!(check(&pem(&request[..length]), Some(DOMAIN)), Err(DER), "{length}");
    }
    for after in [&[0_u8][..], b"\x05\x00", &request] {
        let longer = [&request, after].concat();
        assert_eq!(check(&pem(&longer), Some(DOMAIN)), Err(TRAILING));
    }
    assert_eq!(check(&pem(&der(pem!("certificate").1)), Some(DOMAIN)), Err(DER));
    assert_eq!(check(&pem(&der(pem!("public_key").1)), Some(DOMAIN)), Err(DER));
}

#[test]
fn a_fourth_member_of_the_request_is_rejected() {
    let request = der(P256);
    // A SEQUENCE with a length of one byte, to which NULL is added.
    let [0x30, 0x81, length, content @ ..] = request.as_slice() else { panic!("unexpected length") };
    let longer = [&[0x30, 0x81, *length + 2], content, &[0x05, 0x00]].concat();
    assert_eq!(check(&pem(&longer), Some(DOMAIN)), Err(DER));
}

#[test]
fn changed_bytes_cause_no_panic() {
    for text in [RSA, P256, pem!("san_only").1, pem!("pss_max_salt").1, pem!("challenge").1, pem!("cn_bmp").1] {
        let request = der(text);
        for at in 0..request.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = request.clone();
                changed[at] ^= change;
                let _ = check(&pem(&changed), Some(DOMAIN));
            }
        }
    }
}

#[test]
fn violations_never_show_the_request() {
    for violation in [
        SIZE,
        EMPTY,
        CONTROL_IN_PEM,
        COPIED,
        ESCAPED,
        FRAME,
        ONE,
        LABEL,
        BASE64,
        DER,
        TRAILING,
        BER,
        KEY,
        ALGORITHM,
        SIGNATURE,
        NAME,
        ADDRESS,
        MISMATCH,
    ] {
        assert!(!violation.contains("example") && violation.starts_with("must "), "{violation}");
    }
}

#[test]
fn what_is_hard_to_see_around_a_block_is_named() {
    let pem = P256;
    for (text, rule) in [
        (format!("\u{feff}{pem}"), COPIED),
        (format!("{}\u{200b}", pem.trim_end()), COPIED),
        (pem.replace("-----", "\u{2014}"), COPIED),
        (format!("\u{201c}{}\u{201d}", pem.trim_end()), COPIED),
        (pem.replace('\n', "\\n"), ESCAPED),
        (format!("x{pem}"), FRAME),
    ] {
        assert_eq!(check(&text, None), Err(rule), "{text}");
    }
}

/// Returns the violations of UploadCsr, by field.
fn uploaded(csr: &str, private_key: Option<&str>) -> Vec<(String, &'static str)> {
    let mut found = Violations(Vec::new());
    let mut private_key = private_key.map(str::to_owned);
    upload(csr, private_key.as_mut(), "", &mut found);
    found.0.into_iter().map(|violation| (violation.field, violation.description)).collect()
}

#[test]
fn an_uploaded_private_key_belongs_to_the_request() {
    for Pair { name, a, b } in COMPARED.iter().chain(&OTHERS) {
        let is_compared = COMPARED.iter().any(|compared| compared.name == *name);
        let csr = block(a, "CERTIFICATE REQUEST");
        assert_eq!(uploaded(&csr, None), [], "{name}");
        for key in private_keys(a) {
            assert_eq!(uploaded(&csr, Some(&key)), [], "{name}\n{key}");
        }
        for key in private_keys(b) {
            let expected = [("private_key".to_owned(), MISMATCH)];
            assert_eq!(uploaded(&csr, Some(&key)), &expected[..usize::from(is_compared)], "{name}\n{key}");
        }
    }
}

#[test]
fn an_uploaded_request_and_its_key_are_named() {
    let Pair { a, .. } = pair("p256");
    let [csr, key] = ["CERTIFICATE REQUEST", "PRIVATE KEY"].map(|label| block(a, label));
    for blank in ["", "\n", " \r\n"] {
        assert_eq!(uploaded(&csr, Some(blank)), [], "{blank:?}");
    }
    assert_eq!(uploaded("", None), [("csr".to_owned(), EMPTY)]);
    assert_eq!(uploaded(&key, None), [("csr".to_owned(), LABEL)]);
    let fields =
        |csr: &str, key: &str| uploaded(csr, Some(key)).into_iter().map(|(field, _)| field).collect::<Vec<_>>();
    assert_eq!(fields(&csr, &csr), ["private_key"]);
    assert_eq!(fields(&key, &csr), ["csr", "private_key"]);
    assert_eq!(fields(&key, &key), ["csr"]);
    let mut text = format!("\n{key}\r\n");
    upload(&csr, Some(&mut text), "", &mut Violations(Vec::new()));
    assert_eq!(text, key.trim_end());
}

#[test]
fn names_of_a_created_request_are_converted() {
    let mut found = Violations(Vec::new());
    let mut domain = "B\u{fc}cher.example".to_owned();
    let mut sans = ["a.example", "\u{fc}.example", "xn--bcher-kva.example", "192.0.2.1"].map(str::to_owned);
    create(&mut domain, &mut sans, "", &mut found);
    assert_eq!(domain, "xn--bcher-kva.example");
    assert_eq!(sans, ["a.example", "xn--tda.example", "xn--bcher-kva.example", "192.0.2.1"]);
    create(&mut "192.0.2.1".to_owned(), &mut [], "in.", &mut found);
    let fields: Vec<_> = found.0.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["sans[2]", "sans[3]", "in.domain_name"]);
}
