//! The standard `OTEL_*` variables that the gateway supports.
//!
//! Source: the OpenTelemetry specification, "Environment Variable Specification", "OpenTelemetry Protocol Exporter" and
//! "Resource SDK". As specified, an empty value counts as unset, and an invalid value is ignored with a warning. There
//! are two differences: nothing is exported without an endpoint, because most machines have no collector, and batches
//! are smaller.

use std::time::Duration;

use secrecy::SecretString;

use super::reader::{Report, settings};
use super::{Environment, millis};

mod variables;

use variables::Variables;

/// The export of traces and metrics.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// The `service.name` of all telemetry; `scm-gateway` by default.
    pub service_name: String,
    /// The exporter of traces; none by default.
    pub traces: Option<Otlp>,
    /// The exporter of metrics; none by default. `/metrics` does not depend on it.
    pub metrics: Option<Otlp>,
    /// The sampler of traces; parent-based by default, with all root spans sampled.
    pub sampler: Sampler,
    /// The batching of spans.
    pub batch: Batch,
    /// The interval of metric exports; 60 s by default.
    pub metric_interval: Duration,
}

/// The batching of spans.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The largest number of queued spans; 2048 by default. Further spans are dropped.
    pub queue: usize,
    /// The largest number of spans in an export; 192 by default. A batch is encoded at once while calls on the same
    /// core wait. The specification's 512 would take a millisecond.
    pub export: usize,
    /// The longest delay of a span before its export; 5 s by default.
    pub delay: Duration,
}

/// An OTLP exporter.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// The transport; `http/protobuf` by default.
    pub protocol: OtlpProtocol,
    /// The complete URL, with the signal's path for HTTP.
    pub endpoint: String,
    /// The timeout of an export; 10 s by default.
    pub timeout: Duration,
    /// Additional headers or gRPC metadata, with names in lower case.
    pub headers: Vec<(String, SecretString)>,
}

/// The transport of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// `grpc`
    Grpc,
    /// `http/protobuf`
    HttpProtobuf,
}

/// The sampler of traces.
#[derive(Debug, Clone, PartialEq)]
pub enum Sampler {
    /// Samples every trace.
    AlwaysOn,
    /// Samples no trace.
    AlwaysOff,
    /// Samples this fraction of traces, from 0 to 1.
    TraceIdRatio(f64),
    /// Follows the caller's decision. The inner sampler decides for root spans.
    ParentBased(Box<Sampler>),
}

/// A signal: its name in variables, and its path relative to a general endpoint.
struct Signal {
    name: &'static str,
    path: &'static str,
}

const TRACES: Signal = Signal { name: "TRACES", path: "/v1/traces" };
const METRICS: Signal = Signal { name: "METRICS", path: "/v1/metrics" };

/// Reads the variables. Invalid values are ignored with a warning.
pub(super) fn read(environment: &Environment, report: &mut Report) -> Telemetry {
    let mut variables = Variables { environment, report };
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
    /// Returns whether anything is exported.
    pub fn has_exporter(&self) -> bool {
        self.traces.is_some() || self.metrics.is_some()
    }

    /// Reports the endpoints.
    pub(super) fn report_settings(&self, report: &mut Report) {
        for (signal, otlp) in [(&TRACES, &self.traces), (&METRICS, &self.metrics)] {
            let Some(otlp) = otlp else { continue };
            let name = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.name);
            report.setting(&name, &settings::shown_url(&otlp.endpoint), "environment");
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    fn read(variables: &[(&str, &str)]) -> (Telemetry, Vec<String>) {
        let to_owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut report = Report::default();
        let telemetry = super::read(&variables.iter().map(to_owned).collect(), &mut report);
        (telemetry, report.warnings)
    }

    /// Reads valid variables.
    fn valid(variables: &[(&str, &str)]) -> Telemetry {
        let (telemetry, warnings) = read(variables);
        assert!(warnings.is_empty(), "{warnings:?}");
        telemetry
    }

    /// Returns the endpoints of traces and of metrics.
    fn endpoints(telemetry: &Telemetry) -> [Option<&str>; 2] {
        [&telemetry.traces, &telemetry.metrics].map(|otlp| otlp.as_ref().map(|otlp| otlp.endpoint.as_str()))
    }

    #[test]
    fn nothing_is_exported_without_an_endpoint() {
        for variables in [&[][..], &[("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_TRACES_EXPORTER", "otlp")]] {
            let telemetry = valid(variables);
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
            assert_eq!(endpoints(&valid(variables)), [traces, metrics], "{variables:?}");
        }
    }

    #[test]
    fn exporters_can_be_disabled() {
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
            assert_eq!(endpoints(&valid(&[ENDPOINT, variable])), expected, "{variable:?}");
        }
    }

    #[test]
    fn invalid_values_are_ignored_with_a_redacted_warning() {
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
    fn an_invalid_general_endpoint_exports_nothing() {
        let (telemetry, warnings) = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector")]);
        assert_eq!(endpoints(&telemetry), [None, None]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn variables_of_a_signal_override_the_general_ones() {
        let telemetry = valid(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20key, x=a=b ,"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "y=1"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"),
        ]);
        let traces = telemetry.traces.expect("traces");
        let metrics = telemetry.metrics.expect("metrics");
        assert_eq!((traces.protocol, metrics.protocol), (OtlpProtocol::HttpProtobuf, OtlpProtocol::Grpc));
        assert_eq!((traces.timeout, metrics.timeout), (Duration::from_millis(1500), Duration::from_millis(250)));
        let shown = |otlp: &Otlp| -> Vec<_> {
            otlp.headers.iter().map(|(name, value)| format!("{name}: {}", value.expose_secret())).collect()
        };
        assert_eq!(shown(&traces), ["authorization: Bearer key", "x: a=b"]);
        assert_eq!(shown(&metrics), ["y: 1"]);
        assert_eq!(valid(&[ENDPOINT]).traces.expect("traces").timeout, Duration::from_secs(10));
    }

    #[test]
    fn the_service_name_has_a_default() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.name=from%20attributes,c=");
        assert_eq!(valid(&[attributes]).service_name, "from attributes");
        assert_eq!(valid(&[attributes, ("OTEL_SERVICE_NAME", "own")]).service_name, "own");
        assert_eq!(valid(&[attributes, ("OTEL_SERVICE_NAME", "")]).service_name, "from attributes");
        assert_eq!(valid(&[("OTEL_RESOURCE_ATTRIBUTES", "a=b")]).service_name, "scm-gateway");
    }

    #[test]
    fn samplers_have_their_standard_names() {
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
            assert_eq!(valid(&variables).sampler, sampler, "{name} {arg}");
        }
        for arg in ["1.1", "-0.1", "NaN", "half"] {
            let (telemetry, warnings) =
                read(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", arg)]);
            assert_eq!((telemetry.sampler, warnings.len()), (Sampler::TraceIdRatio(1.0), 1), "{arg}");
        }
    }
}
