//! The variables of the OpenTelemetry specification, and the gateway's use of each. The table in docs/telemetry.md has
//! the same variables.

/// The variables that are read.
pub(super) const READ: &[&str] = &[
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_TRACES_EXPORTER",
    "OTEL_METRICS_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
];

/// The variables whose effect the gateway has in any case.
pub(super) const NO_EFFECT: &[&str] = &[
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    "OTEL_EXPORTER_OTLP_METRICS_INSECURE",
    "OTEL_EXPORTER_OTLP_SPAN_INSECURE",
    "OTEL_EXPORTER_OTLP_METRIC_INSECURE",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
];

/// Variables that ask for something that the gateway does not do.
pub(super) struct Unsupported {
    pub(super) names: &'static [&'static str],
    /// The words that ask for what the gateway does.
    unless: &'static [&'static str],
    pub(super) message: &'static str,
}

impl Unsupported {
    /// Returns whether a value asks only for what the gateway does.
    pub(super) fn permits(&self, value: &str) -> bool {
        words(value).all(|word| self.unless.contains(&word.as_str()))
    }
}

const LOGS: &str = "is ignored: the log goes to standard output and is not exported";
const LENGTH: &str = "is ignored: the length of attributes is bounded, and cannot be set";
const ZIPKIN: &str = "is ignored: there is no Zipkin exporter";

pub(super) const UNSUPPORTED: &[Unsupported] = &[
    Unsupported {
        names: &["OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE"],
        unless: &[],
        message: "is ignored: the file is not read, and the other variables are in effect",
    },
    Unsupported { names: &["OTEL_ENTITIES"], unless: &[], message: "is ignored; set OTEL_RESOURCE_ATTRIBUTES" },
    Unsupported { names: &["OTEL_LOG_LEVEL"], unless: &[], message: "is ignored; RUST_LOG filters the log" },
    Unsupported {
        names: &["OTEL_PROPAGATORS"],
        unless: &["tracecontext", "baggage"],
        message: "is ignored: trace context is continued and sent as traceparent, and in no other format",
    },
    Unsupported { names: &["OTEL_LOGS_EXPORTER"], unless: &["none", "console"], message: LOGS },
    Unsupported {
        names: &[
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
            "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION",
            "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
            "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE",
            "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE",
            "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY",
            "OTEL_EXPORTER_OTLP_LOGS_INSECURE",
            "OTEL_BLRP_SCHEDULE_DELAY",
            "OTEL_BLRP_EXPORT_TIMEOUT",
            "OTEL_BLRP_MAX_QUEUE_SIZE",
            "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
            "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT",
        ],
        unless: &[],
        message: LOGS,
    },
    Unsupported {
        names: &["OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"],
        unless: &[],
        message: LENGTH,
    },
    Unsupported {
        names: &["OTEL_METRICS_EXEMPLAR_FILTER"],
        unless: &["always_off"],
        message: "is ignored: metrics have no exemplars",
    },
    Unsupported {
        names: &["OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"],
        unless: &["explicit_bucket_histogram"],
        message: "is ignored: histograms have explicit buckets",
    },
    Unsupported {
        names: &["OTEL_EXPORTER_PROMETHEUS_HOST", "OTEL_EXPORTER_PROMETHEUS_PORT"],
        unless: &[],
        message: "is ignored; admin.listen is the address of /metrics",
    },
    Unsupported {
        names: &["OTEL_EXPORTER_ZIPKIN_ENDPOINT", "OTEL_EXPORTER_ZIPKIN_TIMEOUT", "OTEL_EXPORTER_ZIPKIN_PROTOCOL"],
        unless: &[],
        message: ZIPKIN,
    },
    Unsupported {
        names: &["OTEL_SEMCONV_STABILITY_OPT_IN"],
        unless: &["http", "rpc"],
        message: "is ignored: attributes have the stable names only",
    },
];

/// Returns whether the specification has a variable of this name.
pub(super) fn is_known(name: &str) -> bool {
    let unsupported = || UNSUPPORTED.iter().flat_map(|unsupported| unsupported.names);
    READ.iter().chain(NO_EFFECT).chain(unsupported()).any(|known| *known == name)
}

/// Returns the elements of a list in lower case.
pub(super) fn words(list: &str) -> impl Iterator<Item = String> {
    list.split(',').map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty())
}
