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

mod known;
mod tls;
mod variables;

pub use tls::OtlpTls;
use variables::{MAX_MILLIS, Variables};

/// The export of traces and metrics.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// The `service.name` of all telemetry; `scm-gateway` by default.
    pub service_name: String,
    /// Further resource attributes; none by default.
    pub resource_attributes: Vec<(String, String)>,
    /// The exporter of traces; none by default.
    pub traces: Option<Otlp>,
    /// The exporter of metrics; none by default. `/metrics` does not depend on it.
    pub metrics: Option<Otlp>,
    /// The sampler of traces; parent-based by default, with all root spans sampled.
    pub sampler: Sampler,
    /// The batching of spans.
    pub batch: Batch,
    /// The largest number of attributes of a span; 128 by default. Further attributes are dropped.
    pub span_attributes: u32,
    /// The temporality of exported metrics; cumulative by default.
    pub temporality: Temporality,
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
    /// Whether exports are compressed with gzip; not by default.
    pub gzip: bool,
    /// The certificates for `https://`.
    pub tls: OtlpTls,
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

/// Which instruments export the change since the last export instead of the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temporality {
    /// None.
    Cumulative,
    /// Counters and histograms.
    Delta,
    /// Synchronous counters and histograms.
    LowMemory,
}

/// A signal: its name in variables, its path relative to a general endpoint, and the variable that limits an export.
struct Signal {
    name: &'static str,
    path: &'static str,
    export_timeout: &'static str,
}

const TRACES: Signal = Signal { name: "TRACES", path: "/v1/traces", export_timeout: "OTEL_BSP_EXPORT_TIMEOUT" };
const METRICS: Signal = Signal { name: "METRICS", path: "/v1/metrics", export_timeout: "OTEL_METRIC_EXPORT_TIMEOUT" };

