//! Whether a request names its server by something that is not in DNS: the protection against DNS rebinding.

use std::net::IpAddr;

use http::{Request, header::HOST, uri::Authority};

/// Returns whether a request names its server by IP address or as localhost.
///
/// A name in DNS may be that of an attacker, who lets it resolve to the gateway after a browser has loaded a script from it
/// (DNS rebinding). The browser then takes the gateway for the origin of the script.
pub(super) fn has_local_host<B>(request: &Request<B>) -> bool {
    let in_header = || request.headers().get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let Some(authority) = request.uri().authority().cloned().or_else(in_header) else { return false };
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use http::{Request, header::HOST};

    use super::has_local_host;

    #[test]
    fn only_addresses_and_localhost_are_local_hosts() {
        for (host, expected) in [
            ("127.0.0.1:9464", true),
            ("10.1.2.3", true),
            ("[::1]:9464", true),
            ("localhost:9464", true),
            ("LOCALHOST", true),
            ("attacker.example", false),
            ("attacker.example:9464", false),
            ("localhost.attacker.example", false),
            ("127.0.0.1.attacker.example", false),
            ("127.0.0.1@attacker.example", false),
            ("gateway", false),
            ("", false),
            ("::1", false),
        ] {
            let request = Request::get("/status").header(HOST, host).body(()).unwrap();
            assert_eq!(has_local_host(&request), expected, "{host}");
        }
        assert!(!has_local_host(&Request::get("/status").body(()).unwrap()), "without a host");
        let absolute = Request::get("http://attacker.example/status").header(HOST, "127.0.0.1").body(()).unwrap();
        assert!(!has_local_host(&absolute), "the target overrides the header (RFC 9112 3.2.2)");
    }
}
