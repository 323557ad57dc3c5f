//! What the sample, the README and the chart say of the configuration is what it is.

use super::*;
use crate::proto::RPCS;

const README: &str = include_str!("../../../README.md");
const SAMPLE: &str = include_str!("../../../deploy/scm-gateway.toml");

#[test]
fn the_sample_holds_the_defaults() {
    let [mut sample, mut default] =
        [good(SAMPLE, &with_key(&[])), load(None, &with_key(&[])).expect("a configuration")];
    // Only where the values came from may differ.
    let [from_file, by_default] = [&mut sample, &mut default].map(|config| std::mem::take(&mut config.settings));
    assert_eq!(format!("{sample:?}"), format!("{default:?}"));
    let values =
        |settings: &Settings| settings.iter().map(Setting::assignment).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(values(&from_file), values(&by_default));
}

#[test]
fn the_sample_and_the_readme_name_every_key() {
    let text = "x = 1\n[server]\nx = 1\n[server.tls]\nx = 1\n[admin]\nx = 1\n[upstream]\nx = 1\n[[projects]]\nx = 1\n\
                [[callers]]\nx = 1\n";
    let problems = problems(text, &Environment::new());
    let unknown: Vec<_> = problems.iter().filter(|line| line.contains(": unknown key; ")).collect();
    assert_eq!(unknown.len(), 7, "{problems:#?}");
    for line in unknown {
        for key in line.split('`').skip(1).step_by(2) {
            let is_key = |line: &str| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} ="))
                    || line.starts_with(&format!("[{key}]"))
                    || line.starts_with(&format!("[server.{key}]"))
                    || line.starts_with(&format!("[[{key}]]"))
            };
            assert!(SAMPLE.lines().any(is_key), "{key}, of {line}");
            let told = [format!(".{key}`"), format!("`{key}`"), format!(".{key}.")]
                .iter()
                .any(|key| README.contains(key.as_str()));
            assert!(told || line.starts_with("x:"), "README.md does not tell of {key}, of {line}");
        }
    }
}

#[test]
fn the_whole_sample_is_right_once_the_files_are_there() {
    let dir = Dir::new();
    let key = dir.file("key", "key\n");
    let certificate = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).expect("a certificate");
    let ca = dir.file("ca.pem", certificate.cert.pem());
    let server_key = dir.file("server.key", certificate.signing_key.serialize_pem());
    let is_key = |line: &&str| {
        (line.starts_with("# [") && line.ends_with(']'))
            || line.split_once(" = ").is_some_and(|(key, _)| {
                key.trim_start_matches("# ").bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            })
    };
    let text: String = SAMPLE
        .lines()
        .map(|line| if is_key(&line) { line.trim_start_matches("# ") } else { line })
        .filter(|line| !line.starts_with("endpoint"))
        .map(|line| match line.split_once(" = ") {
            Some((ca_file @ ("ca_file" | "client_ca_file" | "cert_file"), _)) => format!("{ca_file} = {ca:?}\n"),
            Some(("key_file", _)) => format!("key_file = {server_key:?}\n"),
            Some((key_file, _)) if key_file.ends_with("_file") => format!("{key_file} = {key:?}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = good(&text, &Environment::new());
    assert!(config.upstream.ca.is_some_and(|ca| ca.certificates.len() == 1));
    assert!(config.upstream.proxy.is_some());
    assert!(config.server.tls.is_some_and(|tls| tls.material.client_ca.is_some()));
    assert_eq!(config.callers.len(), 1);
    let id = &config.projects.default_project().id;
    assert!(config.projects.get(id).is_some_and(|project| key_of(project).security_token.is_some()));
}

#[test]
fn readme_and_chart_know_every_rpc() {
    let chart = include_str!("../../../deploy/helm/scm-gateway/values.schema.json");
    let names: Vec<_> = RPCS.iter().map(|rpc| crate::config::callers::short(rpc)).collect();
    for name in &names {
        assert!(README.contains(&format!("\n| `{name}` |")), "README.md does not tell of {name}");
    }
    fn methods<'a>(schema: &'a serde_json::Value, found: &mut Vec<&'a serde_json::Value>) {
        found.extend(schema.pointer("/methods/items/enum"));
        match schema {
            serde_json::Value::Object(of) => of.values().for_each(|schema| methods(schema, found)),
            serde_json::Value::Array(of) => of.iter().for_each(|schema| methods(schema, found)),
            _ => {}
        }
    }
    let (schema, mut found) = (serde_json::from_str(chart).expect("JSON"), Vec::new());
    methods(&schema, &mut found);
    assert_eq!(found, [&serde_json::json!(names); 2], "values.schema.json lists other methods");
}
