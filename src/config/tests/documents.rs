//! Compares the sample file, the documentation and the chart with the configuration that the code reads.

use std::collections::{BTreeMap, BTreeSet};

use bytesize::ByteSize;

use super::*;
use crate::proto::{RPCS, Rpc};

const PAGE: &str = include_str!("../../../docs/configuration.md");
const CREDENTIALS_PAGE: &str = include_str!("../../../docs/credentials.md");
const README: &str = include_str!("../../../README.md");
const SAMPLE: &str = include_str!("../../../deploy/scm-gateway.toml");

/// Keys whose default depends on the machine or on other keys. The page describes these defaults in words.
const COMPUTED_DEFAULTS: [&str; 7] = [
    "admin.pages",
    "projects[].oidc.session_name",
    "server.worker_threads",
    "server.max_in_flight_per_caller",
    "server.max_in_flight_per_project",
    "server.memory_quota_per_caller",
    "server.max_connections_per_caller",
];

/// A row of a key table in docs/configuration.md.
struct Row {
    default: &'static str,
    range: &'static str,
}

/// Returns the rows of all key tables of the page by key.
fn documented() -> BTreeMap<&'static str, Row> {
    let mut rows = BTreeMap::new();
    let tables = PAGE.split("\n| key | default | range | meaning |\n").skip(1);
    for line in tables.flat_map(|table| table.lines().skip(1).take_while(|line| line.starts_with('|'))) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, key, default, range, meaning, _] = cells[..] else { panic!("expected four cells: {line}") };
        let key = key.strip_prefix('`').and_then(|key| key.strip_suffix('`')).expect("a key in backticks");
        assert!(!meaning.is_empty(), "{key} has no meaning");
        assert!(rows.insert(key, Row { default, range }).is_none(), "{key} has two rows");
    }
    rows
}

/// Returns all keys that the code accepts. The problem of an unknown key lists the keys of its section.
fn known_keys() -> BTreeSet<String> {
    let text = "x = 1\n[server]\nx = 1\n[server.tls]\nx = 1\n[admin]\nx = 1\n[upstream]\nx = 1\n[watch]\nx = 1\n[[projects]]\nx = 1\n\
                [projects.oidc]\nx = 1\n[projects.pod_identity]\nx = 1\n[[callers]]\nx = 1\n";
    let problems = problems(text, &Environment::new());
    let unknown: Vec<_> = problems.iter().filter_map(|line| line.split_once("x: unknown key; ")).collect();
    assert_eq!(unknown.len(), 10, "{problems:#?}");
    let mut keys = BTreeSet::new();
    for (section, known) in unknown {
        let section = section.replace("[0]", "[]");
        keys.extend(known.split('`').skip(1).step_by(2).map(|key| format!("{section}{key}")));
    }
    let is_section = |key: &str| {
        let table = format!("{key}.");
        let list = format!("{key}[].");
        keys.iter().any(|other| other.starts_with(&table) || other.starts_with(&list))
    };
    keys.iter().filter(|key| !is_section(key)).cloned().collect()
}

/// Returns all keys of the sample, including those in comments.
fn sample_keys() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut section = String::new();
    for line in SAMPLE.lines().map(|line| line.trim_start_matches("# ")) {
        if let Some(list) = line.strip_prefix("[[").and_then(|line| line.strip_suffix("]]")) {
            section = format!("{list}[].");
        } else if let Some(table) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{table}.").replace("projects.", "projects[].");
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            keys.insert(format!("{section}{key}"));
        }
    }
    keys
}

/// Reads `LOW to HIGH`, two durations, sizes or numbers.
fn bounds(text: &str) -> Option<[u64; 2]> {
    let amount = |text: &str| {
        let number = text.parse().ok();
        let duration = || u64::try_from(humantime::parse_duration(text).ok()?.as_millis()).ok();
        number.or_else(duration).or_else(|| text.parse::<ByteSize>().ok().map(|size| size.as_u64()))
    };
    let (low, high) = text.split_once(" to ")?;
    Some([amount(low)?, amount(high)?])
}

