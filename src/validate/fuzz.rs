//! Fuzzes certificates and private keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Violations, certificate, private_key};

/// Returns a text, or the PEM block of other bytes.
fn pem(label: &str, data: &[u8]) -> String {
    match str::from_utf8(data) {
        Ok(text) if text.contains("-----") => text.to_owned(),
        _ => format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", STANDARD.encode(data)),
    }
}

/// Fuzzes the validation of certificates, given as PEM or DER. A chain breaks the same rule. What is accepted is short,
/// does not begin or end with whitespace, and is accepted again as it is sent. A text with a private key is wiped.
pub fn certificate(data: &[u8]) {
    let import = |text: &str| {
        let (mut sent, mut chain) = (text.to_owned(), format!("\r\n{text} \n"));
        let mut found = Violations(Vec::new());
        certificate::import(&mut sent, Some(&mut chain), &mut String::new(), "", &mut found);
        let rule = |name: &str| found.0.iter().find(|found| found.field == name).map(|found| found.description);
        let rules = [rule("certificate"), rule("certificate_chain")];
        assert!(rule("private_key").is_some_and(|rule| rule.starts_with("must not be empty")));
        assert_eq!(sent, chain, "whitespace around the text");
        assert!(rules[0] == rules[1] || sent.is_empty());
        (sent, rules[0])
    };
    let (sent, rule) = import(&pem("CERTIFICATE", data));
    assert_eq!(sent, sent.trim());
    assert!(rule.is_some() || (sent.len() <= 8192 && sent.starts_with("-----BEGIN CERTIFICATE-----")));
    if !sent.is_empty() {
        assert_eq!(import(&sent), (sent, rule));
    }
}

/// Fuzzes the validation of private keys, given as PEM or as the DER of any format. No bytes have two formats. What is
/// accepted is one block, and is accepted again as it is sent.
pub fn private_key(data: &[u8]) {
    let check = |text: &str| {
        let mut sent = text.to_owned();
        let verdict = private_key::check(&mut sent, None, "");
        (sent, verdict)
    };
    let mut accepted = 0;
    let labels = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
    let texts = labels.map(|label| pem(label, data));
    for text in &texts {
        let (sent, verdict) = check(text);
        assert_eq!(check(&format!("\r\n{text} \n")), (sent.clone(), verdict), "whitespace around the text");
        if verdict.is_ok() {
            accepted += 1;
            assert!(
                sent.len() <= 4096 && labels.iter().any(|label| sent.starts_with(&format!("-----BEGIN {label}-----")))
            );
            assert_eq!(sent.matches("-----BEGIN ").count(), 1);
            assert_eq!(check(&sent), (sent, verdict));
        }
    }
    assert!(accepted <= 1 || texts[0] == texts[1], "{accepted} formats");
}
