//! Tests of keys, hashes and signatures.

use super::*;

/// Requests with a verified signature.
const VERIFIED: &[(&str, &str)] = &[
    pem!("rsa_1024"),
    pem!("rsa_2048"),
    pem!("rsa_2048_sha1"),
    pem!("rsa_2048_sha384"),
    pem!("rsa_2048_sha512"),
    pem!("rsa_4096"),
    pem!("rsa_exponent_33_bits"),
    pem!("pss_max_salt"),
    pem!("pss_max_salt_sha512"),
    pem!("pss_digest_salt"),
    pem!("pss_digest_salt_sha384"),
    pem!("pss_key"),
    pem!("p256_sha1"),
    pem!("p256_sha256"),
    pem!("p256_sha384"),
    pem!("p256_sha512"),
    pem!("p384_sha256"),
    pem!("p384_sha384"),
    pem!("p384_sha512"),
    pem!("ed25519"),
];

/// Requests whose signature cannot be verified here.
const UNVERIFIED: &[(&str, &str)] = &[
    pem!("rsa_1024_sha384"),
    pem!("rsa_large_exponent"),
    pem!("rsa_2048_sha224"),
    pem!("rsa_2048_sha3"),
    pem!("pss_salt_20"),
    pem!("pss_sha1"),
    pem!("pss_other_mgf"),
    pem!("pss_1024"),
    pem!("p256_sha224"),
    pem!("p256_sha3_256"),
    pem!("p521"),
    pem!("secp256k1"),
    pem!("ed448"),
    pem!("dsa"),
    pem!("sm2"),
];

#[test]
fn common_keys_and_hashes_are_accepted() {
    for (name, pem) in VERIFIED.iter().chain(UNVERIFIED) {
        assert_eq!(check(pem, Some(DOMAIN)), Ok(()), "{name}");
    }
}

#[test]
fn changed_signatures_are_rejected_if_verified() {
    for (name, text) in VERIFIED {
        let der = der(text);
        let changed = pem(&flipped(&der, der.len() - 1));
        assert_eq!(check(&changed, Some(DOMAIN)), Err(SIGNATURE), "{name}");
    }
    for (name, text) in UNVERIFIED {
        let der = der(text);
        let changed = pem(&flipped(&der, der.len() - 1));
        assert_eq!(check(&changed, Some(DOMAIN)), Ok(()), "{name}");
    }
}

#[test]
fn a_changed_common_name_invalidates_the_signature() {
    for (name, text) in VERIFIED {
        let changed = pem(&replaced(&der(text), b"www.example.com", b"wwx.example.com"));
        assert_eq!(check(&changed, Some("wwx.example.com")), Err(SIGNATURE), "{name}");
        assert_eq!(check(&changed, None), Err(SIGNATURE), "{name}");
    }
}

#[test]
fn signatures_of_another_key_are_rejected() {
    let key_pair = rcgen::KeyPair::generate().unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![DOMAIN.to_owned()]).unwrap();
    let request = params.serialize_request(&key_pair).unwrap();
    let key = key_pair.public_key_raw().to_vec();
    let changed = replaced(request.der(), &key, other.public_key_raw());
    assert_eq!(check(&pem(request.der()), Some(DOMAIN)), Ok(()));
    assert_eq!(check(&pem(&changed), Some(DOMAIN)), Err(SIGNATURE));
}

// The object identifiers that the next test replaces.
const SHA256_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

