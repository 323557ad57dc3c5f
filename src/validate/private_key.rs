//! Private keys in PEM: PKCS#8 (RFC 5958), PKCS#1 (RFC 8017 A.1.2) or SEC 1 (RFC 5915), not encrypted.

use std::ops::RangeInclusive;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use x509_parser::asn1_rs::Tag;

use super::der::{Problem, algorithm, document, is, is_context, list, magnitude, only, typed};
use super::pem::{self, Block};
use super::public_key::{Algorithm, PublicKey};

#[cfg(test)]
mod tests;

/// The largest text in bytes, which bounds the cost of a check.
const MAX_SIZE: usize = 4_096;

const PKCS8: &str = "PRIVATE KEY";
const PKCS1: &str = "RSA PRIVATE KEY";
const SEC1: &str = "EC PRIVATE KEY";
/// The block that `openssl ecparam -genkey` writes before a key in SEC 1, which has the parameters, too.
const PARAMETERS: &str = "EC PARAMETERS";

const SIZE: &str = "must be at most 4,096 bytes: send the private key alone";
const LABEL: &str = "must be a PEM block PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY: do not send a certificate, \
     a signing request or a public key";
const ONE: &str = "must be exactly one PEM block: send the private key alone";
const FORMAT: &str = "must be in PKCS#8, PKCS#1 or SEC 1: convert it with `openssl pkcs8 -topk8 -nocrypt`";
const OPENSSH: &str = "must be in PKCS#8, PKCS#1 or SEC 1: convert it with `ssh-keygen -p -m PKCS8`";
const ENCRYPTED: &str = "must not be encrypted: decrypt it with `openssl pkey`";
const DER: &str = "must contain a complete private key in the format that its BEGIN line names: it is damaged or in \
     another format, export it again";
const KEY: &str = "must contain a valid private key: its numbers do not belong together, export it again";

/// The sizes of RSA keys in bits, and of their exponents in bytes, whose numbers are verified.
const RSA_BITS: RangeInclusive<usize> = 2_048..=8_192;
const MAX_RSA_EXPONENT: usize = 4;

/// Checks a private key, and removes what stands around it from `text`. If `public` is known, the private key has to
/// belong to it; the rule for another one is `mismatch`. An RSA-4096 key takes half a millisecond, and no key takes more
/// than one.
pub(super) fn check(text: &mut String, public: Option<&PublicKey>, mismatch: &'static str) -> Result<(), &'static str> {
    pem::trim(text);
    if text.len() > MAX_SIZE {
        return Err(SIZE);
    }
    let blocks = pem::blocks(text)?;
    let block = match blocks.as_slice() {
        [block] => block,
        [parameters, block] if parameters.label == PARAMETERS => block,
        _ => return Err(ONE),
    };
    let key = public_key(block)?;
    let before = text.len() - block.text.len();
    text.drain(..before);
    match public {
        Some(public) if !public.is_same(&key) => Err(mismatch),
        _ => Ok(()),
    }
}

/// Returns the public key of a private key.
fn public_key(block: &Block<'_>) -> Result<PublicKey, &'static str> {
    if block.has_encryption_header() {
        return Err(ENCRYPTED);
    }
    let algorithm_and_key = match block.label {
        PKCS8 => pkcs8,
        PKCS1 => pkcs1,
        SEC1 => sec1,
        label => return Err(label_rule(label)),
    };
    let der = block.decode_secret()?;
    let (algorithm, key) = algorithm_and_key(&der).map_err(|problem| problem.rule(DER))?;
    match algorithm {
        Algorithm::Rsa => rsa(key),
        Algorithm::P256 => elliptic(algorithm, &ECDSA_P256_SHA256_ASN1_SIGNING, key),
        Algorithm::P384 => elliptic(algorithm, &ECDSA_P384_SHA384_ASN1_SIGNING, key),
        Algorithm::Ed25519 => ed25519(key),
        Algorithm::UnnamedCurve => Ok(PublicKey::UnnamedCurve),
        Algorithm::Other => Ok(PublicKey::Other),
    }
}

/// Returns the rule for a block that is no private key, or in another format.
fn label_rule(label: &str) -> &'static str {
    match label {
        "ENCRYPTED PRIVATE KEY" => ENCRYPTED,
        "OPENSSH PRIVATE KEY" => OPENSSH,
        label if label.ends_with(PKCS8) => FORMAT,
        _ => LABEL,
    }
}

/// Returns the algorithm and the key of a OneAsymmetricKey (RFC 5958 2). Its other members are not interpreted.
fn pkcs8(der: &[u8]) -> Result<(Algorithm, &[u8]), Problem> {
    match list(&document(der)?, Tag::Sequence)?.as_slice() {
        [version, identifier, key, ..] if is(version, Tag::Integer) => {
            Ok((Algorithm::of(&algorithm(identifier)?), typed(key, Tag::OctetString)?))
        }
        _ => Err(Problem::Damaged),
    }
}

/// Returns the algorithm and the whole of an RSAPrivateKey.
fn pkcs1(der: &[u8]) -> Result<(Algorithm, &[u8]), Problem> {
    document(der).map(|_| (Algorithm::Rsa, der))
}

/// Returns the algorithm and the whole of an ECPrivateKey (RFC 5915 3).
fn sec1(der: &[u8]) -> Result<(Algorithm, &[u8]), Problem> {
    match list(&document(der)?, Tag::Sequence)?.as_slice() {
        [version, key, parameters, ..]
            if is(version, Tag::Integer) && is(key, Tag::OctetString) && is_context(parameters, Tag(0)) =>
        {
            Ok((Algorithm::of_curve(Some(&only(parameters.data)?)), der))
        }
        _ => Err(Problem::Damaged),
    }
}

/// Returns the public key of an RSAPrivateKey (RFC 8017 A.1.2). Verifies the numbers if aws-lc-rs supports the key.
fn rsa(key: &[u8]) -> Result<PublicKey, &'static str> {
    let members = only(key).and_then(|key| list(&key, Tag::Sequence)).map_err(|problem| problem.rule(DER))?;
    let [version, modulus, exponent, _, _, _, _, _, _, ..] = members.as_slice() else {
        return Err(DER);
    };
    let (Some(modulus), Some(exponent)) = (magnitude(modulus), magnitude(exponent)) else {
        return Err(DER);
    };
    let has_two_primes = version.data == [0];
    let bits = 8 * modulus.len() - modulus[0].leading_zeros() as usize;
    let is_supported = has_two_primes && RSA_BITS.contains(&bits) && exponent.len() <= MAX_RSA_EXPONENT;
    if is_supported && RsaKeyPair::from_der(key).is_err() {
        return Err(KEY);
    }
    Ok(PublicKey::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
}

/// Returns the public key of an ECPrivateKey, which contains it or not.
fn elliptic(
    algorithm: Algorithm,
    signing: &'static EcdsaSigningAlgorithm,
    key: &[u8],
) -> Result<PublicKey, &'static str> {
    let key = EcdsaKeyPair::from_private_key_der(signing, key).map_err(|_| KEY)?;
    PublicKey::new(algorithm, key.public_key().as_ref()).ok_or(KEY)
}

/// Returns the public key of a CurvePrivateKey (RFC 8410 7).
fn ed25519(key: &[u8]) -> Result<PublicKey, &'static str> {
    let seed = only(key).and_then(|seed| typed(&seed, Tag::OctetString)).map_err(|problem| problem.rule(DER))?;
    let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KEY)?;
    PublicKey::new(Algorithm::Ed25519, key.public_key().as_ref()).ok_or(KEY)
}
