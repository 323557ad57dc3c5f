//! The URLs of SCM, STS, the proxy and the metadata service, parsed literally, so that the signed host is the host that
//! is sent.
//!
//! A general URL parser would rewrite hosts such as `0x7f.1`, `EXAMPLE.com` or `host:443`, but they must not differ
//! between signature and request. This parser accepts plain hosts only.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::{
    Uri,
    uri::{Authority, Scheme},
};

use super::reader::{Origin, Raw, Section};

/// The regions with SCM; the first is the default. See the vendor's list of regions and endpoints.
const REGIONS: [&str; 3] = ["cn-north-4", "ap-southeast-1", "my-kualalumpur-1"];

/// The scheme and authority of a server, exactly as they are sent.
///
/// Displays without a path: `https://scm.cn-north-4.myhuaweicloud.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    host: Arc<str>,
    port: u16,
    authority: Authority,
}

impl Endpoint {
    /// Returns whether the scheme is `https`. An `http` endpoint of SCM is a loopback address.
    pub fn https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Returns the `host` header: the host in lower case, IPv6 in brackets, and the port unless it is the scheme's
    /// default.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// Returns the URI of a path with its query.
    pub fn uri(&self, path_and_query: String) -> http::Result<Uri> {
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        uri.path_and_query(path_and_query).build()
    }

    /// Returns the host in lower case, an IPv6 address without brackets.
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// Returns the port, or the default of the scheme.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the region that the host names, as in `scm.cn-north-4.myhuaweicloud.com`.
    pub fn region(&self) -> Option<&str> {
        let (region, _) = self.host.strip_prefix("scm.")?.split_once(".myhuaweicloud.")?;
        (!region.contains('.')).then_some(region)
    }

    /// Returns the endpoint of a service in a region.
    pub(super) fn of_region(service: &str, region: &str) -> Self {
        Self::new(true, format!("{service}.{region}.myhuaweicloud.com"), None)
    }

    fn new(https: bool, host: String, port: Option<u16>) -> Self {
        let default_port = if https { 443 } else { 80 };
        let port = port.unwrap_or(default_port);
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = if port == default_port { bracketed } else { format!("{bracketed}:{port}") };
        let authority = Authority::try_from(authority).expect("a host and a port are an authority");
        let scheme = if https { Scheme::HTTPS } else { Scheme::HTTP };
        Self { scheme, host: host.into(), port, authority }
    }

    pub(super) fn is_loopback(&self) -> bool {
        &*self.host == "localhost"
            || self.host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
            || self.host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Returns whether the host is a loopback or link-local address.
    pub fn is_on_this_link(&self) -> bool {
        self.is_loopback()
            || self.host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_link_local())
            || self.host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_unicast_link_local())
    }
}

/// The endpoint of SCM, and the region if `region` selects it.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) endpoint: Endpoint,
    pub(super) region: Option<&'static str>,
}

