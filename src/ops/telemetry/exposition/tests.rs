//! Tests of the formats of `/metrics`.

use http::{HeaderMap, HeaderValue, header::ACCEPT};
use prometheus::{Counter, Gauge, Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

use super::{
    Format::{self, OpenMetrics, Text},
    weight,
};

fn accepted(values: &[&str]) -> Format {
    let values = values.iter().map(|value| (ACCEPT, HeaderValue::from_str(value).unwrap()));
    Format::accepted(&values.collect::<HeaderMap>())
}

#[test]
fn scrapers_get_the_format_that_they_prefer() {
    const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    const TEXT_FIRST: &str =
        "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.2";
    const PROTOBUF_FIRST: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
        encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let table: [(&[&str], Format); 29] = [
        (&[], Text),
        (&[""], Text),
        (&["*/*"], Text),
        (&[BROWSER], Text),
        (&[PROMETHEUS_2], OpenMetrics),
        (&[PROMETHEUS_3], OpenMetrics),
        (&[PROTOBUF_FIRST], OpenMetrics),
        (&[TEXT_FIRST], Text),
        (&["application/openmetrics-text; version=1.0.0"], OpenMetrics),
        (&["application/openmetrics-text; version=\"1.0.0\"; charset=utf-8"], OpenMetrics),
        (&["Application/OpenMetrics-Text ; Version=1.0.0 ; Q=0.001"], OpenMetrics),
        (&["application/openmetrics-text"], OpenMetrics),
        (&["application/*"], OpenMetrics),
        (&["application/openmetrics-text;version=0.0.1"], Text),
        (&["application/openmetrics-text;version=2.0.0"], Text),
        (&["application/openmetrics-text;version=1.0.0;q=0"], Text),
        (&["application/openmetrics-text;version=1.0.0;q=0.000, */*"], Text),
        (&["application/openmetrics-text;version=1.0.0, */*"], OpenMetrics),
        (&["*/*, application/openmetrics-text;version=1.0.0"], OpenMetrics),
        (&["application/openmetrics-text;version=1.0.0, text/plain;version=0.0.4"], Text),
        (&["application/openmetrics-text;version=1.0.0, text/plain"], OpenMetrics),
        (&["application/openmetrics-text;q=0.5, text/plain;q=0.4"], OpenMetrics),
        (&["application/openmetrics-text;q=0.4, text/plain;q=0.5"], Text),
        (&["text/plain;q=0, application/openmetrics-text;q=0.1"], OpenMetrics),
        (&["text/plain;q=0.5", "application/openmetrics-text;q=0.6"], OpenMetrics),
        (&["image/png"], Text),
        (&["application/openmetrics-text;q=high"], Text),
        (&["application/openmetrics-text;version"], Text),
        (&["application, ;;, /, =;q=1, application/openmetrics-text;"], OpenMetrics),
    ];
    for (values, format) in table {
        assert_eq!(accepted(values), format, "{values:?}");
    }
}

#[test]
fn weights_have_the_form_of_rfc_9110() {
    let table =
        [("0", 0), ("0.", 0), ("0.5", 500), ("0.05", 50), ("0.123", 123), ("1", 1000), ("1.", 1000), ("1.000", 1000)];
    for (text, expected) in table {
        assert_eq!(weight(text), Some(expected), "{text}");
    }
    for malformed in ["", ".5", "1.001", "2", "-0", "+1", "0.1234", "0.+5", "0,5", "1e0", "NaN", "inf", " 1", "0.5 "] {
        assert_eq!(weight(malformed), None, "{malformed:?}");
    }
}

#[test]
fn open_metrics_differs_from_the_text_format_only_as_specified() {
    let registry = Registry::new();
    let calls = IntCounterVec::new(Opts::new("calls_total", r#"Calls "so far" \ all"#), &["role"]).unwrap();
    calls.with_label_values(&["1"]).inc();
    calls.with_label_values(&["a\"b\\c\nd"]).inc_by(2);
    let took = HistogramOpts::new("took_seconds", "Duration").const_label("role", "5").buckets(vec![0.5, 1.0, 10.0]);
    let took = Histogram::with_opts(took).unwrap();
    took.observe(0.75);
    let busy = Counter::new("busy_seconds_total", "Busy time").unwrap();
    busy.inc_by(1.25);
    let size = Gauge::new("bytes", "A name that is a unit").unwrap();
    size.set(-1.0);
    let odd = Counter::new("odd", "A counter without the suffix").unwrap();
    registry.register(Box::new(calls)).unwrap();
    registry.register(Box::new(took)).unwrap();
    registry.register(Box::new(busy)).unwrap();
    registry.register(Box::new(size)).unwrap();
    registry.register(Box::new(odd)).unwrap();
    let families = registry.gather();
    let open_metrics = r#"# TYPE busy_seconds counter
# UNIT busy_seconds seconds
# HELP busy_seconds Busy time
busy_seconds_total 1.25
# TYPE bytes gauge
# HELP bytes A name that is a unit
bytes -1
# TYPE calls counter
# HELP calls Calls \"so far\" \\ all
calls_total{role="1"} 1
calls_total{role="a\"b\\c\nd"} 2
# TYPE odd unknown
# HELP odd A counter without the suffix
odd 0
# TYPE took_seconds histogram
# UNIT took_seconds seconds
# HELP took_seconds Duration
took_seconds_bucket{role="5",le="0.5"} 0
took_seconds_bucket{role="5",le="1.0"} 1
took_seconds_bucket{role="5",le="10.0"} 1
took_seconds_bucket{role="5",le="+Inf"} 1
took_seconds_sum{role="5"} 0.75
took_seconds_count{role="5"} 1
# EOF
"#;
    assert_eq!(Format::OpenMetrics.encode(&families).unwrap(), open_metrics);
    let text = r#"# HELP busy_seconds_total Busy time
# TYPE busy_seconds_total counter
busy_seconds_total 1.25
# HELP bytes A name that is a unit
# TYPE bytes gauge
bytes -1
# HELP calls_total Calls "so far" \\ all
# TYPE calls_total counter
calls_total{role="1"} 1
calls_total{role="a\"b\\c\nd"} 2
# HELP odd A counter without the suffix
# TYPE odd counter
odd 0
# HELP took_seconds Duration
# TYPE took_seconds histogram
took_seconds_bucket{role="5",le="0.5"} 0
took_seconds_bucket{role="5",le="1"} 1
took_seconds_bucket{role="5",le="10"} 1
took_seconds_bucket{role="5",le="+Inf"} 1
took_seconds_sum{role="5"} 0.75
took_seconds_count{role="5"} 1
"#;
    assert_eq!(Format::Text.encode(&families).unwrap(), text);
}

#[test]
fn page_without_metrics_has_an_end() {
    assert_eq!(Format::OpenMetrics.encode(&[]).unwrap(), "# EOF\n");
}
