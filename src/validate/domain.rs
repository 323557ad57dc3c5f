//! Validates host names and converts them to the ASCII form that is sent.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr},
};

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

/// The largest input in bytes. Longer than every name of 253 characters in UTF-8, in any script. A longer input costs
/// nothing.
const MAX_INPUT: usize = 1024;
/// The largest lengths of a name and a label (RFC 1123 2.1, RFC 1035 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;
/// The separators of labels (UTS #46 2.3). Chinese and Japanese keyboards produce other dots.
const DOTS: [char; 4] = ['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'];
/// The prefix of an A-label (RFC 5890 2.3.2.1), in any case.
const ACE_PREFIX: &str = "xn--";
const WILDCARD_LABEL: &str = "*.";

/// Quotation marks and apostrophes, straight and typographic. UTS #46 accepts most of them in labels.
pub(crate) const QUOTATION_MARKS: [char; 29] = [
    '"', '\'', '`', '\u{b4}', '\u{ab}', '\u{bb}', '\u{2018}', '\u{2019}', '\u{201a}', '\u{201b}', '\u{201c}',
    '\u{201d}', '\u{201e}', '\u{201f}', '\u{2032}', '\u{2033}', '\u{2039}', '\u{203a}', '\u{3008}', '\u{3009}',
    '\u{300a}', '\u{300b}', '\u{300c}', '\u{300d}', '\u{300e}', '\u{300f}', '\u{301d}', '\u{301e}', '\u{ff02}',
];
/// Dashes that look like a hyphen. UTS #46 accepts them in labels.
pub(crate) const DASHES: [char; 7] =
    ['\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}', '\u{2015}', '\u{2212}'];

const QUOTED: &str = "must not contain quotation marks, straight or typographic, such as a copied text has";
const DASH: &str = "must have plain hyphens (-) in place of typographic dashes, such as a copied text has";
const REQUIRED: &str = "is required: a host name such as www.example.com";
const TOO_LONG: &str = "must be at most 253 characters long in all, in its ASCII form";
const WHITESPACE: &str = "must not contain whitespace or control characters";
pub(super) const IP: &str = "must be a host name, not an IP address";
const BARE: &str = "must be a host name alone, without scheme, user, port or path, such as www.example.com";
const TRAILING: &str = "must not end in a dot: leave it out";
const TWO_LABELS: &str = "must be a host name of at least two labels, such as www.example.com";
const WILDCARD: &str = "must have a wildcard only as its whole first label, as in *.example.com";
const LABEL: &str = "must consist of labels of 1 to 63 letters, digits and hyphens, \
     none beginning or ending in a hyphen";
pub(super) const DIGITS: &str = "must not end in a label of digits only";
const UNICODE: &str = "must be a valid internationalized name, in its Unicode or xn-- form, \
     with at most 63 characters per label in the xn-- form";

/// Converts a host name to the form that is sent: U-labels become A-labels, plain ASCII labels stay unchanged. The
/// result is a name of LDH labels, with a leading `*.` if `value` has one.
pub(crate) fn to_ascii(value: &str) -> Result<Cow<'_, str>, &'static str> {
    let is_quoted = |problem| problem != TOO_LONG && value.contains(QUOTATION_MARKS);
    convert(value).map_err(|problem| if is_quoted(problem) { QUOTED } else { problem })
}

/// Returns the IPv4 address in dotted decimal, without leading zeros.
pub(super) fn ipv4(value: &str) -> Option<Ipv4Addr> {
    value.parse().ok()
}

fn convert(value: &str) -> Result<Cow<'_, str>, &'static str> {
    let (wildcard, name) = value.split_at(if value.starts_with(WILDCARD_LABEL) { WILDCARD_LABEL.len() } else { 0 });
    // An A-label has two hyphens.
    if value.len() <= MAX_NAME && !name.as_bytes().windows(2).any(|pair| pair == b"--") && check_ldh(name).is_ok() {
        return Ok(value.into());
    }
    check_plausible(value)?;
    let sent = match labels_to_ascii(name)? {
        Cow::Borrowed(_) => Cow::Borrowed(value),
        Cow::Owned(name) => Cow::Owned([wildcard, &name].concat()),
    };
    if sent.len() > MAX_NAME {
        return Err(TOO_LONG);
    }
    // Checks the result, so that an error in the conversion cannot produce an invalid name.
    check_ldh(&sent[wildcard.len()..])?;
    Ok(sent)
}