/// Reads the variables. Invalid values are ignored with a warning.
pub(super) fn read(environment: &Environment, report: &mut Report) -> Telemetry {
    let mut variables = Variables { environment, report };
    variables.warn_of_unsupported();
    let disabled = variables.flag("OTEL_SDK_DISABLED");
    let resource_attributes = variables.resource_attributes();
    Telemetry {
        service_name: variables.service_name(&resource_attributes),
        resource_attributes,
        traces: if disabled { None } else { variables.exporter(&TRACES) },
        metrics: if disabled { None } else { variables.exporter(&METRICS) },
        sampler: variables.sampler(),
        batch: Batch {
            queue: variables.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 65_536) as usize,
            export: variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 192, 65_536) as usize,
            delay: millis(variables.number("OTEL_BSP_SCHEDULE_DELAY", 5_000, MAX_MILLIS).into()),
        },
        span_attributes: variables.span_attributes(),
        temporality: variables.temporality(),
        metric_interval: millis(variables.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000, MAX_MILLIS).into()),
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
            report.setting(&name, &settings::shown_url_with_path(&otlp.endpoint, signal.path), "environment");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertificateParams, KeyPair};
    use secrecy::ExposeSecret;

    use super::known::{NO_EFFECT, READ, UNSUPPORTED};
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
            (("OTEL_METRICS_EXPORTER", "otlp,prometheus"), both),
            (("OTEL_METRICS_EXPORTER", "Prometheus, OTLP,"), both),
            (("OTEL_METRICS_EXPORTER", "prometheus,none"), [both[0], None]),
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
            ("OTEL_METRICS_EXPORTER", "otlp,s3cr3t", true, true),
            ("OTEL_TRACES_EXPORTER", "prometheus", false, true),
            ("OTEL_TRACES_EXPORTER", "otlp,s3cr3t", true, true),
            ("OTEL_LOGS_EXPORTER", "s3cr3t", true, true),
            ("OTEL_PROPAGATORS", "tracecontext,s3cr3t", true, true),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "s3cr3t", true, true),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "s3cr3t", true, true),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1", true, true),
            ("OTEL_BSP_EXPORT_TIMEOUT", "0", true, true),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "18446744073709551615", true, true),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=s3cr3t%zz", true, true),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/s3cr3t", true, true),
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
    fn every_variable_is_read_or_warned_of() {
        let ratio = ("OTEL_TRACES_SAMPLER", "traceidratio");
        for name in READ {
            let mut variables = vec![ENDPOINT, ratio];
            variables.retain(|(other, _)| other != name);
            variables.push((*name, "\u{fffd}"));
            let (_, warnings) = read(&variables);
            assert!(matches!(&warnings[..], [warning] if warning.starts_with(&format!("{name}: "))), "{warnings:?}");
        }
        for unsupported in UNSUPPORTED {
            for name in unsupported.names {
                let (_, warnings) = read(&[(name, "1")]);
                assert_eq!(warnings, [format!("{name}: {}", unsupported.message)]);
                assert!(read(&[(name, " ")]).1.is_empty(), "{name}");
            }
        }
        for name in NO_EFFECT {
            valid(&[(name, "true")]);
        }
    }

    #[test]
    fn the_page_lists_every_variable_with_its_use() {
        const PAGE: &str = include_str!("../../docs/telemetry.md");
        let (_, table) = PAGE.split_once("\n| variable | use | meaning |\n").expect("the table of variables");
        let mut documented = BTreeMap::new();
        for line in table.lines().skip(1).take_while(|line| line.starts_with('|')) {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let [_, names, usage, meaning, _] = cells[..] else { panic!("expected three cells: {line}") };
            assert!(!meaning.is_empty(), "{line}");
            for name in names.split('`').skip(1).step_by(2) {
                assert!(documented.insert(name, usage).is_none(), "{name} has two rows");
            }
        }
        let unsupported = UNSUPPORTED.iter().flat_map(|unsupported| unsupported.names);
        let uses = [("read", READ.iter().collect::<Vec<_>>()), ("none", NO_EFFECT.iter().collect())];
        let all = uses.into_iter().chain([("warning", unsupported.collect())]);
        let known = all.flat_map(|(usage, names)| names.into_iter().map(move |name| (*name, usage)));
        assert_eq!(documented, known.collect());
    }

    #[test]
    fn values_that_ask_for_the_usual_cause_no_warning() {
        for (name, value) in [
            ("OTEL_PROPAGATORS", "tracecontext,baggage"),
            ("OTEL_PROPAGATORS", "TraceContext"),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "console"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "always_off"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram"),
            ("OTEL_SEMCONV_STABILITY_OPT_IN", "http"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ] {
            valid(&[ENDPOINT, (name, value)]);
        }
    }

    #[test]
    fn exports_are_bounded_by_the_smaller_timeout() {
        let timeouts = |variables: &[(&str, &str)]| {
            let telemetry = valid(&[&[ENDPOINT], variables].concat());
            [telemetry.traces, telemetry.metrics].map(|otlp| otlp.expect("an exporter").timeout.as_millis())
        };
        let long = ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000");
        assert_eq!(timeouts(&[]), [10_000, 10_000]);
        assert_eq!(timeouts(&[long]), [60_000, 60_000]);
        assert_eq!(timeouts(&[long, ("OTEL_BSP_EXPORT_TIMEOUT", "30000")]), [30_000, 60_000]);
        assert_eq!(timeouts(&[("OTEL_METRIC_EXPORT_TIMEOUT", "2000")]), [10_000, 2_000]);
    }

    #[test]
    fn compression_temporality_and_limits_are_read() {
        let general = ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP");
        let gzip = |variables: &[(&str, &str)]| {
            let telemetry = valid(variables);
            [telemetry.traces, telemetry.metrics].map(|otlp| otlp.expect("an exporter").gzip)
        };
        assert_eq!(gzip(&[ENDPOINT]), [false, false]);
        assert_eq!(gzip(&[ENDPOINT, general]), [true, true]);
        assert_eq!(gzip(&[ENDPOINT, general, ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none")]), [false, true]);

        const TEMPORALITY: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        assert_eq!(valid(&[]).temporality, Temporality::Cumulative);
        assert_eq!(valid(&[(TEMPORALITY, "Delta")]).temporality, Temporality::Delta);
        assert_eq!(valid(&[(TEMPORALITY, "lowmemory")]).temporality, Temporality::LowMemory);

        let general = ("OTEL_ATTRIBUTE_COUNT_LIMIT", "7");
        assert_eq!(valid(&[]).span_attributes, 128);
        assert_eq!(valid(&[general]).span_attributes, 7);
        assert_eq!(valid(&[general, ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0")]).span_attributes, 0);
    }

    #[test]
    fn an_invalid_part_discards_all_resource_attributes() {
        let attributes = |value: &str| read(&[("OTEL_RESOURCE_ATTRIBUTES", value)]);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let valid = [
            ("a=1,b=%E4%BD%A0%2C%3d, c = 2 ,", vec![pair("a", "1"), pair("b", "\u{4f60},="), pair("c", "2")]),
            ("a%20b=", vec![pair("a b", "")]),
            ("a=b=c", vec![pair("a", "b=c")]),
            (",", vec![]),
        ];
        for (value, expected) in valid {
            let (telemetry, warnings) = attributes(value);
            assert_eq!((telemetry.resource_attributes, warnings), (expected, vec![]), "{value}");
        }
        for invalid in
            ["b", "=b", " =b", "%20%=b", "b=%", "b=%4", "b=%zz", "b=%+1", "b=%e", "b=%ff", "%c3=b", "%\u{e9}1=b"]
        {
            let (telemetry, warnings) = attributes(&format!("service.name=a,{invalid}"));
            assert_eq!(telemetry.resource_attributes, [], "{invalid}");
            assert_eq!(telemetry.service_name, "scm-gateway");
            assert!(
                matches!(&warnings[..], [warning] if warning.starts_with("OTEL_RESOURCE_ATTRIBUTES: ")),
                "{invalid}"
            );
        }
    }

    #[test]
    fn invalid_certificate_files_disable_the_exporter() {
        const TLS_ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318");
        const CA: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
        const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
        const KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";
        const OWN_KEY: &str = "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY";
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs::write(&path, content).expect("the file is written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the permissions are set");
            path.to_str().expect("UTF-8").to_owned()
        };
        let [key, other_key] = [(); 2].map(|()| KeyPair::generate().expect("a key"));
        let certificate = CertificateParams::default().self_signed(&key).expect("a certificate").pem();
        let good = file("certificate", &certificate);
        let two = file("two", &format!("{}{certificate}", certificate.trim_end()));
        let key = file("key", &key.serialize_pem());
        let other_key = file("other_key", &other_key.serialize_pem());
        let noise = file("noise", "s3cr3t");
        let large = file("large", &" ".repeat(1024 * 1024 + 1));
        let missing = folder.path().join("missing").to_str().expect("UTF-8").to_owned();
        let directory = folder.path().to_str().expect("UTF-8").to_owned();
        // The variables, whether traces and metrics are exported, and the variable, file and text of the warning.
        type Row<'a> = (&'a [(&'a str, &'a str)], [bool; 2], Option<(&'a str, &'a str, &'a str)>);
        let table: [Row<'_>; 14] = [
            (&[(CA, &good)], [true, true], None),
            (&[(CERTIFICATE, &two), (KEY, &key)], [true, true], None),
            (&[(CA, &missing)], [false, false], Some((CA, &missing, "cannot be read"))),
            (&[(CA, &directory)], [false, false], Some((CA, &directory, "is not a regular file"))),
            (&[(CA, &noise)], [false, false], Some((CA, &noise, "holds no certificate"))),
            (&[(CA, &large)], [false, false], Some((CA, &large, "is larger"))),
            (&[(CA, &key)], [false, false], Some((CA, &key, "holds no certificate"))),
            (
                &[(CERTIFICATE, &noise), (KEY, &key)],
                [false, false],
                Some((CERTIFICATE, &noise, "holds no certificate")),
            ),
            (&[(CERTIFICATE, &good), (KEY, &noise)], [false, false], Some((KEY, &noise, "holds no private key"))),
            (&[(CERTIFICATE, &good), (KEY, &other_key)], [false, false], Some((KEY, &other_key, "not the one"))),
            (&[(CERTIFICATE, &good)], [false, false], Some((CERTIFICATE, "", KEY))),
            (&[(KEY, &key)], [false, false], Some((KEY, "", CERTIFICATE))),
            (
                &[(CERTIFICATE, &good), (KEY, &key), (OWN_KEY, &missing)],
                [false, true],
                Some((OWN_KEY, &missing, "cannot be read")),
            ),
            (
                &[("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none"), (CA, &missing)],
                [false, false],
                None,
            ),
        ];
        for (variables, exports, expected) in table {
            let (telemetry, warnings) = read(&[&[TLS_ENDPOINT], variables].concat());
            assert_eq!(endpoints(&telemetry).map(|endpoint| endpoint.is_some()), exports, "{variables:?}");
            match (expected, &warnings[..]) {
                (None, []) => {}
                (Some((variable, file, text)), [warning]) => {
                    assert!(warning.starts_with(&format!("{variable}: {file}")), "{warning}");
                    assert!(warning.contains(text) && warning.ends_with("nothing is exported"), "{warning}");
                    assert!(!warning.contains("s3cr3t"), "{warning}");
                }
                _ => panic!("{variables:?}: {warnings:?}"),
            }
            assert!(!format!("{telemetry:?}").contains("PRIVATE KEY"), "{telemetry:?}");
        }

        let tls =
            |variables: &[(&str, &str)]| valid(&[&[TLS_ENDPOINT], variables].concat()).traces.expect("traces").tls;
        assert!(tls(&[]).roots.is_none() && tls(&[]).identity.is_none());
        assert_eq!(tls(&[(CA, &two)]).roots.expect("roots").matches("BEGIN CERTIFICATE").count(), 2);
        let identity = tls(&[(CERTIFICATE, &two), (KEY, &key)]).identity.expect("an identity");
        assert_eq!(identity.expose_secret().matches("BEGIN ").count(), 3);

        let (telemetry, warnings) = read(&[ENDPOINT, (CA, &missing), (KEY, &key)]);
        assert!(telemetry.traces.is_some() && telemetry.metrics.is_some());
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.contains("http://")), "{warnings:?}");

        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("the permissions are set");
        let (telemetry, warnings) = read(&[TLS_ENDPOINT, (CERTIFICATE, &good), (KEY, &key)]);
        assert!(telemetry.traces.is_some());
        assert!(matches!(&warnings[..], [warning] if warning.contains("chmod o-rw")), "{warnings:?}");
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
