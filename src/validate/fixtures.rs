//! What the tests read: key pairs, two of each algorithm, made by `tests/key_pairs/make.sh`, and DER that they encode.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

macro_rules! pairs {
    ($($name:literal),+) => {
        [$(Pair {
            name: $name,
            a: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/key_pairs/", $name, "_a.pem")),
            b: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/key_pairs/", $name, "_b.pem")),
        }),+]
    };
}

/// Two key pairs of an algorithm, each with all its PEM blocks.
pub(super) struct Pair {
    pub(super) name: &'static str,
    pub(super) a: &'static str,
    pub(super) b: &'static str,
}

/// The algorithms whose keys are compared.
pub(super) static COMPARED: [Pair; 11] = pairs!(
    "rsa_1024",
    "rsa_2048",
    "rsa_3072",
    "rsa_4096",
    "rsa_large_exponent",
    "rsa_pss",
    "rsa_three_primes",
    "p256",
    "p256_compressed",
    "p384",
    "ed25519"
);

/// The algorithms whose keys are not compared.
pub(super) static OTHERS: [Pair; 6] = pairs!("dsa", "ed448", "p256_explicit", "p521", "secp256k1", "sm2");

/// Returns the blocks with a label, each with its line end.
pub(super) fn blocks(pair: &str, label: &str) -> Vec<String> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----\n"));
    let rest = |part: &str| format!("{begin}{}{end}", part.split_once(&end).expect("an end").0);
    pair.split(&begin).skip(1).map(rest).collect()
}

/// Returns the only block with a label.
pub(super) fn block(pair: &str, label: &str) -> String {
    let [block] = <[String; 1]>::try_from(blocks(pair, label)).expect("one block");
    block
}

/// Returns the private key in every format that is accepted.
pub(super) fn private_keys(pair: &str) -> Vec<String> {
    let labels = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
    let keys = labels.into_iter().flat_map(|label| blocks(pair, label));
    keys.filter(|key| !key.contains("ENCRYPTED")).collect()
}

/// Returns the private key in every format with encryption.
pub(super) fn encrypted_keys(pair: &str) -> Vec<String> {
    let labels = ["ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
    let keys = labels.into_iter().flat_map(|label| blocks(pair, label));
    keys.filter(|key| key.contains("ENCRYPTED")).collect()
}

/// Returns the pair with a name.
pub(super) fn pair(name: &str) -> &'static Pair {
    COMPARED.iter().chain(&OTHERS).find(|pair| pair.name == name).expect("a pair")
}

/// Decodes a block.
pub(super) fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).expect("base64")
}

/// Encodes a block.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// Returns a value in DER.
pub(super) fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).expect("a short value").to_be_bytes();
    match content.len() {
        0..0x80 => [&[tag, length[1]], &content[..]].concat(),
        0x80..0x100 => [&[tag, 0x81, length[1]], &content[..]].concat(),
        _ => [&[tag, 0x82], &length[..], &content].concat(),
    }
}

/// Replaces the last `from` by `to`, which has the same length.
pub(super) fn replaced(der: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = der.windows(from.len()).rposition(|window| window == from).expect("the bytes");
    let mut der = der.to_vec();
    der[at..at + to.len()].copy_from_slice(to);
    der
}
