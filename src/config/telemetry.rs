//! The standard `OTEL_*` variables, as far as the gateway follows them.
//!
//! Source: the OpenTelemetry specification, "Environment Variable Specification", "OpenTelemetry Protocol Exporter"
//! and "Resource SDK". As it demands, an empty value counts as unset, and a bad one is ignored with a warning. Two
//! differences: without an endpoint nothing is exported, for most machines have no collector; and batches are smaller.

use std::time::Duration;

use secrecy::SecretString;

use super::settings::{self, Setting, Settings};
use super::{Environment, millis};

mod variables;

use variables::Variables;

/// Where traces and metrics go.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// `service.name` of everything exported; `scm-gateway` by default.
    pub service_name: String,
    /// The exporter of traces; none by default.
    pub traces: Option<Otlp>,
    /// The exporter of metrics; none by default. Scraping does not depend on it.
    pub metrics: Option<Otlp>,
    /// Which traces are recorded; parent-based, and all that begin here, by default.
    pub sampler: Sampler,
    /// How spans wait for their export.
    pub batch: Batch,
    /// How often metrics are exported; every 60 s by default.
    pub metric_interval: Duration,
}

/// How spans wait for their export.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Spans that wait at most, 2048 by default; further ones are lost.
    pub queue: usize,
    /// Spans in one export at most, 192 by default: they are encoded at one go, and calls on the same core wait meanwhile.
    /// The specification's 512 are a millisecond.
    pub export: usize,
    /// How long a span waits for others; 5 s by default.
    pub delay: Duration,
}

/// An exporter in the OpenTelemetry protocol.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// How it is spoken; `http/protobuf` by default.
    pub protocol: OtlpProtocol,
    /// The complete URL. With HTTP the signal's path is part of it.
    pub endpoint: String,
    /// How long one export may take; 10 s by default.
    pub timeout: Duration,
    /// Headers, or gRPC metadata, to send along; names in lower case.
    pub headers: Vec<(String, SecretString)>,
}

/// How the OpenTelemetry protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// `grpc`
    Grpc,
    /// `http/protobuf`
    HttpProtobuf,
}

/// Which traces are recorded.
#[derive(Debug, Clone, PartialEq)]
pub enum Sampler {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// This share of them, from 0 to 1.
    TraceIdRatio(f64),
    /// As the caller decided; the inner sampler decides about traces that begin here.
    ParentBased(Box<Sampler>),
}

/// A signal's part in the names of its variables, and its path below a general endpoint.
struct Signal {
    name: &'static str,
    path: &'static str,
}

const TRACES: Signal = Signal { name: "TRACES", path: "/v1/traces" };
const METRICS: Signal = Signal { name: "METRICS", path: "/v1/metrics" };

/// Reads the variables. Bad ones are ignored and leave a warning.
pub(super) fn read(environment: &Environment, warnings: &mut Vec<String>) -> Telemetry {
    let mut variables = Variables { environment, warnings };
    let disabled = variables.flag("OTEL_SDK_DISABLED");
    Telemetry {
        service_name: variables.service_name(),
        traces: variables.exporter(&TRACES).filter(|_| !disabled),
        metrics: variables.exporter(&METRICS).filter(|_| !disabled),
        sampler: variables.sampler(),
        batch: Batch {
            queue: variables.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 65_536) as usize,
            export: variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 192, 65_536) as usize,
            delay: millis(variables.number("OTEL_BSP_SCHEDULE_DELAY", 5_000, 3_600_000).into()),
        },
        metric_interval: millis(variables.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000, 3_600_000).into()),
    }
}

impl Telemetry {
    /// Shows where it goes.
    pub(super) fn show(&self, shown: &mut Settings) {
        for (signal, otlp) in [(&TRACES, &self.traces), (&METRICS, &self.metrics)] {
            let Some(otlp) = otlp else { continue };
            let name = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.name);
            shown.0.push(Setting::new(&name, &settings::shown_url(&otlp.endpoint), "environment"));
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    fn read(variables: &[(&str, &str)]) -> (Telemetry, Vec<String>) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut warnings = Vec::new();
        let telemetry = super::read(&variables.iter().map(own).collect(), &mut warnings);
        (telemetry, warnings)
    }

    /// Reads variables that are all right.
    fn good(variables: &[(&str, &str)]) -> Telemetry {
        let (telemetry, warnings) = read(variables);
        assert!(warnings.is_empty(), "{warnings:?}");
        telemetry
    }

    /// The endpoints of traces and of metrics.
    fn endpoints(telemetry: &Telemetry) -> [Option<&str>; 2] {
        [&telemetry.traces, &telemetry.metrics].map(|otlp| otlp.as_ref().map(|otlp| otlp.endpoint.as_str()))
    }

    #[test]
    fn nothing_is_exported_without_an_endpoint() {
        for variables in [&[][..], &[("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_TRACES_EXPORTER", "otlp")]] {
            let telemetry = good(variables);
            assert_eq!(endpoints(&telemetry), [None, None]);
            assert_eq!(telemetry.service_name, "scm-gateway");
            assert_eq!(telemetry.sampler, Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
        }
    }

    #[test]
    fn endpoints_follow_the_specification() {
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example/in/");
        let general = |url| ("OTEL_EXPORTER_OTLP_ENDPOINT", url);
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let table: [(&[_], _, _); 6] = [
            (&[ENDPOINT], Some("http://collector:4318/v1/traces"), Some("http://collector:4318/v1/metrics")),
            (&[general("http://c/in/")], Some("http://c/in/v1/traces"), Some("http://c/in/v1/metrics")),
            (&[traces], Some("https://traces.example/in/"), None),
            (&[ENDPOINT, traces], Some("https://traces.example/in/"), Some("http://collector:4318/v1/metrics")),
            (&[ENDPOINT, grpc], Some("http://collector:4318"), Some("http://collector:4318")),
            (
                &[ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "GRPC")],
                Some("http://collector:4318"),
                Some("http://collector:4318/v1/metrics"),
            ),
        ];
        for (variables, traces, metrics) in table {
            assert_eq!(endpoints(&good(variables)), [traces, metrics], "{variables:?}");
        }
    }

