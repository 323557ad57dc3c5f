//! `target_info`: the resource attributes at `/metrics`.

use std::collections::BTreeMap;

use opentelemetry_sdk::Resource;
use prometheus::{IntGauge, Opts};

/// Creates the metric. The exporter's own would have label names and values that Prometheus cannot read.
pub(super) fn target_info(resource: &Resource) -> prometheus::Result<IntGauge> {
    let attributes = resource.iter().map(|(key, value)| (key.as_str(), value.to_string()));
    let labels = labels(attributes.collect());
    let gauge =
        IntGauge::with_opts(Opts::new("target_info", "Target metadata").const_labels(labels.into_iter().collect()))?;
    gauge.set(1);
    Ok(gauge)
}

/// Returns the labels of attributes. The values of keys that become the same label are joined, as OpenTelemetry's
/// "Prometheus and OpenMetrics Compatibility" specifies.
fn labels(attributes: BTreeMap<&str, String>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::<String, String>::new();
    for (key, value) in attributes {
        // Prometheus takes some control characters for the end of the text.
        let value = value.replace(char::is_control, " ");
        let joined = |values: &mut String| *values = format!("{values};{value}");
        labels.entry(label(key)).and_modify(joined).or_insert(value.clone());
    }
    labels
}

/// Returns the label of a key: letters, digits and underscores, of which no digit is the first. Names that begin with
/// two underscores are reserved, and `le` and `quantile` belong to histograms and summaries.
fn label(key: &str) -> String {
    let name: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let is_reserved = name.starts_with("__") || matches!(name.as_str(), "le" | "quantile");
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) || is_reserved {
        format!("key_{name}")
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use opentelemetry::KeyValue;
    use prometheus::{Registry, TextEncoder};

    use super::*;

    /// Returns the labels of the line of `target_info` at `/metrics`, which has to be the only line but comments.
    /// Follows Prometheus' page "Exposition formats".
    fn read(text: &str) -> Vec<(String, String)> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let line = lines.next().expect("a line");
        assert_eq!(lines.next(), None, "{text}");
        let labels = line.strip_prefix("target_info").and_then(|rest| rest.strip_suffix(" 1")).expect("the metric");
        let Some(labels) = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            assert_eq!(labels, "");
            return Vec::new();
        };
        let mut rest = labels;
        let mut read = Vec::new();
        while !rest.is_empty() {
            let (name, quoted) = rest.split_once("=\"").expect("a label");
            let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
            assert!(
                name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit()),
                "{name:?}"
            );
            assert!(!name.starts_with("__"), "{name}");
            let mut value = String::new();
            let mut chars = quoted.chars();
            loop {
                match chars.next().expect("the end of the value") {
                    '"' => break,
                    '\\' => value.push(chars.next().expect("an escaped character")),
                    c => value.push(c),
                }
            }
            assert!(!value.contains(char::is_control), "{value:?}");
            read.push((name.to_owned(), value));
            let end = chars.as_str();
            rest = end.strip_prefix(',').unwrap_or_else(|| {
                assert_eq!(end, "");
                end
            });
        }
        let names: BTreeSet<_> = read.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), read.len(), "duplicate labels in {line}");
        read
    }

    fn shown(attributes: &[(&str, &str)]) -> Vec<(String, String)> {
        let attributes = attributes.iter().map(|(key, value)| KeyValue::new(key.to_string(), value.to_string()));
        let registry = Registry::new();
        let resource = Resource::builder_empty().with_attributes(attributes).build();
        registry.register(Box::new(target_info(&resource).unwrap())).unwrap();
        read(&TextEncoder::new().encode_to_string(&registry.gather()).unwrap())
    }

    #[test]
    fn any_resource_attribute_becomes_a_valid_label() {
        type Pairs<'a> = &'a [(&'a str, &'a str)];
        let table: [(Pairs<'_>, Pairs<'_>); 14] = [
            (&[], &[]),
            (&[("service.name", "x")], &[("service_name", "x")]),
            (&[("", "x")], &[("key_", "x")]),
            (&[("1st", "x")], &[("key_1st", "x")]),
            (&[("a:b-c/d", "x")], &[("a_b_c_d", "x")]),
            (&[("..name..", "x")], &[("key___name__", "x")]),
            (&[("le", "x"), ("quantile", "y")], &[("key_le", "x"), ("key_quantile", "y")]),
            (&[("_own", "x")], &[("_own", "x")]),
            (&[("\u{4f60}\u{e9}", "\u{4f60}")], &[("key___", "\u{4f60}")]),
            (&[("a_b", "2"), ("a.b", "1"), ("a b", "0")], &[("a_b", "0;1;2")]),
            (&[("1", "x"), ("key_1", "y")], &[("key_1", "x;y")]),
            (&[("a\n\"b", "\"},\\")], &[("a__b", "\"},\\")]),
            (&[("a", "1\n2\r3\u{0}4\u{85}5\t")], &[("a", "1 2 3 4 5 ")]),
            (&[("a", "")], &[("a", "")]),
        ];
        for (attributes, labels) in table {
            let labels: Vec<_> = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            assert_eq!(shown(attributes), labels, "{attributes:?}");
        }
    }
}
