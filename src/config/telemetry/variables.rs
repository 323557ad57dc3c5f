//! Reads single `OTEL_*` variables. An empty value counts as unset, an invalid one causes a warning.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use super::{METRICS, Otlp, OtlpProtocol, Sampler, Signal};
use crate::config::Environment;
use crate::config::reader::Report;

/// The environment, and the report for warnings.
pub(super) struct Variables<'e> {
    pub(super) environment: &'e Environment,
    pub(super) report: &'e mut Report,
}

impl<'e> Variables<'e> {
    fn get(&mut self, name: &str) -> Option<&'e str> {
        let value = self.environment.get(name)?.trim();
        if value.contains(char::REPLACEMENT_CHARACTER) {
            self.warn(name, "is not UTF-8 and is ignored");
            return None;
        }
        Some(value).filter(|value| !value.is_empty())
    }

    fn warn(&mut self, name: &str, message: impl fmt::Display) {
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
        let own = format!("OTEL_EXPORTER_OTLP_{}_{suffix}", signal.name);
        let general = format!("OTEL_EXPORTER_OTLP_{suffix}");
        [own, general].iter().find_map(|name| {
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

    pub(super) fn service_name(&mut self) -> String {
        let own = self.get("OTEL_SERVICE_NAME").map(str::to_owned);
        own.or_else(|| self.service_name_attribute()).unwrap_or_else(|| "scm-gateway".to_owned())
    }

    fn service_name_attribute(&mut self) -> Option<String> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let Some(attributes) = pairs(self.get(NAME)?) else {
            self.warn(NAME, "expects key=value pairs, percent-encoded and separated by commas; ignored");
            return None;
        };
        let name = attributes.into_iter().find(|(key, _)| key == "service.name");
        name.map(|(_, value)| value).filter(|value| !value.is_empty())
    }

    pub(super) fn exporter(&mut self, signal: &Signal) -> Option<Otlp> {
        if !self.exports_otlp(signal) {
            return None;
        }
        let protocol = self.otlp(signal, "PROTOCOL", "grpc or http/protobuf", protocol);
        let protocol = protocol.unwrap_or(OtlpProtocol::HttpProtobuf);
        let timeout = self.otlp(signal, "TIMEOUT", "a number of milliseconds", milliseconds);
        let endpoint = self.endpoint(signal, protocol);
        let headers = self.headers(signal);
        Some(Otlp { protocol, endpoint: endpoint?, timeout: timeout.unwrap_or(Duration::from_secs(10)), headers })
    }

    fn exports_otlp(&mut self, signal: &Signal) -> bool {
        let name = format!("OTEL_{}_EXPORTER", signal.name);
        match self.get(&name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("otlp") => true,
            Some("none") => false,
            // The admin listener serves Prometheus metrics in any case.
            Some("prometheus") if signal.name == METRICS.name => false,
            Some(_) => {
                self.warn(&name, "expects otlp or none; nothing is exported");
                false
            }
        }
    }

    /// Returns the signal's own endpoint unchanged, otherwise the general one, with the signal's path for HTTP.
    fn endpoint(&mut self, signal: &Signal, protocol: OtlpProtocol) -> Option<String> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.name);
        let general = "OTEL_EXPORTER_OTLP_ENDPOINT";
        // No fallback to another endpoint after an invalid one, because telemetry may be confidential.
        let (name, value, path) = match (self.get(&own), protocol) {
            (Some(value), _) => (own.as_str(), value, ""),
            (None, OtlpProtocol::Grpc) => (general, self.get(general)?, ""),
            (None, OtlpProtocol::HttpProtobuf) => (general, self.get(general)?, signal.path),
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

fn protocol(value: &str) -> Option<OtlpProtocol> {
    match value.to_ascii_lowercase().as_str() {
        "grpc" => Some(OtlpProtocol::Grpc),
        "http/protobuf" => Some(OtlpProtocol::HttpProtobuf),
        _ => None,
    }
}

fn milliseconds(value: &str) -> Option<Duration> {
    value.parse().ok().filter(|millis| *millis > 0).map(Duration::from_millis)
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
    let decode = |text: &str| percent_decode_str(text.trim()).decode_utf8().ok().map(String::from);
    let elements = value.split(',').filter(|element| !element.trim().is_empty());
    let pair = |element: &str| {
        let (key, value) = element.split_once('=')?;
        Some((decode(key)?, decode(value)?)).filter(|(key, _)| !key.is_empty())
    };
    elements.map(pair).collect()
}
