//! Parses the expiration of credentials: a time of RFC 3339, in any zone and precision, and nothing else.

use std::time::SystemTime;

use jiff::{Timestamp, fmt::temporal::Pieces};

/// The digits of a fraction that [`Timestamp`] can hold. Further ones are cut off.
const MAX_DIGITS: usize = 9;

/// Returns `None` if the text is not a time of RFC 3339. jiff alone also accepts other formats. The last hours of the year
/// 9999, which [`Timestamp`] does not have, become its maximum.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let (seconds, rest) = text.split_at_checked("0000-00-00T00:00:00".len())?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("0", rest),
    };
    let is_valid = has_format(seconds, "0000-00-00T00:00:00")
        && !fraction.is_empty()
        && (zone.eq_ignore_ascii_case("Z") || has_format(zone, "+00:00") && zone[1..3] < *"24");
    if !is_valid {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(MAX_DIGITS)];
    let text = format!("{seconds}.{fraction}{zone}").to_ascii_uppercase();
    let pieces = Pieces::parse(&text).ok()?;
    let date_time = pieces.date().to_datetime(pieces.time()?);
    // Four digits of the year cannot exceed the minimum.
    let time = pieces.to_numeric_offset()?.to_timestamp(date_time).unwrap_or(Timestamp::MAX);
    SystemTime::try_from(time).ok()
}

/// Returns whether a text has this format: `0` is any digit, `+` a sign.
fn has_format(text: &str, format: &str) -> bool {
    let matches = |(byte, expected): (u8, u8)| match expected {
        b'0' => byte.is_ascii_digit(),
        b'+' => matches!(byte, b'+' | b'-'),
        expected => byte.eq_ignore_ascii_case(&expected),
    };
    text.len() == format.len() && text.bytes().zip(format.bytes()).all(matches)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use jiff::Timestamp;

    use super::parse;

    #[test]
    fn any_zone_and_precision_is_read() {
        let nanos = |text: &str| {
            let time = parse(text).unwrap_or_else(|| panic!("{text}"));
            time.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_950_000)).unwrap().as_nanos()
        };
        for (text, expected) in [
            ("2026-11-29T11:00:00Z", 0),
            ("2026-11-29T11:00:00.000Z", 0),
            ("2026-11-29T11:00:00.158Z", 158_000_000),
            ("2026-11-29T11:00:00.1Z", 100_000_000),
            ("2026-11-29T11:00:00.158000Z", 158_000_000),
            ("2026-11-29T11:00:00.158123456Z", 158_123_456),
            ("2026-11-29T11:00:00.1581234569999Z", 158_123_456),
            ("2026-11-29T11:00:00.158+00:00", 158_000_000),
            ("2026-11-29T11:00:00.158-00:00", 158_000_000),
            ("2026-11-29T19:00:00.158+08:00", 158_000_000),
            ("2026-11-29T05:30:00-05:30", 0),
            ("2026-11-29t11:00:00z", 0),
        ] {
            assert_eq!(nanos(text), expected, "{text}");
        }
    }

    #[test]
    fn times_beyond_the_last_timestamp_are_cut() {
        let last = Timestamp::MAX;
        for (text, expected) in [
            ("9999-12-31T23:59:59Z", last),
            ("9999-12-31T23:59:59.999999999Z", last),
            ("9999-12-31T23:59:59+08:00", last),
            ("9999-12-31T23:59:59-23:59", last),
            ("9999-12-30T22:00:00.999999999Z", last),
            ("9999-12-30T22:00:00Z", last - jiff::SignedDuration::from_nanos(999_999_999)),
        ] {
            assert_eq!(parse(text), Some(SystemTime::try_from(expected).unwrap()), "{text}");
        }
        for text in ["0000-01-01T00:00:00Z", "0000-01-01T00:00:00+23:59"] {
            assert!(parse(text).unwrap() < SystemTime::UNIX_EPOCH, "{text}");
        }
    }

    #[test]
    fn anything_but_rfc_3339_is_rejected() {
        for text in [
            "",
            "Z",
            "1795950000000",
            "2026-11-29",
            "2026-11-29T11:00:00",
            "2026-11-29 11:00:00Z",
            "2026-11-29T11:00Z",
            "2026-11-29T11:00:00.Z",
            "2026-11-29T11:00:00.158",
            "2026-11-29T11:00:00,158Z",
            "2026-11-29T11:00:00+08",
            "2026-11-29T11:00:00+0800",
            "2026-11-29T11:00:00+24:00",
            "2026-11-29T11:00:00+08:60",
            "2026-11-29T11:00:00Z[UTC]",
            "2026-11-29T11:00:00.158+08:00[Asia/Shanghai]",
            "2026-11-29T25:00:00Z",
            "2026-02-30T11:00:00Z",
            "9999-12-32T11:00:00Z",
            "9999-12-31T23:59:59+00:60",
            "+002026-11-29T11:00:00Z",
            "Sun, 29 Nov 2026 11:00:00 GMT",
            " 2026-11-29T11:00:00Z",
            "2026-11-29T11:00:00Z ",
            "2026-11-29T11:00:00\u{a0}Z",
            "2026-11-29T11:00:0\u{660}Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