#[test]
fn signatures_with_another_algorithm_are_rejected() {
    // PSS has no parameters here, SHA-512/256 and MD5 are not verified, Ed25519 and ECDSA do not fit an RSA key.
    let mut with = SHA256_WITH_RSA.to_vec();
    for (last, expected) in [
        (0x0c, SIGNATURE),
        (0x0d, SIGNATURE),
        (0x05, SIGNATURE),
        (0x0a, ALGORITHM),
        (0x01, ALGORITHM),
        (0x63, ALGORITHM),
    ] {
        with[8] = last;
        assert_eq!(check(&pem(&replaced(&der(RSA), SHA256_WITH_RSA, &with)), Some(DOMAIN)), Err(expected), "{last}");
    }
    let mut with = ECDSA_WITH_SHA256.to_vec();
    for (last, expected) in [(0x03, SIGNATURE), (0x04, SIGNATURE), (0x05, ALGORITHM), (0x00, ALGORITHM)] {
        with[7] = last;
        assert_eq!(check(&pem(&replaced(&der(P256), ECDSA_WITH_SHA256, &with)), Some(DOMAIN)), Err(expected), "{last}");
    }
    // dsa-with-sha1 is one byte shorter, so an invented child of its arc is used.
    let dsa = [0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x03, 0x02];
    assert_eq!(check(&pem(&replaced(&der(P256), ECDSA_WITH_SHA256, &dsa)), Some(DOMAIN)), Err(ALGORITHM));
    let ed448 = replaced(&der(pem!("ed25519").1), &[0x06, 0x03, 0x2b, 0x65, 0x70], &[0x06, 0x03, 0x2b, 0x65, 0x71]);
    assert_eq!(check(&pem(&ed448), Some(DOMAIN)), Err(ALGORITHM));
}

#[test]
fn salts_too_long_for_the_key_are_rejected() {
    let longer = replaced(&der(pem!("pss_max_salt").1), &[0x02, 0x02, 0x00, 0xde], &[0x02, 0x02, 0x00, 0xdf]);
    assert_eq!(check(&pem(&longer), Some(DOMAIN)), Err(SIGNATURE));
}

#[test]
fn invalid_exponents_are_rejected() {
    let (_, large) = pem!("rsa_large_exponent");
    // 2^33 + 17, as the last member of the key: an odd number below the modulus.
    let exponent = [0x02, 0x05, 0x02, 0x00, 0x00, 0x00, 0x11];
    for invalid in [
        [0x02, 0x05, 0x02, 0x00, 0x00, 0x00, 0x10], // even
        [0x02, 0x05, 0x00, 0x00, 0x00, 0x00, 0x01], // 1
        [0x02, 0x05, 0x82, 0x00, 0x00, 0x00, 0x11], // negative
        [0x02, 0x06, 0x02, 0x00, 0x00, 0x00, 0x11], // incomplete
        [0x02, 0x01, 0x03, 0x02, 0x02, 0x00, 0x11], // a third member
        [0x04, 0x05, 0x02, 0x00, 0x00, 0x00, 0x11], // not an INTEGER
    ] {
        assert_eq!(check(&pem(&replaced(&der(large), &exponent, &invalid)), Some(DOMAIN)), Err(KEY), "{invalid:?}");
    }
    let request = der(large);
    let at = request.windows(exponent.len()).rposition(|window| window == exponent).unwrap();
    // The modulus has four bytes of tag and length, a zero, and 2,048 bits.
    let modulus = &request[at - 261..at];
    let swapped = replaced(&request, &[modulus, &exponent].concat(), &[&exponent, modulus].concat());
    assert_eq!(check(&pem(&swapped), Some(DOMAIN)), Err(KEY), "larger than the modulus");
}

#[test]
fn unsupported_signatures_are_not_checked() {
    for (name, text) in [pem!("rsa_768"), pem!("rsa_2048_md5"), pem!("p256_explicit")] {
        assert_eq!(check(text, Some(DOMAIN)), Ok(()), "{name}");
    }
}

#[test]
fn changed_signed_bytes_are_rejected() {
    let request = der(pem!("ed25519").1);
    let accepted: Vec<usize> =
        (0..request.len()).filter(|at| check(&pem(&flipped(&request, *at)), Some(DOMAIN)).is_ok()).collect();
    // Only a changed type of the key is accepted, because unknown types are not verified.
    let key_type = request.windows(3).position(|three| three == [0x2b, 0x65, 0x70]).unwrap();
    assert!(accepted.iter().all(|at| (key_type..key_type + 3).contains(at)), "{accepted:?}");
}
