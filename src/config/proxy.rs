//! The HTTP proxy for connections to SCM and STS.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::endpoint::{Endpoint, split};
use super::reader::{Raw, settings};

/// The HTTP proxy for connections to SCM and STS.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// The address.
    pub endpoint: Endpoint,
    /// The value of `Proxy-Authorization`, if the URL has a user.
    pub authorization: Option<SecretString>,
}

/// Formats the proxy for the settings, without user and password.
pub(super) fn shown(raw: &Raw) -> String {
    raw.text("a URL").map_or_else(|_| "[REDACTED]".to_owned(), settings::shown_url)
}

/// Parses the URL of the proxy.
pub(super) fn parse(raw: &Raw) -> Result<Proxy, String> {
    const EXPECTS: &str = "a URL such as \"http://proxy.example:3128\", perhaps with user:password@ before the host";
    let (user_info, endpoint) = split(raw.text(EXPECTS)?).map_err(|reason| format!("expects {EXPECTS}: {reason}"))?;
    let authorization = user_info.filter(|user_info| !user_info.is_empty()).map(basic_authorization).transpose()?;
    Ok(Proxy { endpoint, authorization })
}

/// Returns the `Basic` credentials for the user information of a URL. Its octets need not be UTF-8.
fn basic_authorization(user_info: &str) -> Result<SecretString, String> {
    if !is_user_info(user_info) {
        return Err("expects user and password percent-encoded (`@` is %40, `/` is %2F, `%` is %25)".to_owned());
    }
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let user: Zeroizing<Vec<u8>> = Zeroizing::new(percent_decode_str(user).collect());
    let password: Zeroizing<Vec<u8>> = Zeroizing::new(percent_decode_str(password).collect());
    if user.contains(&b':') {
        return Err("expects a user without `:` (%3A), which would end the user's name".to_owned());
    }
    if user.iter().chain(&*password).any(u8::is_ascii_control) {
        return Err("expects user and password without control characters (%00 to %1F, %7F)".to_owned());
    }
    let credentials = Zeroizing::new([&*user, b":".as_slice(), &*password].concat());
    Ok(SecretString::from(format!("Basic {}", BASE64_STANDARD.encode(&*credentials))))
}

/// Returns whether a text is valid user information (RFC 3986 section 3.2.1).
fn is_user_info(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:".contains(&byte);
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return true,
            [b'%', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => tail,
            [byte, tail @ ..] if plain(*byte) => tail,
            _ => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn proxies_may_use_http_and_a_password() {
        let parse = |text: &str| super::parse(&Raw::Variable(text.to_owned()));
        let table: [(&str, &str, Option<&[u8]>); 10] = [
            ("http://proxy.example:3128", "http://proxy.example:3128", None),
            ("http://@proxy.example", "http://proxy.example", None),
            ("https://u:p%40ss!@10.0.0.1:3128/", "https://10.0.0.1:3128", Some(b"u:p@ss!")),
            ("http://u@[2001:db8::1]", "http://[2001:db8::1]", Some(b"u:")),
            ("http://:p@proxy", "http://proxy", Some(b":p")),
            ("http://u:p:q@proxy", "http://proxy", Some(b"u:p:q")),
            ("http://u:p%E4ss@proxy", "http://proxy", Some(b"u:p\xe4ss")),
            ("http://%FF:%C3%A4%e4@proxy", "http://proxy", Some(b"\xff:\xc3\xa4\xe4")),
            ("http://a%20b:%80%9F@proxy", "http://proxy", Some(b"a b:\x80\x9f")),
            ("http://u:%25E4@proxy", "http://proxy", Some(b"u:%E4")),
        ];
        for (text, endpoint, credentials) in table {
            let proxy = parse(text).expect(text);
            let authorization = proxy.authorization.as_ref().map(|value| value.expose_secret().to_owned());
            let expected = credentials.map(|octets| format!("Basic {}", BASE64_STANDARD.encode(octets)));
            assert_eq!((proxy.endpoint.to_string().as_str(), authorization), (endpoint, expected), "{text:?}");
        }
        for text in ["proxy:3128", "socks5://proxy", "http://u@", "http://p/a"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        for (text, problem) in [
            ("http://u:p@ss@proxy", "percent-encoded"),
            ("http://u:100%@proxy", "percent-encoded"),
            ("http://u:%4@proxy", "percent-encoded"),
            ("http://u:p\u{e4}ss@proxy", "percent-encoded"),
            ("http://a%3Ab:p@proxy", "%3A"),
            ("http://u:p%0D%0Aq@proxy", "control characters"),
            ("http://u%00:p@proxy", "control characters"),
            ("http://u:%7F@proxy", "control characters"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }
}