#[test]
fn the_sample_holds_the_defaults() {
    let [mut sample, mut default] = [
        valid(SAMPLE, &with_credentials(&[])),
        load(None, &with_credentials(&[])).expect("the configuration is valid"),
    ];
    // Only the sources of the values may differ.
    let [from_file, by_default] = [&mut sample, &mut default].map(|config| std::mem::take(&mut config.settings));
    assert_eq!(format!("{sample:?}"), format!("{default:?}"));
    let values = |settings: &Settings| settings.iter().map(Setting::assignment).collect::<BTreeSet<_>>();
    assert_eq!(values(&from_file), values(&by_default));
}

#[test]
fn page_and_sample_have_exactly_the_known_keys() {
    let known = known_keys();
    assert_eq!(documented().into_keys().map(str::to_owned).collect::<BTreeSet<_>>(), known, "docs/configuration.md");
    assert_eq!(sample_keys(), known, "deploy/scm-gateway.toml");
}

#[test]
fn documented_defaults_match_the_code() {
    let dir = Dir::new();
    let config = valid(&dir.oidc_project("a"), &Environment::new());
    let assignments = config.settings.iter().map(|setting| setting.assignment().replace("[0]", "[]"));
    let assignments: Vec<_> = assignments.filter(|line| !line.contains("[].") || line.contains("duration")).collect();
    let defaults: BTreeMap<_, _> = assignments.iter().filter_map(|line| line.split_once(" = ")).collect();
    for (key, Row { default, .. }) in documented() {
        match defaults.get(key).filter(|_| !COMPUTED_DEFAULTS.contains(&key)) {
            Some(value) => assert_eq!(default, format!("`{value}`"), "{key}"),
            None => assert!(!default.is_empty() && !default.starts_with('`'), "{key} has no fixed default"),
        }
    }
}

#[test]
fn documented_ranges_match_the_code() {
    let mut compared = 0;
    for (key, row) in documented() {
        // Entries of lists have no ranges, and the variables of an entry depend on each other.
        if !key.contains('.') || key.contains("[]") {
            continue;
        }
        let variable = format!("SCM_GATEWAY__{}", key.replace('.', "__").to_ascii_uppercase());
        let problems = problems("", &with_credentials(&[(&variable, "?")]));
        let expected = problems.iter().find_map(|line| bounds(line.rsplit_once(" from ")?.1));
        assert_eq!(bounds(row.range), expected, "{key}: {problems:?}");
        compared += usize::from(expected.is_some());
    }
    assert!(compared > 20, "only {compared} keys have a range");
}

/// Returns the lines of the sample with all keys, without those of other sources of credentials.
fn sample_with(source: &str) -> impl Iterator<Item = &'static str> {
    let is_key = |line: &str| {
        (line.starts_with("# [") && line.ends_with(']'))
            || line.split_once(" = ").is_some_and(|(key, _)| {
                key.trim_start_matches("# ").bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            })
    };
    let lines = SAMPLE.lines().map(move |line| if is_key(line) { line.trim_start_matches("# ") } else { line });
    let other_tables = ["oidc", "pod_identity"].map(|table| (table != source).then(|| format!("[projects.{table}]")));
    let has_files = source == "files";
    let mut table = "";
    lines.filter(move |line| {
        table = if line.starts_with('[') { line } else { table };
        let is_file = table == "[[projects]]" && line.contains("_file = ");
        !line.starts_with("endpoint")
            && !other_tables.iter().flatten().any(|other| other == table)
            && (has_files || !is_file)
    })
}