    #[test]
    fn exporters_can_be_switched_off() {
        let both = [Some("http://collector:4318/v1/traces"), Some("http://collector:4318/v1/metrics")];
        let table = [
            (("OTEL_SDK_DISABLED", "TRUE"), [None, None]),
            (("OTEL_SDK_DISABLED", "false"), both),
            (("OTEL_TRACES_EXPORTER", "none"), [None, both[1]]),
            (("OTEL_METRICS_EXPORTER", "none"), [both[0], None]),
            (("OTEL_METRICS_EXPORTER", "prometheus"), [both[0], None]),
            (("OTEL_METRICS_EXPORTER", " otlp "), both),
        ];
        for (variable, expected) in table {
            assert_eq!(endpoints(&good(&[ENDPOINT, variable])), expected, "{variable:?}");
        }
    }

    #[test]
    fn bad_values_are_ignored_with_a_warning_that_does_not_repeat_them() {
        let table = [
            ("OTEL_SDK_DISABLED", "s3cr3t", true, true),
            ("OTEL_TRACES_EXPORTER", "s3cr3t", false, true),
            ("OTEL_METRICS_EXPORTER", "s3cr3t", true, false),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", true, true),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s3cr3t", true, true),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "0", true, true),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "s3cr3t", true, true),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=s3cr3t%0a", true, true),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a b=s3cr3t", true, true),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317", false, true),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://s3cr3t", false, true),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://u:s3cr3t@collector", false, true),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://collector?key=s3cr3t", true, false),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "\u{fffd}", true, true),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,s3cr3t", true, true),
            ("OTEL_TRACES_SAMPLER", "s3cr3t", true, true),
        ];
        for (name, value, traces, metrics) in table {
            let (telemetry, warnings) = read(&[ENDPOINT, (name, value)]);
            assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
            assert!(warnings[0].starts_with(&format!("{name}: ")), "{warnings:?}");
            assert!(!format!("{warnings:?} {telemetry:?}").contains("s3cr3t"), "{warnings:?} {telemetry:?}");
            assert_eq!(endpoints(&telemetry).map(|endpoint| endpoint.is_some()), [traces, metrics], "{name}={value}");
            assert_eq!(telemetry.service_name, "scm-gateway");
        }
    }

    #[test]
    fn a_bad_general_endpoint_exports_nothing() {
        let (telemetry, warnings) = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector")]);
        assert_eq!(endpoints(&telemetry), [None, None]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn a_signals_own_variable_goes_before_the_general_one() {
        let telemetry = good(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20key, x=a=b ,"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "y=1"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"),
        ]);
        let (traces, metrics) = (telemetry.traces.expect("traces"), telemetry.metrics.expect("metrics"));
        assert_eq!((traces.protocol, metrics.protocol), (OtlpProtocol::HttpProtobuf, OtlpProtocol::Grpc));
        assert_eq!((traces.timeout, metrics.timeout), (Duration::from_millis(1500), Duration::from_millis(250)));
        let shown = |otlp: &Otlp| -> Vec<_> {
            otlp.headers.iter().map(|(name, value)| format!("{name}: {}", value.expose_secret())).collect()
        };
        assert_eq!(shown(&traces), ["authorization: Bearer key", "x: a=b"]);
        assert_eq!(shown(&metrics), ["y: 1"]);
        assert_eq!(good(&[ENDPOINT]).traces.expect("traces").timeout, Duration::from_secs(10));
    }

    #[test]
    fn the_service_has_its_own_name_unless_told() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.name=from%20attributes,c=");
        assert_eq!(good(&[attributes]).service_name, "from attributes");
        assert_eq!(good(&[attributes, ("OTEL_SERVICE_NAME", "own")]).service_name, "own");
        assert_eq!(good(&[attributes, ("OTEL_SERVICE_NAME", "")]).service_name, "from attributes");
        assert_eq!(good(&[("OTEL_RESOURCE_ATTRIBUTES", "a=b")]).service_name, "scm-gateway");
    }

    #[test]
    fn samplers_go_by_their_standard_names() {
        let parent_based = |root| Sampler::ParentBased(Box::new(root));
        let table = [
            ("always_on", "", Sampler::AlwaysOn),
            ("ALWAYS_OFF", "0.5", Sampler::AlwaysOff),
            ("traceidratio", "0.25", Sampler::TraceIdRatio(0.25)),
            ("traceidratio", "", Sampler::TraceIdRatio(1.0)),
            ("parentbased_always_on", "", parent_based(Sampler::AlwaysOn)),
            ("parentbased_always_off", "", parent_based(Sampler::AlwaysOff)),
            ("parentbased_traceidratio", "0", parent_based(Sampler::TraceIdRatio(0.0))),
        ];
        for (name, arg, sampler) in table {
            let variables = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)];
            assert_eq!(good(&variables).sampler, sampler, "{name} {arg}");
        }
        for arg in ["1.1", "-0.1", "NaN", "half"] {
            let (telemetry, warnings) =
                read(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", arg)]);
            assert_eq!((telemetry.sampler, warnings.len()), (Sampler::TraceIdRatio(1.0), 1), "{arg}");
        }
    }
}
