//! Verifies the self-signature of a signing request if the algorithm is supported.
//!
//! x509-parser's `verify-aws` feature would cover half of the algorithms. It lacks RSA below 2,048 bits with SHA-2, PSS
//! with the longest salt, and the checks of unused bits and of the agreement between key and algorithm.

use std::ops::RangeInclusive;

use aws_lc_rs::rsa::{RsaParameters, RsaPssSaltLength};
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::asn1_rs::{Any, Oid, oid};
use x509_parser::oid_registry::{
    OID_HASH_SHA1, OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512, OID_PKCS1_RSASSAPSS,
    OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA224WITHRSA, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA224, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519,
};
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::AlgorithmIdentifier;

use super::pkcs10::Request;
use super::{ALGORITHM, KEY, SIGNATURE};
use crate::validate::der::{magnitude, members, only};
use crate::validate::public_key::{Algorithm, SubjectPublicKeyInfo, octets};

/// The sizes of RSA keys with verified signatures, in bits.
const RSA_BITS: RangeInclusive<u32> = 1_024..=8_192;

/// Verifies a signature.
type Verifier = &'static dyn VerificationAlgorithm;
/// The signature algorithms for a type of key. `None` is a valid algorithm that cannot be verified here; its signatures
/// are accepted.
type Algorithms = &'static [(Oid<'static>, Option<Verifier>)];

const SHA224: Oid<'static> = oid!(2.16.840.1.101.3.4.2.4);
const SHA512_224: Oid<'static> = oid!(2.16.840.1.101.3.4.2.5);
const SHA512_256: Oid<'static> = oid!(2.16.840.1.101.3.4.2.6);
const SHA3_224: Oid<'static> = oid!(2.16.840.1.101.3.4.2.7);
const SHA3_256: Oid<'static> = oid!(2.16.840.1.101.3.4.2.8);
const SHA3_384: Oid<'static> = oid!(2.16.840.1.101.3.4.2.9);
const SHA3_512: Oid<'static> = oid!(2.16.840.1.101.3.4.2.10);
const MGF1: Oid<'static> = oid!(1.2.840.113549.1.1.8);
const ECDSA_SHA1: Oid<'static> = oid!(1.2.840.10045.4.1);
const ECDSA_SHA3_224: Oid<'static> = oid!(2.16.840.1.101.3.4.3.9);
const ECDSA_SHA3_256: Oid<'static> = oid!(2.16.840.1.101.3.4.3.10);
const ECDSA_SHA3_384: Oid<'static> = oid!(2.16.840.1.101.3.4.3.11);
const ECDSA_SHA3_512: Oid<'static> = oid!(2.16.840.1.101.3.4.3.12);

/// The algorithms of RFC 8017 A.2.4 and NIST's for SHA-3.
static PKCS1: Algorithms = &[
    (OID_PKCS1_SHA1WITHRSA, Some(&signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY)),
    (OID_PKCS1_SHA256WITHRSA, Some(&signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY)),
    (OID_PKCS1_SHA384WITHRSA, Some(&signature::RSA_PKCS1_2048_8192_SHA384)),
    (OID_PKCS1_SHA512WITHRSA, Some(&signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY)),
    (OID_PKCS1_SHA224WITHRSA, None),
    (oid!(1.2.840.113549.1.1.2), None),    // MD2
    (oid!(1.2.840.113549.1.1.3), None),    // MD4
    (oid!(1.2.840.113549.1.1.4), None),    // MD5
    (oid!(1.3.36.3.3.1.2), None),          // RIPEMD-160
    (oid!(1.2.840.113549.1.1.15), None),   // SHA-512/224
    (oid!(1.2.840.113549.1.1.16), None),   // SHA-512/256
    (oid!(2.16.840.1.101.3.4.3.13), None), // SHA3-224
    (oid!(2.16.840.1.101.3.4.3.14), None), // SHA3-256
    (oid!(2.16.840.1.101.3.4.3.15), None), // SHA3-384
    (oid!(2.16.840.1.101.3.4.3.16), None), // SHA3-512
];

