//! Parses the identity of a caller: a URI, a DNS name, or a user of this machine. The three formats are disjoint.

/// The largest length of an identity in bytes, which is that of a SPIFFE ID.
const MAX_IDENTITY: usize = 2048;

/// Returns a URI as an identity, unchanged. A DNS name is not a URI, because it has no scheme.
pub fn uri(text: &str) -> Option<String> {
    let fits = text.len() <= MAX_IDENTITY && text.bytes().all(|byte| byte.is_ascii_graphic());
    let (scheme, rest) = text.split_once(':')?;
    (fits && !scheme.is_empty() && !rest.is_empty()).then(|| text.to_owned())
}

/// Returns a DNS name as an identity, in lower case.
pub fn dns_name(text: &str) -> Option<String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
    ((1..=253).contains(&text.len()) && text.bytes().all(is_part)).then(|| text.to_ascii_lowercase())
}

/// The id that Linux reports for every user without a mapping in the user namespace (user_namespaces(7)).
const OVERFLOW_UID: u32 = 65_534;

/// Returns a user of this machine as an identity.
pub fn user(id: u32) -> Option<String> {
    (id != OVERFLOW_UID).then(|| format!("uid:{id}"))
}

#[cfg(test)]
mod tests {
    use super::{dns_name, uri, user};

    #[test]
    fn the_overflow_user_has_no_identity() {
        assert_eq!(user(1000), Some("uid:1000".to_owned()));
        assert_eq!(user(65_534), None);
    }

    #[test]
    fn uris_and_dns_names_are_disjoint() {
        assert_eq!(uri("spiffe://example.org/ns/Web"), Some("spiffe://example.org/ns/Web".to_owned()));
        assert_eq!(dns_name("Orders.Example"), Some("orders.example".to_owned()));
        for invalid in ["", "orders.example", ":x", "x:", "spiffe://a b", "spiffe://é", "spiffe://a\n"] {
            assert_eq!(uri(invalid), None, "{invalid:?}");
        }
        assert_eq!(uri(&format!("x:{}", "a".repeat(2047))), None);
        for invalid in ["", "spiffe://x", "uid:0", "a b", "é", "a\0"] {
            assert_eq!(dns_name(invalid), None, "{invalid:?}");
        }
        assert_eq!(dns_name(&"a".repeat(254)), None);
    }
}
