//! What may be a caller's identity: a URI, a DNS name, or a user of this machine, none of which passes for another.

/// The longest identity: a SPIFFE ID is no longer.
const LONGEST: usize = 2048;

/// A URI as an identity: as it stands. It has a scheme, so no DNS name passes for one.
pub fn uri(text: &str) -> Option<String> {
    let fits = text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic());
    let (scheme, rest) = text.split_once(':')?;
    (fits && !scheme.is_empty() && !rest.is_empty()).then(|| text.to_owned())
}

/// A DNS name as an identity: in lower case.
pub fn dns_name(text: &str) -> Option<String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
    ((1..=253).contains(&text.len()) && text.bytes().all(is_part)).then(|| text.to_ascii_lowercase())
}

/// What Linux tells of users that a user namespace does not know, all of them alike (user_namespaces(7)).
const OVERFLOW: u32 = 65_534;

/// A user of this machine as an identity.
pub fn user(id: u32) -> Option<String> {
    (id != OVERFLOW).then(|| format!("uid:{id}"))
}

#[cfg(test)]
mod tests {
    use super::{dns_name, uri, user};

    #[test]
    fn the_user_that_stands_for_unknown_ones_is_nobody() {
        assert_eq!(user(1000), Some("uid:1000".to_owned()));
        assert_eq!(user(65_534), None);
    }

    #[test]
    fn a_uri_and_a_dns_name_are_never_mistaken_for_each_other() {
        assert_eq!(uri("spiffe://example.org/ns/Web"), Some("spiffe://example.org/ns/Web".to_owned()));
        assert_eq!(dns_name("Orders.Example"), Some("orders.example".to_owned()));
        for bad in ["", "orders.example", ":x", "x:", "spiffe://a b", "spiffe://é", "spiffe://a\n"] {
            assert_eq!(uri(bad), None, "{bad:?}");
        }
        assert_eq!(uri(&format!("x:{}", "a".repeat(2047))), None);
        for bad in ["", "spiffe://x", "uid:0", "a b", "é", "a\0"] {
            assert_eq!(dns_name(bad), None, "{bad:?}");
        }
        assert_eq!(dns_name(&"a".repeat(254)), None);
    }
}
