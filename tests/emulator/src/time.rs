//! The date formats: `X-Sdk-Date` in requests, IMF-fixdate and SCM's times in responses.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Parses exactly `YYYYMMDDTHHMMSSZ`. Dates before 1970 are invalid.
pub(crate) fn parse_sdk_date(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        bytes[from..to].iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
    };
    let days = days_of(number(0, 4)?, number(4, 6)?, number(6, 8)?)?;
    let hour = number(9, 11)?;
    let minute = number(11, 13)?;
    let second = number(13, 15)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days * DAY + hour * 3_600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Returns SCM's form of a time, in UTC and without a zone: `2021-05-27 16:46:25.0`.
pub(crate) fn timestamp(at: SystemTime) -> String {
    let seconds = seconds(at);
    let (year, month, day) = date_of(seconds / DAY);
    let rest = seconds % DAY;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.0", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Returns a time in the format of RFC 3339, with up to nine digits after the second. The offset from UTC is in minutes;
/// without one the zone is `Z`.
pub(crate) fn rfc3339(at: SystemTime, digits: usize, offset: Option<i16>) -> String {
    let shift = Duration::from_secs(60 * u64::from(offset.unwrap_or(0).unsigned_abs()));
    let local = if offset.unwrap_or(0) < 0 { at - shift } else { at + shift };
    let nanoseconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let seconds = seconds(local);
    let (year, month, day) = date_of(seconds / DAY);
    let rest = seconds % DAY;
    let mut text = format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    if digits > 0 {
        text.push('.');
        text.push_str(&format!("{nanoseconds:09}")[..digits.min(9)]);
    }
    match offset {
        None => text.push('Z'),
        Some(minutes) => {
            let sign = if minutes < 0 { '-' } else { '+' };
            let minutes = minutes.unsigned_abs();
            text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
    }
    text
}

/// Returns the milliseconds since 1970.
pub(crate) fn milliseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Returns the seconds since 1970.
pub(crate) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns the value of a `Date` header (RFC 9110, 5.6.7).
pub(crate) fn imf_fixdate(at: SystemTime) -> String {
    let seconds = seconds(at);
    let days = seconds / DAY;
    let rest = seconds % DAY;
    let (year, month, day) = date_of(days);
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        WEEKDAYS[(days % 7) as usize],
        MONTHS[(month - 1) as usize],
        rest / 3_600,
        rest / 60 % 60,
        rest % 60,
    )
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn length_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Returns the days from 1970-01-01 to a date.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=length_of(year.max(1), month)).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|y| 365 + u64::from(is_leap(y))).sum();
    let months: u64 = (1..month).map(|m| length_of(year, m)).sum();
    Some(years + months + day - 1)
}

fn date_of(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    while days >= length_of(year, month) {
        days -= length_of(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_parsed_and_formatted() {
        for (sdk, imf, seconds) in [
            ("19700101T000000Z", "Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("19941106T084937Z", "Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("20220809T040506Z", "Tue, 09 Aug 2022 04:05:06 GMT", 1_660_017_906),
            ("20240229T235959Z", "Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(parse_sdk_date(sdk), Some(at), "{sdk}");
            assert_eq!(imf_fixdate(at), imf);
            let own: String = timestamp(at).chars().filter(char::is_ascii_digit).collect();
            assert_eq!(own, format!("{}0", sdk.replace(['T', 'Z'], "")));
            assert_eq!(milliseconds(at), seconds * 1_000);
        }
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(1_622_133_985)), "2021-05-27 16:46:25.0");
    }

    #[test]
    fn rfc3339_has_any_precision_and_offset() {
        let at = UNIX_EPOCH + Duration::new(1_795_950_000, 158_123_456);
        for (digits, offset, text) in [
            (0, None, "2026-11-29T11:00:00Z"),
            (1, None, "2026-11-29T11:00:00.1Z"),
            (3, None, "2026-11-29T11:00:00.158Z"),
            (9, None, "2026-11-29T11:00:00.158123456Z"),
            (3, Some(0), "2026-11-29T11:00:00.158+00:00"),
            (3, Some(480), "2026-11-29T19:00:00.158+08:00"),
            (0, Some(-690), "2026-11-28T23:30:00-11:30"),
        ] {
            assert_eq!(rfc3339(at, digits, offset), text);
        }
    }

    #[test]
    fn invalid_dates_are_rejected() {
        for text in [
            "",
            "20220809T040506",
            "20220809 040506Z",
            "2022-08-09T04:05",
            "20220229T000000Z",
            "20221301T000000Z",
            "20220800T000000Z",
            "20220809T240000Z",
            "20220809T006000Z",
            "+0220809T040506Z",
            "19691231T235959Z",
        ] {
            assert_eq!(parse_sdk_date(text), None, "{text}");
        }
    }
}
