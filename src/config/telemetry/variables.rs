//! Reads single `OTEL_*` variables. An empty value counts as unset, an invalid one causes a warning.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use super::known::{UNSUPPORTED, is_known, words};
use super::{METRICS, Otlp, OtlpProtocol, Sampler, Signal, Temporality};
use crate::config::reader::Report;
use crate::config::{Environment, millis};

/// The environment, and the report for warnings.
pub(super) struct Variables<'e> {
    pub(super) environment: &'e Environment,
    pub(super) report: &'e mut Report,
}

impl<'e> Variables<'e> {
    /// Returns a value that may not be UTF-8, with replacement characters.
    pub(super) fn get_lossy(&self, name: &str) -> Option<&'e str> {
        debug_assert!(is_known(name), "{name} is missing in the list of variables");
        Some(self.environment.get(name)?.trim()).filter(|value| !value.is_empty())
    }

    fn get(&mut self, name: &str) -> Option<&'e str> {
        let value = self.get_lossy(name)?;
        if value.contains(char::REPLACEMENT_CHARACTER) {
            self.warn(name, "is not UTF-8 and is ignored");
            return None;
        }
        Some(value)
    }

    pub(super) fn warn(&mut self, name: &str, message: impl fmt::Display) {
        self.report.warning(name, &message.to_string());
    }

    /// Reads the signal's own variable, otherwise the general one. An invalid value counts as missing.
    fn otlp<T>(
        &mut self,
        signal: &Signal,
        suffix: &str,
        expects: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        otlp_names(signal, suffix).iter().find_map(|name| {
            let value = parse(self.get(name)?);
            if value.is_none() {
                self.warn(name, format_args!("expects {expects}; ignored"));
            }
            value
        })
    }

    /// Reads a whole number from 1 to `max`.
    pub(super) fn number(&mut self, name: &str, default: u32, max: u32) -> u32 {
        let Some(value) = self.get(name) else { return default };
        match value.parse() {
            Ok(number) if (1..=max).contains(&number) => number,
            _ => {
                self.warn(name, format_args!("expects a whole number from 1 to {max}; taken as {default}"));
                default
            }
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        let Some(value) = self.get(name) else { return false };
        let is_true = value.eq_ignore_ascii_case("true");
        if !is_true && !value.eq_ignore_ascii_case("false") {
            self.warn(name, "expects true or false; taken as false");
        }
        is_true
    }

    /// Warns of each variable that asks for something that the gateway does not do.
    pub(super) fn warn_of_unsupported(&mut self) {
        for unsupported in UNSUPPORTED {
            for name in unsupported.names {
                if self.get_lossy(name).is_some_and(|value| !unsupported.permits(value)) {
                    self.warn(name, unsupported.message);
                }
            }
        }
    }

    /// Reads the resource attributes. After any invalid part the whole value is discarded, as specified.
    pub(super) fn resource_attributes(&mut self) -> Vec<(String, String)> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let Some(value) = self.get(NAME) else { return Vec::new() };
        pairs(value).unwrap_or_else(|| {
            self.warn(NAME, "expects key=value pairs, percent-encoded and separated by commas; ignored");
            Vec::new()
        })
    }

    pub(super) fn service_name(&mut self, attributes: &[(String, String)]) -> String {
        let own = self.get("OTEL_SERVICE_NAME");
        let attribute = || {
            let last = attributes.iter().rfind(|(key, _)| key == "service.name");
            last.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        own.or_else(attribute).unwrap_or("scm-gateway").to_owned()
    }

    pub(super) fn exporter(&mut self, signal: &Signal) -> Option<Otlp> {
        const TIMEOUT: &str = "a whole number of milliseconds from 1 to 3600000";
        if !self.exports_otlp(signal) {
            return None;
        }
        let protocol = self.otlp(signal, "PROTOCOL", "grpc or http/protobuf", protocol);
        let protocol = protocol.unwrap_or(OtlpProtocol::HttpProtobuf);
        let timeout = self.otlp(signal, "TIMEOUT", TIMEOUT, milliseconds).unwrap_or(Duration::from_secs(10));
        let limit = millis(self.number(signal.export_timeout, MAX_MILLIS, MAX_MILLIS).into());
        let gzip = self.otlp(signal, "COMPRESSION", "gzip or none", gzip).unwrap_or_default();
        let headers = self.headers(signal);
        let endpoint = self.endpoint(signal, protocol)?;
        let tls = self.tls(signal, &endpoint)?;
        Some(Otlp { protocol, endpoint, timeout: timeout.min(limit), gzip, tls, headers })
    }

    /// Returns whether the list of exporters has `otlp`, which it has by default.
    fn exports_otlp(&mut self, signal: &Signal) -> bool {
        let name = format!("OTEL_{}_EXPORTER", signal.name);
        let Some(value) = self.get(&name) else { return true };
        // The admin listener serves Prometheus metrics in any case.
        let known: &[&str] =
            if signal.name == METRICS.name { &["otlp", "none", "prometheus"] } else { &["otlp", "none"] };
        let exports = words(value).any(|word| word == "otlp");
        if words(value).any(|word| !known.contains(&word.as_str())) {
            let result = if exports { "the other exporters are ignored" } else { "nothing is exported" };
            self.warn(&name, format_args!("expects otlp or none; {result}"));
        }
        exports
    }

    /// Returns the signal's own endpoint unchanged, otherwise the general one, with the signal's path for HTTP.
    fn endpoint(&mut self, signal: &Signal, protocol: OtlpProtocol) -> Option<String> {
        let [own, general] = otlp_names(signal, "ENDPOINT");
        // No fallback to another endpoint after an invalid one, because telemetry may be confidential.
        let (name, value, path) = match (self.get(&own), protocol) {
            (Some(value), _) => (own.as_str(), value, ""),
            (None, OtlpProtocol::Grpc) => (general.as_str(), self.get(&general)?, ""),
            (None, OtlpProtocol::HttpProtobuf) => (general.as_str(), self.get(&general)?, signal.path),
        };
        if !is_plain_url(value) {
            self.warn(name, "expects an http:// or https:// URL without user or query; nothing is exported");
            return None;
        }
        let base = if path.is_empty() { value } else { value.trim_end_matches('/') };
        Some(format!("{base}{path}"))
    }

    fn headers(&mut self, signal: &Signal) -> Vec<(String, SecretString)> {
        const EXPECTS: &str = "name=value pairs, percent-encoded and separated by commas";
        self.otlp(signal, "HEADERS", EXPECTS, headers).unwrap_or_default()
    }

    /// Reads the largest number of attributes of a span, which may be 0.
    pub(super) fn span_attributes(&mut self) -> u32 {
        let limits = ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"];
        let limit = limits.iter().find_map(|name| {
            let limit = self.get(name)?.parse().ok();
            if limit.is_none() {
                self.warn(name, "expects a whole number; ignored");
            }
            limit
        });
        limit.unwrap_or(128)
    }

    pub(super) fn temporality(&mut self) -> Temporality {
        const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        match self.get(NAME).map(str::to_ascii_lowercase).as_deref() {
            None | Some("cumulative") => Temporality::Cumulative,
            Some("delta") => Temporality::Delta,
            Some("lowmemory") => Temporality::LowMemory,
            Some(_) => {
                self.warn(NAME, "expects cumulative, delta or lowmemory; taken as cumulative");
                Temporality::Cumulative
            }
        }
    }

    pub(super) fn sampler(&mut self) -> Sampler {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        let name = self.get(NAME).unwrap_or(DEFAULT_SAMPLER).to_ascii_lowercase();
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name.as_str()),
        };
        let root = match root {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatio(self.ratio()),
            _ => {
                self.warn(NAME, format_args!("names no sampler known here; taken as {DEFAULT_SAMPLER}"));
                return Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
            }
        };
        if parent_based { Sampler::ParentBased(Box::new(root)) } else { root }
    }

    fn ratio(&mut self) -> f64 {
        const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(value) = self.get(NAME) else { return 1.0 };
        let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.unwrap_or_else(|| {
            self.warn(NAME, "expects a number from 0 to 1; taken as 1");
            1.0
        })
    }
}