/// The algorithms of RFC 5758 3.2 and NIST's for SHA-3.
static P256: Algorithms = &[
    (ECDSA_SHA1, Some(&signature::ECDSA_P256_SHA1_ASN1)),
    (OID_SIG_ECDSA_WITH_SHA256, Some(&signature::ECDSA_P256_SHA256_ASN1)),
    (OID_SIG_ECDSA_WITH_SHA384, Some(&signature::ECDSA_P256_SHA384_ASN1)),
    (OID_SIG_ECDSA_WITH_SHA512, Some(&signature::ECDSA_P256_SHA512_ASN1)),
    (OID_SIG_ECDSA_WITH_SHA224, None),
    (ECDSA_SHA3_224, None),
    (ECDSA_SHA3_256, None),
    (ECDSA_SHA3_384, None),
    (ECDSA_SHA3_512, None),
];

/// The algorithms of RFC 5758 3.2 and NIST's for SHA-3.
static P384: Algorithms = &[
    (OID_SIG_ECDSA_WITH_SHA256, Some(&signature::ECDSA_P384_SHA256_ASN1)),
    (OID_SIG_ECDSA_WITH_SHA384, Some(&signature::ECDSA_P384_SHA384_ASN1)),
    (OID_SIG_ECDSA_WITH_SHA512, Some(&signature::ECDSA_P384_SHA512_ASN1)),
    (ECDSA_SHA3_384, Some(&signature::ECDSA_P384_SHA3_384_ASN1)),
    (ECDSA_SHA1, None),
    (OID_SIG_ECDSA_WITH_SHA224, None),
    (ECDSA_SHA3_224, None),
    (ECDSA_SHA3_256, None),
    (ECDSA_SHA3_512, None),
];

/// The algorithm of RFC 8410 3. Key and signature have the same identifier.
static ED25519: Algorithms = &[(OID_SIG_ED25519, Some(&signature::ED25519))];

/// Valid hashes of RSASSA-PSS that cannot be verified here.
const OTHER_PSS_HASHES: [Oid<'static>; 8] =
    [OID_HASH_SHA1, SHA224, SHA512_224, SHA512_256, SHA3_224, SHA3_256, SHA3_384, SHA3_512];

/// The two salt lengths that are verified: that of the digest, which standards recommend, and the maximum for the key,
/// which is the default of openssl.
struct Pss {
    hash: Oid<'static>,
    digest_bytes: u32,
    digest_salt: Verifier,
    max_salt: Verifier,
}

static PSS: [Pss; 3] = [
    Pss {
        hash: OID_NIST_HASH_SHA256,
        digest_bytes: 32,
        digest_salt: &signature::RSA_PSS_2048_8192_SHA256,
        max_salt: &const { signature::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max) },
    },
    Pss {
        hash: OID_NIST_HASH_SHA384,
        digest_bytes: 48,
        digest_salt: &signature::RSA_PSS_2048_8192_SHA384,
        max_salt: &const { signature::RSA_PSS_2048_8192_SHA384.with_pss_salt_length(RsaPssSaltLength::Max) },
    },
    Pss {
        hash: OID_NIST_HASH_SHA512,
        digest_bytes: 64,
        digest_salt: &signature::RSA_PSS_2048_8192_SHA512,
        max_salt: &const { signature::RSA_PSS_2048_8192_SHA512.with_pss_salt_length(RsaPssSaltLength::Max) },
    },
];

/// Verifies the self-signature (RFC 2986 4.2).
pub(super) fn verify(request: &Request<'_>) -> Result<(), &'static str> {
    let Some(verifier) = verifier(&request.key, &request.signature_algorithm)? else {
        return Ok(());
    };
    let key = request.key.octets().ok_or(KEY)?;
    let signature = octets(&request.signature).ok_or(SIGNATURE)?;
    UnparsedPublicKey::new(verifier, key).verify(request.info, signature).map_err(|_| SIGNATURE)
}

/// Returns the verifier of the signature, or `None` if the signature is not verified. The type of the key decides, so
/// that a signature of another type is rejected for RSA, P-256, P-384 and Ed25519 keys.
fn verifier(
    key: &SubjectPublicKeyInfo<'_>,
    signature: &AlgorithmIdentifier<'_>,
) -> Result<Option<Verifier>, &'static str> {
    match Algorithm::of(&key.algorithm) {
        Algorithm::Rsa => rsa(key, signature),
        Algorithm::P256 => elliptic(key, P256, signature),
        Algorithm::P384 => elliptic(key, P384, signature),
        // Ed25519 keys are 32 bytes (RFC 8410 4).
        Algorithm::Ed25519 => match key.octets() {
            Some(key) if key.len() == 32 => find(ED25519, &signature.algorithm),
            _ => Err(KEY),
        },
        Algorithm::UnnamedCurve | Algorithm::Other => Ok(None),
    }
}