impl Site {
    fn of_region(region: &'static str) -> Self {
        Self { endpoint: Endpoint::of_region("scm", region), region: Some(region) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// Reads `region` or `endpoint`. Returns `None` if both are missing or invalid.
pub(super) fn read(section: &mut Section<'_>) -> Option<Site> {
    let from_region = section.optional("region", region);
    let from_endpoint = section.optional("endpoint", endpoint).map(|endpoint| Site { endpoint, region: None });
    match (section.origin("region"), section.origin("endpoint")) {
        (Some(region), Some(endpoint)) if region == endpoint => {
            section.problem("endpoint", "is set in addition to `region`; set only one of the two");
            None
        }
        // A variable overrides the other key of the file too, because a variable cannot unset a key of the file.
        (Some(Origin::Variable), _) => {
            section.mark_overridden("endpoint");
            from_region
        }
        (_, Some(_)) => {
            section.mark_overridden("region");
            from_endpoint
        }
        _ => from_region,
    }
}

/// Returns the default region and its endpoint.
pub(super) fn default(section: &mut Section<'_>) -> Site {
    section.record_default("region", &Raw::Variable(REGIONS[0].to_owned()));
    Site::of_region(REGIONS[0])
}

fn region(raw: &Raw) -> Result<Site, String> {
    let known = REGIONS.join(", ");
    let text = raw.text(&format!("one of {known}"))?;
    let region = REGIONS.iter().find(|region| **region == text);
    region
        .map(|region| Site::of_region(region))
        .ok_or_else(|| format!("expects one of {known}; for another region set `endpoint` instead"))
}

fn endpoint(raw: &Raw) -> Result<Endpoint, String> {
    of_vendor(raw, "a URL such as \"https://scm.cn-north-4.myhuaweicloud.com\"")
}

/// Parses the URL of STS.
pub(super) fn sts(raw: &Raw) -> Result<Endpoint, String> {
    of_vendor(raw, "a URL such as \"https://sts.cn-north-4.myhuaweicloud.com\"")
}

/// Parses the URL of a service of the vendor, which gets secrets.
fn of_vendor(raw: &Raw, expects: &str) -> Result<Endpoint, String> {
    let (user_info, endpoint) = split(raw.text(expects)?).map_err(|reason| format!("expects {expects}: {reason}"))?;
    if user_info.is_some() {
        return Err(format!("expects {expects}, without a user"));
    }
    if !endpoint.https() && !endpoint.is_loopback() {
        return Err("expects https://; http:// is for loopback addresses only".to_owned());
    }
    Ok(endpoint)
}

/// Parses the address of the metadata service. It has no TLS, so it must be on the same link or machine.
pub(super) fn metadata(raw: &Raw) -> Result<Endpoint, String> {
    const EXPECTS: &str = "a URL such as \"http://169.254.169.254\"";
    let (user_info, endpoint) = split(raw.text(EXPECTS)?).map_err(|reason| format!("expects {EXPECTS}: {reason}"))?;
    if user_info.is_some() || endpoint.https() || !endpoint.is_on_this_link() {
        return Err(format!("expects {EXPECTS}: http:// and a link-local or loopback address"));
    }
    Ok(endpoint)
}

/// Parses a host without a port: a DNS name or an IP address, an IPv6 address with or without brackets.
pub(super) fn host(raw: &Raw) -> Result<String, String> {
    const EXPECTS: &str = "a host such as \"agent.example\", without scheme, port and path";
    let text = raw.text(EXPECTS)?;
    let address = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let host = match address {
        Some(address) => ipv6(address),
        None if text.matches(':').count() > 1 => ipv6(text),
        None => name_or_ipv4(text),
    };
    host.map_err(|reason| format!("expects {EXPECTS}: {reason}"))
}

/// Parses `scheme://[user@]host[:port][/]` into user and endpoint. The error never contains the text.
pub(super) fn split(text: &str) -> Result<(Option<&str>, Endpoint), &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("it begins with https:// or http://")?;
    let https = scheme.eq_ignore_ascii_case("https");
    if !https && !scheme.eq_ignore_ascii_case("http") {
        return Err("it begins with https:// or http://");
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '\\']) {
        return Err("no path, query or fragment may follow the host");
    }
    let (user_info, authority) = match rest.rsplit_once('@') {
        Some((user_info, authority)) => (Some(user_info), authority),
        None => (None, rest),
    };
    let (host, port) = host_and_port(authority)?;
    Ok((user_info, Endpoint::new(https, host, port)))
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), &'static str> {
    const BAD_PORT: &str = "a port is a number from 1 to 65535";
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("the bracket is not closed")?;
        (ipv6(host)?, port)
    } else {
        let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        (name_or_ipv4(host)?, port)
    };
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = port.strip_prefix(':').filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let port = digits.and_then(|digits| digits.parse().ok()).filter(|port| *port != 0);
    port.map(|port| (host, Some(port))).ok_or(BAD_PORT)
}

fn ipv6(host: &str) -> Result<String, &'static str> {
    let ip: Ipv6Addr = host.parse().map_err(|_| "expects an IPv6 address in the brackets")?;
    // Clients format these differently: `::ffff:127.0.0.1` or `::ffff:7f00:1`.
    if ip.to_ipv4_mapped().is_some() {
        return Err("write an IPv4-mapped address as IPv4");
    }
    Ok(ip.to_string())
}

