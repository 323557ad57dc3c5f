//! The two formats of `/metrics`, and which of them a scraper gets: Prometheus' text format 0.0.4, and OpenMetrics 1.0.

use std::{borrow::Cow, slice};

use http::{HeaderMap, header};
use prometheus::{
    TextEncoder,
    proto::{MetricFamily, MetricType},
};

/// The units that names may end with. OpenMetrics announces them.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// A format of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4, the default.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format that the `Accept` header prefers (RFC 9110, 12.5.1). With equal weights it is the format that the
    /// header names more precisely. A header that accepts neither format is ignored.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<_> = values.flat_map(|value| value.split(',')).filter_map(MediaRange::parse).collect();
        let weight = |format: Self| {
            let matching = ranges.iter().filter_map(|range| Some((range.precision(format)?, range.weight)));
            matching.max().map_or((0, 0), |(precision, weight)| (weight, precision))
        };
        let open_metrics = weight(Self::OpenMetrics);
        if open_metrics.0 > 0 && open_metrics > weight(Self::Text) { Self::OpenMetrics } else { Self::Text }
    }

    /// Returns the value of the `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Returns type, subtype and version.
    const fn media_type(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Text => ("text", "plain", "0.0.4"),
            Self::OpenMetrics => ("application", "openmetrics-text", "1.0.0"),
        }
    }

    /// Returns the page of these metrics.
    pub(super) fn encode(self, families: &[MetricFamily]) -> prometheus::Result<String> {
        match self {
            Self::Text => TextEncoder::new().encode_to_string(families),
            Self::OpenMetrics => open_metrics(families),
        }
    }
}

/// An element of an `Accept` header.
struct MediaRange<'a> {
    media_type: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    /// In thousandths.
    weight: u16,
}

impl<'a> MediaRange<'a> {
    /// Returns `None` for a malformed element, which is ignored. Parameters other than version and weight do not matter.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (media_type, subtype) = parts.next()?.split_once('/')?;
        let mut range = Self { media_type, subtype, version: None, weight: 1000 };
        for parameter in parts.filter(|part| !part.is_empty()) {
            let (name, value) = parameter.split_once('=')?;
            if name.eq_ignore_ascii_case("version") {
                range.version = Some(value.trim_matches('"'));
            } else if name.eq_ignore_ascii_case("q") {
                range.weight = weight(value)?;
            }
        }
        Some(range)
    }

    /// Returns how precisely the element names a format, from 1 for `*/*`, or `None` if it does not match.
    fn precision(&self, format: Format) -> Option<u8> {
        let (media_type, subtype, version) = format.media_type();
        let is_type = self.media_type.eq_ignore_ascii_case(media_type);
        if (self.media_type, self.subtype) == ("*", "*") {
            Some(1)
        } else if is_type && self.subtype == "*" {
            Some(2)
        } else if is_type && self.subtype.eq_ignore_ascii_case(subtype) {
            match self.version {
                None => Some(3),
                Some(accepted) => (accepted == version).then_some(4),
            }
        } else {
            None
        }
    }
}

/// Returns a weight in thousandths: 0 to 1 with up to three decimals (RFC 9110, 12.4.2).
fn weight(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_valid = decimals.len() <= 3 && decimals.bytes().all(|digit| digit.is_ascii_digit());
    let thousandths = format!("{decimals:0<3}").parse().ok().filter(|_| is_valid)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// Returns the page in OpenMetrics. Its samples are those of the text format, except for the bounds of buckets. A counter's
/// family has no `_total`, and the page has an end.
fn open_metrics(families: &[MetricFamily]) -> prometheus::Result<String> {
    let mut page = String::new();
    for family in families {
        let (name, kind) = name_and_type(family);
        let unit = UNITS.into_iter().find(|unit| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')));
        page += &format!("# TYPE {name} {kind}\n");
        if let Some(unit) = unit {
            page += &format!("# UNIT {name} {unit}\n");
        }
        page += &format!("# HELP {name} {}\n", escaped(family.help()));
        let samples = TextEncoder::new().encode_to_string(slice::from_ref(family))?;
        let bucket = format!("{name}_bucket{{");
        for sample in samples.lines().filter(|line| !line.starts_with('#')) {
            let is_bucket = sample.starts_with(&bucket);
            page += &if is_bucket { with_canonical_bound(sample) } else { sample.into() };
            page.push('\n');
        }
    }
    page += "# EOF\n";
    Ok(page)
}

fn name_and_type(family: &MetricFamily) -> (&str, &'static str) {
    let name = family.name();
    match (family.get_field_type(), name.strip_suffix("_total")) {
        (MetricType::COUNTER, Some(name)) => (name, "counter"),
        (MetricType::COUNTER, None) | (MetricType::UNTYPED, _) => (name, "unknown"),
        (MetricType::GAUGE, _) => (name, "gauge"),
        (MetricType::HISTOGRAM, _) => (name, "histogram"),
        (MetricType::SUMMARY, _) => (name, "summary"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('\n', r"\n").replace('"', r#"\""#)
}

/// Writes the bound of a bucket as a float: `1.0` for `1`. It is the last label.
fn with_canonical_bound(sample: &str) -> Cow<'_, str> {
    const LABEL: &str = "le=\"";
    let bound = sample.rsplit_once(LABEL).and_then(|(before, after)| Some((before, after.split_once('"')?)));
    match bound {
        Some((before, (bound, rest))) if bound.bytes().all(|digit| digit.is_ascii_digit()) => {
            format!("{before}{LABEL}{bound}.0\"{rest}").into()
        }
        _ => sample.into(),
    }
}

#[cfg(test)]
mod tests;