const DEFAULT_SAMPLER: &str = "parentbased_always_on";

/// The longest interval or timeout: an hour.
pub(super) const MAX_MILLIS: u32 = 3_600_000;

/// Returns the names of an exporter's variable: the signal's own, which takes precedence, and the general one.
pub(super) fn otlp_names(signal: &Signal, suffix: &str) -> [String; 2] {
    [format!("OTEL_EXPORTER_OTLP_{}_{suffix}", signal.name), format!("OTEL_EXPORTER_OTLP_{suffix}")]
}

fn protocol(value: &str) -> Option<OtlpProtocol> {
    match value.to_ascii_lowercase().as_str() {
        "grpc" => Some(OtlpProtocol::Grpc),
        "http/protobuf" => Some(OtlpProtocol::HttpProtobuf),
        _ => None,
    }
}

fn milliseconds(value: &str) -> Option<Duration> {
    value.parse().ok().filter(|number| (1..=MAX_MILLIS).contains(number)).map(|number| millis(number.into()))
}

fn gzip(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "gzip" => Some(true),
        "none" => Some(false),
        _ => None,
    }
}

/// Returns whether a value is a valid endpoint. User and query are rejected, because they may be secret and endpoints
/// are displayed.
fn is_plain_url(value: &str) -> bool {
    let Ok(uri) = value.parse::<Uri>() else { return false };
    let is_plain =
        uri.authority().is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
    matches!(uri.scheme_str(), Some("http" | "https")) && is_plain && !value.contains(['?', '#'])
}

fn headers(value: &str) -> Option<Vec<(String, SecretString)>> {
    let header = |(name, value): (String, String)| {
        let name = HeaderName::try_from(name).ok()?;
        HeaderValue::from_str(&value).ok()?;
        Some((name.as_str().to_owned(), SecretString::from(value)))
    };
    pairs(value)?.into_iter().map(header).collect()
}

/// Parses `key=value,key=value`, percent-encoded. Empty elements, as after a trailing comma, are ignored.
fn pairs(value: &str) -> Option<Vec<(String, String)>> {
    let elements = value.split(',').filter(|element| !element.trim().is_empty());
    let pair = |element: &str| {
        let (key, value) = element.split_once('=')?;
        Some((decode(key)?, decode(value)?)).filter(|(key, _)| !key.is_empty())
    };
    elements.map(pair).collect()
}

/// Decodes a text in which each `%` begins an octet in hex.
fn decode(text: &str) -> Option<String> {
    let is_octet = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    let text = text.trim();
    let is_valid = text.split('%').skip(1).all(is_octet);
    let decoded = is_valid.then(|| percent_decode_str(text).decode_utf8())?;
    decoded.ok().map(String::from)
}
