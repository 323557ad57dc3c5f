//! Public keys: SubjectPublicKeyInfo (RFC 5280 4.1.2.7), and which of them are the same key.

use x509_parser::asn1_rs::{Any, BitString, Tag};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_RSASSAPSS,
    OID_SIG_ED25519,
};
use x509_parser::x509::AlgorithmIdentifier;

use super::der::{Problem, algorithm, bit_string, is, magnitude, members, only};

/// The encoding of a public key.
pub(super) struct SubjectPublicKeyInfo<'a> {
    pub(super) algorithm: AlgorithmIdentifier<'a>,
    bits: BitString<'a>,
}

impl<'a> SubjectPublicKeyInfo<'a> {
    pub(super) fn parse(value: &Any<'a>) -> Result<Self, Problem> {
        let [key_algorithm, bits] = members(value)?;
        Ok(Self { algorithm: algorithm(&key_algorithm)?, bits: bit_string(&bits)? })
    }

    /// Returns the key in the encoding of its algorithm, or `None` if it is not a number of octets.
    pub(super) fn octets(&self) -> Option<&[u8]> {
        octets(&self.bits)
    }

    /// Returns the key for comparisons, or `None` if it is invalid.
    pub(super) fn key(&self) -> Option<PublicKey> {
        PublicKey::new(Algorithm::of(&self.algorithm), self.octets().unwrap_or_default())
    }
}

/// Returns the content of a BIT STRING, or `None` if it has unused bits.
pub(super) fn octets<'a>(bits: &'a BitString<'_>) -> Option<&'a [u8]> {
    (bits.unused_bits == 0).then_some(bits.data.as_ref())
}

/// The type of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rsa,
    P256,
    P384,
    Ed25519,
    /// An elliptic curve with parameters instead of a name: any curve.
    UnnamedCurve,
    Other,
}

impl Algorithm {
    pub(super) fn of(identifier: &AlgorithmIdentifier<'_>) -> Self {
        let name = &identifier.algorithm;
        if *name == OID_PKCS1_RSAENCRYPTION || *name == OID_PKCS1_RSASSAPSS {
            Self::Rsa
        } else if *name == OID_SIG_ED25519 {
            Self::Ed25519
        } else if *name == OID_KEY_TYPE_EC_PUBLIC_KEY {
            Self::of_curve(identifier.parameters.as_ref())
        } else {
            Self::Other
        }
    }

    /// Returns the type of a key with these ECParameters (RFC 5480 2.1.1).
    pub(super) fn of_curve(parameters: Option<&Any<'_>>) -> Self {
        // `as_oid` accepts any type as an object identifier.
        let name = parameters.filter(|parameters| is(parameters, Tag::Oid));
        match name.and_then(|name| name.as_oid().ok()) {
            None => Self::UnnamedCurve,
            Some(curve) if curve == OID_EC_P256 => Self::P256,
            Some(curve) if curve == OID_NIST_EC_P384 => Self::P384,
            Some(_) => Self::Other,
        }
    }
}

/// A public key, as far as it is compared.
#[derive(PartialEq, Eq)]
pub(super) enum PublicKey {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    P256(Point),
    P384(Point),
    Ed25519(Vec<u8>),
    UnnamedCurve,
    /// Keys of other types are taken as equal.
    Other,
}

impl PublicKey {
    /// Returns the key with these octets of a SubjectPublicKeyInfo, or `None` if they are invalid.
    pub(super) fn new(algorithm: Algorithm, octets: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Rsa => {
                let [modulus, exponent] = members(&only(octets).ok()?).ok()?;
                Some(Self::Rsa { modulus: magnitude(&modulus)?.to_vec(), exponent: magnitude(&exponent)?.to_vec() })
            }
            Algorithm::P256 => Point::new(octets, 32).map(Self::P256),
            Algorithm::P384 => Point::new(octets, 48).map(Self::P384),
            Algorithm::Ed25519 => (octets.len() == 32).then(|| Self::Ed25519(octets.to_vec())),
            Algorithm::UnnamedCurve => Some(Self::UnnamedCurve),
            Algorithm::Other => Some(Self::Other),
        }
    }

    /// Returns whether the keys are the same, or of types that are not compared.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let may_be_elliptic = |key: &Self| !matches!(key, Self::Rsa { .. } | Self::Ed25519(_));
        match (self, other) {
            (Self::UnnamedCurve, other) | (other, Self::UnnamedCurve) => may_be_elliptic(other),
            _ => self == other,
        }
    }
}

/// A point on an elliptic curve, compressed or not (SEC 1 2.3.3).
pub(super) struct Point(Vec<u8>);

impl Point {
    /// Returns the point, or `None` if it does not have the length for numbers of `size` bytes.
    fn new(octets: &[u8], size: usize) -> Option<Self> {
        let is_point = match octets {
            [2 | 3, x @ ..] => x.len() == size,
            [4, both @ ..] => both.len() == 2 * size,
            _ => false,
        };
        is_point.then(|| Self(octets.to_vec()))
    }

    /// Returns the first byte of the compressed form, which has the last bit of y, and x.
    fn compressed(&self) -> Option<(u8, &[u8])> {
        let (form, rest) = self.0.split_first()?;
        match form {
            4 => Some((2 + (rest.last()? & 1), &rest[..rest.len() / 2])),
            form => Some((*form, rest)),
        }
    }
}

impl Eq for Point {}

impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        if self.0.len() == other.0.len() { self.0 == other.0 } else { self.compressed() == other.compressed() }
    }
}