fn name_or_ipv4(host: &str) -> Result<String, &'static str> {
    let host = host.to_ascii_lowercase();
    if !host.is_ascii() || host.split('.').any(|label| label.starts_with("xn--")) {
        return Err("internationalised host names are not supported");
    }
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
    };
    if host.len() > 253 || !host.split('.').all(is_label) {
        return Err("the host is a DNS name or an IP address");
    }
    // URL parsers treat a name whose last label is a number as an IPv4 address in a legacy format.
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err("an IPv4 address has four decimal numbers");
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Endpoint, String> {
        endpoint(&Raw::Variable(text.to_owned()))
    }

    #[test]
    fn endpoints_are_normalized() {
        let table = [
            ("https://scm.example", "https://scm.example", "scm.example", 443),
            ("HTTPS://SCM.Example:443/", "https://scm.example", "scm.example", 443),
            ("https://scm.example:0443", "https://scm.example", "scm.example", 443),
            ("https://scm.example:80", "https://scm.example:80", "scm.example", 80),
            ("https://[2001:DB8:0::1]:8443", "https://[2001:db8::1]:8443", "2001:db8::1", 8443),
            ("http://localhost:80", "http://localhost", "localhost", 80),
            ("http://127.1.2.3:443", "http://127.1.2.3:443", "127.1.2.3", 443),
            ("http://[::1]", "http://[::1]", "::1", 80),
        ];
        for (text, shown, host, port) in table {
            let endpoint = parse(text).expect(text);
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!((&**endpoint.host(), endpoint.port()), (host, port));
            assert_eq!(shown.split_once("://").map(|(_, authority)| authority), Some(endpoint.authority()));
            assert_eq!(endpoint.https(), shown.starts_with("https:"));
            assert_eq!(parse(&endpoint.to_string()).as_ref(), Ok(&endpoint));
        }
    }

    #[test]
    fn plain_http_is_limited_to_loopback() {
        for text in ["http://scm.example", "http://10.0.0.1", "http://localhost.example", "http://[2001:db8::1]"] {
            assert_eq!(parse(text), Err("expects https://; http:// is for loopback addresses only".to_owned()));
        }
    }

    #[test]
    fn ambiguous_endpoints_are_rejected() {
        let authorities = [
            "",
            ":443",
            "user@scm.example",
            "user:password@scm.example",
            "scm.example/v3",
            "scm.example//",
            "scm.example?a",
            "scm.example?",
            "scm.example#a",
            "scm.example\\a",
            "scm.example:",
            "scm.example:0",
            "scm.example:65536",
            "scm.example:+443",
            "scm.example:443:443",
            "scm..example",
            "scm.example.",
            "-scm.example",
            "scm_a.example",
            "scm.ex%61mple",
            "scm example",
            " scm.example",
            "scm.example\n",
            "schön.example",
            "xn--schn-7qa.example",
            "1.2.3",
            "127.1",
            "0x7f.1",
            "1.2.3.04",
            "2130706433",
            "a.0x1",
            "[::1",
            "[::1]443",
            "[::ffff:127.0.0.1]",
            "[fe80::1%25eth0]",
            "::1",
        ];
        for text in authorities.map(|authority| format!("https://{authority}")) {
            assert!(parse(&text).is_err(), "{text:?}");
        }
        for text in ["", "scm.example", "scm.example:443", "//scm.example", "ftp://scm.example", "https:/scm.example"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn known_regions_have_an_endpoint() {
        for name in REGIONS {
            let Site { endpoint, region } = region(&Raw::Variable(name.to_owned())).expect(name);
            assert_eq!((endpoint.region(), region), (Some(name), Some(name)));
            assert_eq!(endpoint.to_string(), format!("https://scm.{name}.myhuaweicloud.com"));
            assert_eq!(parse(&endpoint.to_string()), Ok(endpoint));
        }
        let error = region(&Raw::Variable("eu-west-0".to_owned())).expect_err("the region is unknown");
        assert!(REGIONS.iter().all(|region| error.contains(region)) && error.contains("`endpoint`"));
    }

    #[test]
    fn hosts_have_no_scheme_and_no_port() {
        let parse = |text: &str| host(&Raw::Variable(text.to_owned()));
        for (text, host) in [
            ("Agent.Example", "agent.example"),
            ("10.0.0.1", "10.0.0.1"),
            ("FD00::1", "fd00::1"),
            ("[fd00:0::1]", "fd00::1"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(host), "{text:?}");
        }
        for text in ["", "http://a", "a:80", "a/b", "u@a", "[::1", "[a]", "[::1]:80", "fe80::1%eth0", "a b", "*"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn metadata_endpoints_are_local_and_without_tls() {
        let parse = |text: &str| metadata(&Raw::Variable(text.to_owned()));
        for text in ["http://169.254.169.254", "http://169.254.169.254:80/", "http://127.0.0.1:1", "http://[::1]:1"] {
            assert!(parse(text).is_ok(), "{text:?}");
        }
        for text in [
            "",
            "169.254.169.254",
            "https://169.254.169.254",
            "http://10.0.0.1",
            "http://metadata",
            "http://u@127.0.0.1",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