/// Rejects values that are obviously not a host name, with a specific message.
fn check_plausible(value: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        return Err(REQUIRED);
    }
    if value.len() > MAX_INPUT {
        return Err(TOO_LONG);
    }
    if value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(WHITESPACE);
    }
    let unbracketed = value.trim_start_matches('[').trim_end_matches(']');
    if unbracketed.parse::<IpAddr>().is_ok() {
        return Err(IP);
    }
    if value.contains([':', '/', '\\', '@', '?', '#', '[', ']']) {
        return Err(BARE);
    }
    if value.ends_with(DOTS) {
        return Err(TRAILING);
    }
    if value.strip_prefix(WILDCARD_LABEL).unwrap_or(value).contains('*') {
        return Err(WILDCARD);
    }
    Ok(())
}

/// Converts the U-labels of a name to A-labels and keeps the case of plain ASCII labels. Borrows a name that needs no
/// conversion.
fn labels_to_ascii(name: &str) -> Result<Cow<'_, str>, &'static str> {
    if name.split(DOTS).all(is_plain) {
        return Ok(if name.is_ascii() { name.into() } else { name.replace(DOTS, ".").into() });
    }
    if name.contains(QUOTATION_MARKS) {
        return Err(QUOTED);
    }
    if name.contains(DASHES) {
        return Err(DASH);
    }
    // The complete name at once, because the rule for right-to-left scripts covers all labels (RFC 5893 2).
    let ascii = Uts46::new()
        .to_ascii(name.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify)
        .map_err(|_| UNICODE)?;
    let original: Vec<&str> = name.split(DOTS).collect();
    let mapped: Vec<&str> = ascii.split('.').collect();
    // Some characters map to several, which may include a dot.
    if original.len() != mapped.len() {
        return Err(UNICODE);
    }
    if !mapped.iter().all(|label| is_plain(label) || decodes(label)) {
        return Err(UNICODE);
    }
    let labels = original.iter().zip(&mapped);
    let sent: Vec<&str> =
        labels.map(|(original, mapped)| if is_plain(original) { *original } else { *mapped }).collect();
    Ok(sent.join(".").into())
}

/// Returns whether a label is ASCII and not an A-label.
fn is_plain(label: &str) -> bool {
    label.is_ascii() && !label.get(..ACE_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(ACE_PREFIX))
}

/// Returns whether an A-label decodes to a U-label that encodes to the same A-label (RFC 5890 2.3.2.1).
fn decodes(label: &str) -> bool {
    let uts46 = Uts46::new();
    let deny = AsciiDenyList::STD3;
    let hyphens = Hyphens::CheckFirstLast;
    let (unicode, outcome) = uts46.to_unicode(label.as_bytes(), deny, hyphens);
    outcome.is_ok()
        && !unicode.is_ascii()
        && uts46
            .to_ascii(unicode.as_bytes(), deny, hyphens, DnsLength::Verify)
            .is_ok_and(|encoded| encoded.eq_ignore_ascii_case(label))
}

/// Checks a name without its wildcard: at least two LDH labels (RFC 5890 2.3.1), the last not only digits, so that the
/// name is not an IPv4 address (RFC 1123 2.1).
fn check_ldh(name: &str) -> Result<(), &'static str> {
    if !name.as_bytes().split(|byte| *byte == b'.').all(is_ldh_label) {
        return Err(LABEL);
    }
    let (_, last) = name.rsplit_once('.').ok_or(TWO_LABELS)?;
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DIGITS);
    }
    Ok(())
}