/// Returns the verifier for an elliptic key.
fn elliptic(
    key: &SubjectPublicKeyInfo<'_>,
    algorithms: Algorithms,
    signature: &AlgorithmIdentifier<'_>,
) -> Result<Option<Verifier>, &'static str> {
    // A point is either compressed or uncompressed (RFC 5480 2.2).
    match key.octets() {
        Some([2..=4, ..]) => find(algorithms, &signature.algorithm),
        _ => Err(KEY),
    }
}

/// Returns the verifier for an RSA key, which signs by PKCS#1 v1.5 or PSS. A PSS key signs only by PSS (RFC 4055 1.2).
fn rsa(key: &SubjectPublicKeyInfo<'_>, signature: &AlgorithmIdentifier<'_>) -> Result<Option<Verifier>, &'static str> {
    let octets = key.octets().ok_or(KEY)?;
    let bits = match RsaParameters::public_modulus_len(octets) {
        Ok(bits) if RSA_BITS.contains(&bits) => bits,
        Err(_) if !has_large_exponent(octets) => return Err(KEY),
        _ => return Ok(None), // not supported by aws-lc-rs
    };
    if signature.algorithm == OID_PKCS1_RSASSAPSS {
        return pss(signature.parameters.as_ref(), bits);
    }
    if key.algorithm.algorithm == OID_PKCS1_RSASSAPSS {
        return Err(ALGORITHM);
    }
    let found = find(PKCS1, &signature.algorithm)?;
    // aws-lc-rs does not support SHA-384 with smaller keys.
    let is_unsupported = bits < 2_048 && signature.algorithm == OID_PKCS1_SHA384WITHRSA;
    Ok(found.filter(|_| !is_unsupported))
}

/// Returns whether an RSA key has a valid exponent (RFC 8017 3.1) that aws-lc-rs does not support: over 33 bits.
fn has_large_exponent(key: &[u8]) -> bool {
    let Ok([modulus, exponent]) = only(key).and_then(|key| members(&key)) else {
        return false;
    };
    let (Some(modulus), Some(exponent)) = (magnitude(&modulus), magnitude(&exponent)) else {
        return false;
    };
    let is_below_modulus = (exponent.len(), exponent) < (modulus.len(), modulus);
    let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
    let is_large = exponent.len() > 5 || exponent.len() == 5 && exponent[0] > 1;
    is_below_modulus && is_odd && is_large
}

/// Returns the verifier for RSASSA-PSS (RFC 4055 3.1). aws-lc-rs does not support other salt lengths, a mask generated
/// with another hash, and keys below 2,048 bits.
fn pss(parameters: Option<&Any<'_>>, bits: u32) -> Result<Option<Verifier>, &'static str> {
    let parameters = parameters.ok_or(ALGORITHM)?;
    let parameters = RsaSsaPssParams::try_from(parameters).map_err(|_| ALGORITHM)?;
    let mask = parameters.mask_gen_algorithm().map_err(|_| ALGORITHM)?;
    let hash = parameters.hash_algorithm_oid();
    let known = |hash: &Oid<'_>| OTHER_PSS_HASHES.contains(hash) || PSS.iter().any(|pss| pss.hash == *hash);
    if mask.mgf != MGF1 || !known(&mask.hash) || !known(hash) || parameters.trailer_field() != 1 {
        return Err(ALGORITHM);
    }
    let Some(pss) = PSS.iter().find(|pss| pss.hash == *hash) else {
        return Ok(None);
    };
    // emLen - hLen - 2, where emLen holds all bits of the modulus except one (RFC 8017 9.1.1).
    let max_salt = ((bits + 6) / 8).saturating_sub(pss.digest_bytes + 2);
    match parameters.salt_length() {
        salt if salt > max_salt => Err(SIGNATURE),
        _ if bits < 2_048 || mask.hash != *hash => Ok(None),
        salt if salt == pss.digest_bytes => Ok(Some(pss.digest_salt)),
        salt if salt == max_salt => Ok(Some(pss.max_salt)),
        _ => Ok(None),
    }
}

/// Returns the verifier of the algorithm `name`.
fn find(algorithms: Algorithms, name: &Oid<'_>) -> Result<Option<Verifier>, &'static str> {
    let found = algorithms.iter().find(|(oid, _)| oid == name);
    found.map(|(_, verifier)| *verifier).ok_or(ALGORITHM)
}