#[test]
fn the_sample_with_all_keys_is_valid() {
    let dir = Dir::new();
    let key = dir.file("key", "key\n");
    let certificate = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).expect("a certificate");
    let ca = dir.file("ca.pem", certificate.cert.pem());
    let server_key = dir.file("server.key", certificate.signing_key.serialize_pem());
    for source in ["files", "oidc", "pod_identity"] {
        let text: String = sample_with(source)
            .map(|line| match line.split_once(" = ") {
                Some((ca_file @ ("ca_file" | "client_ca_file" | "cert_file"), _)) => format!("{ca_file} = {ca:?}\n"),
                Some(("key_file", _)) => format!("key_file = {server_key:?}\n"),
                Some((key_file, _)) if key_file.ends_with("_file") => format!("{key_file} = {key:?}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let config = valid(&text, &Environment::new());
        assert!(config.upstream.ca.is_some_and(|ca| ca.certificates.len() == 1));
        assert!(config.upstream.proxy.is_some());
        assert!(config.server.tls.is_some_and(|tls| tls.material.client_ca.is_some()));
        assert_eq!(config.callers.len(), 1);
        let project = config.projects.default_project();
        assert_eq!(project.credentials_source.name(), source);
        assert!(source != "files" || credentials_of(project).security_token.is_some());
    }
}

#[test]
fn examples_of_the_credentials_page_are_valid() {
    let dir = Dir::new();
    let (key, token) = (dir.file("key", "key\n"), dir.token_file());
    let blocks = |language: &str| {
        let start = format!("```{language}\n");
        let blocks: Vec<_> =
            CREDENTIALS_PAGE.split(&start).skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!blocks.is_empty(), "{language}");
        blocks
    };
    let source = |config: &Config| config.projects.default_project().credentials_source.name();
    let sources = blocks("toml").into_iter().map(|block| {
        let lines = block.lines().map(|line| match line.trim().split_once(" = ") {
            Some((file, _)) if file.ends_with("token_file") => format!("{file} = {token:?}\n"),
            Some((file, _)) if file.ends_with("_file") => format!("{file} = {key:?}\n"),
            _ => format!("{line}\n"),
        });
        source(&valid(&lines.collect::<String>(), &Environment::new()))
    });
    assert_eq!(sources.collect::<Vec<_>>(), ["oidc", "pod_identity", "ecs_agency", "files"]);

    for block in blocks("sh") {
        let exported = block.lines().filter_map(|line| line.trim().strip_prefix("export ")?.split_once('='));
        let environment: Environment = exported
            .map(|(name, value)| {
                (name.to_owned(), if name.ends_with("_FILE") { token.clone() } else { value.to_owned() })
            })
            .collect();
        assert_eq!(source(&valid("", &environment)), "oidc");
    }
}

#[test]
fn the_vendors_variables_are_documented() {
    let dir = Dir::new();
    for set in [dir.oidc_variables(), dir.pod_variables(), with_credentials(&[("HUAWEICLOUD_SDK_DOMAIN_ID", "d")])] {
        let config = load(None, &set).unwrap_or_else(|problems| panic!("{problems}"));
        let names = config.settings.iter().map(Setting::assignment).filter(|line| line.starts_with('H'));
        let names: Vec<_> = names.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())).collect();
        assert!(names.len() >= 3, "{names:?}");
        assert!(names.iter().all(|name| PAGE.contains(&format!("`{name}`"))), "{names:?}");
    }
}

#[test]
fn documents_and_chart_list_every_rpc() {
    let chart = include_str!("../../../deploy/helm/scm-gateway/values.schema.json");
    let services =
        README.lines().filter(|line| line.starts_with("| `") && line.contains("Service` |")).collect::<String>();
    for name in RPCS.iter().map(Rpc::short_name) {
        assert!(services.contains(&format!("`{name}`")), "the table of services in README.md does not name {name}");
    }
    let schema: serde_json::Value = serde_json::from_str(chart).expect("JSON");
    let names: Vec<_> = ["*", "read"].into_iter().chain(RPCS.iter().map(Rpc::short_name)).collect();
    assert_eq!(schema["definitions"]["methods"]["items"]["enum"], serde_json::json!(names), "values.schema.json");
}