fn is_ldh_label(label: &[u8]) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && !label.starts_with(b"-")
        && !label.ends_with(b"-")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a name of the given length, with labels of up to 63 characters.
    fn name_of(length: usize) -> String {
        let labels = [63, 63, 63, length - 3 * 64].map(|n| "a".repeat(n));
        labels.join(".")
    }

    #[test]
    fn plain_names_are_unchanged() {
        let names = [
            "example.com",
            "www.example.com",
            "*.example.com",
            "WWW.Example.COM",
            "a.b",
            "1.example.com",
            "123.456.example",
            "r3---sn-abc.example.com",
            "ab--cd.example",
            "a.b.c.d.e.f.g.h",
            "xn.example.com",
            "a.example",
            "3com.com",
            "example.c0m",
            "1.2.3.4a",
            "0.0x7f",
        ];
        for name in names {
            assert_eq!(to_ascii(name).as_deref(), Ok(name), "{name}");
        }
    }

    #[test]
    fn u_labels_become_a_labels() {
        let names = [
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example", "xn--bcher-kva.Example"),
            ("WWW.bücher.DE", "WWW.xn--bcher-kva.DE"),
            ("bu\u{308}cher.example", "xn--bcher-kva.example"),
            ("*.bücher.example", "*.xn--bcher-kva.example"),
            ("faß.de", "xn--fa-hia.de"),
            ("例子.中国", "xn--fsqu00a.xn--fiqs8s"),
            ("例子。中国", "xn--fsqu00a.xn--fiqs8s"),
            ("www\u{ff0e}example\u{ff61}com", "www.example.com"),
            ("ｗｗｗ.example.com", "www.example.com"),
            ("exam\u{ad}ple.com", "example.com"),
            ("אבג.דהו", "xn--4dbcd.xn--7dbcd"),
        ];
        for (given, sent) in names {
            if given.starts_with('א') {
                assert!(to_ascii(given).is_ok_and(|name| name.starts_with("xn--")), "{given}");
                continue;
            }
            assert_eq!(to_ascii(given).as_deref(), Ok(sent), "{given}");
        }
    }

    #[test]
    fn quotation_marks_and_dashes_of_copied_texts_are_named() {
        for mark in QUOTATION_MARKS {
            for name in [
                format!("{mark}www.example.com{mark}"),
                format!("{mark}*.example.com"),
                format!("www.example.com{mark}"),
                format!("{mark}b\u{fc}cher.example"),
                format!("{mark}https://www.example.com{mark}"),
                format!("www.example{mark}s.com"),
            ] {
                assert_eq!(to_ascii(&name), Err(QUOTED), "{name}");
            }
        }
        for dash in DASHES {
            assert_eq!(to_ascii(&format!("my{dash}shop.example.com")), Err(DASH), "{dash}");
        }
    }

    #[test]
    fn invisible_characters_never_change_the_name() {
        for (name, outcome) in [
            ("www.example.com\u{200b}", Ok("www.example.com")),
            ("\u{feff}www.example.com", Ok("www.example.com")),
            ("www.example.com\u{2060}", Ok("www.example.com")),
            ("www.example.com\u{a0}", Err(WHITESPACE)),
            ("www.example\u{202f}.com", Err(WHITESPACE)),
            ("www.example.com\u{3000}", Err(WHITESPACE)),
            ("www.example.com\r\n", Err(WHITESPACE)),
            ("www.exam\u{200d}ple.com", Err(UNICODE)),
            ("www.exam\u{202e}ple.com", Err(UNICODE)),
        ] {
            assert_eq!(to_ascii(name).as_deref(), outcome.as_ref().copied(), "{name:?}");
        }
    }

    #[test]
    fn a_labels_become_lower_case_and_must_decode() {
        assert_eq!(to_ascii("xn--bcher-kva.Example").as_deref(), Ok("xn--bcher-kva.Example"));
        assert_eq!(to_ascii("XN--BCHER-KVA.Example").as_deref(), Ok("xn--bcher-kva.Example"));
        assert_eq!(to_ascii("*.xn--fsqu00a.xn--fiqs8s").as_deref(), Ok("*.xn--fsqu00a.xn--fiqs8s"));
        let rejected = [
            "xn--.example",
            "xn--a.example",
            "xn--abc-.example",
            "xn--example-.com",
            "xn--99999999.example",
            "xn--bcher-kva-.example",
            "xn--\u{fc}.example",
            "ＸＮ－－a.example",
            // these decode to an upper-case letter, a half-width letter, a soft hyphen, and a ligature
            "xn--cher-fna.example",
            "xn--4j7c.example",
            "xn--ab-5da.example",
            "xn--e-xbb.example",
        ];
        for name in rejected {
            assert!(to_ascii(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_conversion_is_idempotent() {
        for name in ["bücher.example", "*.例子。中国", "WWW.faß.DE", "אבג.example"] {
            let sent = to_ascii(name).unwrap();
            assert_eq!(to_ascii(&sent).as_deref(), Ok(&*sent), "{name}");
        }
    }

    #[test]
    fn lengths_are_limited() {
        let longest_label = format!("{}.com", "a".repeat(63));
        let too_long_label = format!("{}.com", "a".repeat(64));
        assert!(to_ascii(&longest_label).is_ok());
        assert_eq!(to_ascii(&too_long_label), Err(LABEL));
        assert!(to_ascii(&name_of(253)).is_ok());
        assert_eq!(to_ascii(&name_of(254)), Err(TOO_LONG));
        assert!(to_ascii(&format!("*.{}", name_of(251))).is_ok());
        assert_eq!(to_ascii(&format!("*.{}", name_of(252))), Err(TOO_LONG));
        assert_eq!(to_ascii(&"a".repeat(5_000_000)), Err(TOO_LONG));
        assert!(to_ascii(&"中".repeat(340)).is_err());
        assert!(to_ascii(&format!("{}.com", "ü".repeat(64))).is_err());
    }

    #[test]
    fn violations_name_the_rule() {
        assert_eq!(to_ascii(""), Err(REQUIRED));
        let cases: &[(&str, &[&str])] = &[
            (
                WHITESPACE,
                &[
                    " ",
                    "a b.com",
                    " example.com",
                    "example.com ",
                    "example.com\n",
                    "a\0.com",
                    "a\u{a0}b.com",
                    "a\u{85}.com",
                    "example\u{3000}.com",
                    "\u{2028}example.com",
                    "a\t.com",
                ],
            ),
            (IP, &["127.0.0.1", "::1", "[::1]", "2001:db8::1", "[2001:db8::1]", "::ffff:1.2.3.4"]),
            (
                BARE,
                &[
                    "https://example.com",
                    "example.com:443",
                    "example.com/",
                    "example.com/a",
                    "user@example.com",
                    "//example.com",
                    "example.com?x",
                    "example.com#x",
                    "[::1]:443",
                    "a\\b.com",
                    "mailto:a",
                ],
            ),
            (TRAILING, &["example.com.", "com.", ".", "*.", "例子.中国。", "example.com.."]),
            (TWO_LABELS, &["example", "localhost", "*.com", "123"]),
            (
                WILDCARD,
                &[
                    "*",
                    "*.*.example.com",
                    "www.*.example.com",
                    "w*.example.com",
                    "*w.example.com",
                    "**.example.com",
                    "example.*",
                ],
            ),
            (
                LABEL,
                &[
                    "a..b",
                    ".example.com",
                    "*..example.com",
                    "-a.com",
                    "a-.com",
                    "a_b.com",
                    "_dmarc.example.com",
                    "a,b.com",
                    "a%20b.com",
                    "$.com",
                    "example.com-",
                    "example.-com",
                    "a+b.com",
                    "a=b.com",
                ],
            ),
            (
                DIGITS,
                &[
                    "1.2.3",
                    "256.256.256.256",
                    "example.123",
                    "1.2.3.4.5",
                    "*.1.2.3.4",
                    "127。0。0。1",
                    "*.1.2",
                    "１２７.０.０.１",
                ],
            ),
            (
                UNICODE,
                &[
                    "bü_cher.example",
                    "-bücher.example",
                    "bücher-.example",
                    "a.\u{200d}b.example",
                    "\u{301}a.example",
                    "\u{ad}.example",
                    "bücher..example",
                    "\u{fffd}.example",
                    "\u{2024}a.example",
                    "a\u{2024}b.example",
                    "\u{2488}a.example",
                    "＊.bücher.example",
                    "א1a.example",
                    "\u{e000}.example",
                    "ⅷ℀.example",
                    "\u{202e}moc.example",
                ],
            ),
        ];
        for (message, values) in cases {
            for value in *values {
                assert_eq!(to_ascii(value), Err(*message), "{value:?}");
            }
        }
    }

    #[test]
    fn ipv4_addresses_are_strictly_dotted_decimal() {
        for (value, octets) in [
            ("192.0.2.1", [192, 0, 2, 1]),
            ("0.0.0.0", [0; 4]),
            ("255.255.255.255", [255; 4]),
            ("10.20.30.40", [10, 20, 30, 40]),
        ] {
            assert_eq!(ipv4(value), Some(octets.into()), "{value}");
        }
        for value in [
            "",
            "192.0.2",
            "192.0.2.1.1",
            "192.0.2.1.",
            ".192.0.2.1",
            "192.0.2.01",
            "192.0.2.00",
            "192.0.2.256",
            "192.0.2.-1",
            "192.0.2.+1",
            "192.0.2.1 ",
            " 192.0.2.1",
            "192.0.2.1\n",
            "192.0.2.0x1",
            "192.0.513",
            "3221225985",
            "192.0.2.1:443",
            "192.0.2.1/32",
            "[192.0.2.1]",
            "::ffff:192.0.2.1",
            "::1",
            "192.0.2.١",
            "１９２.0.2.1",
            "192。0。2。1",
        ] {
            assert_eq!(ipv4(value), None, "{value:?}");
        }
    }

    #[test]
    fn accepted_names_are_plain_host_names() {
        let pieces =
            ["a", "A9", "-", ".", "。", "*.", "xn--", "ü", "中", "א", "\u{ad}", "\u{200d}", "１", "ｘn", "kva", "℀"];
        let mut seed = 7_usize;
        for _ in 0..20_000 {
            let mut value = String::new();
            for _ in 0..6 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                value.push_str(pieces[(seed >> 33) % pieces.len()]);
            }
            let Ok(sent) = to_ascii(&value) else { continue };
            assert!(sent.len() <= 253 && sent.is_ascii(), "{value:?}");
            let name = sent.strip_prefix("*.").unwrap_or(&sent);
            assert!(name.contains('.'), "{value:?}");
            for label in name.split('.') {
                let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                assert!(inner && !label.is_empty() && label.len() <= 63, "{value:?}");
            }
            assert_eq!(to_ascii(&sent), Ok(sent.clone()), "{value:?}");
        }
    }
}
