//! Which methods a caller may call and an instance serves, for every method and every word.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
};

use prost_reflect::DynamicMessage;
use scm_emulator::{Emulator, Reply, Step};
use serde_json::Value;
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{
    Gateway, assert_status, emulator, environment,
    process::binary_path,
    rpc::{Rpc, methods, rpcs},
    samples::{self, Filling},
};

/// The permissions of each RPC, by the vendor's operations: whether it reads, and whether it has to be granted by name.
fn operations() -> BTreeMap<String, (bool, bool)> {
    let operations: Vec<Value> = serde_json::from_str(include_str!("../operations.json")).unwrap();
    let read = |operation: Value| {
        let by_name = ["destructive", "costs_money", "returns_secret"].iter().any(|key| operation[key] == true);
        (operation["name"].as_str().unwrap().to_owned(), (operation["safety"] == "read", by_name))
    };
    let watch = [("WatchCertificate".to_owned(), (true, false))]; // reads like ShowCertificate
    operations.into_iter().map(read).chain(watch).collect()
}

/// Returns whether a list of words contains a method.
fn contains(words: &[&str], method: &str, operations: &BTreeMap<String, (bool, bool)>) -> bool {
    let (reads, by_name) = operations[method];
    words.iter().any(|word| match *word {
        "*" => !by_name,
        "read" => reads && !by_name,
        name => name == method,
    })
}

/// Lists of words.
fn lists() -> Vec<Vec<&'static str>> {
    let all = rpcs().into_iter().map(|rpc| &*rpc.name().to_owned().leak());
    vec![
        vec!["*"],
        vec!["read"],
        vec!["read", "ExportCertificate", "DeleteCsr"],
        vec!["SaveInfo"],
        vec!["ShowCsrPrivateKey"],
        all.clone().filter(|name| name.len() % 2 == 0).collect(),
        all.collect(),
    ]
}

fn identity(index: usize) -> String {
    format!("spiffe://example.org/{index}")
}

/// Returns the variables of an instance that serves `methods`, with a caller for each list.
fn variables(methods: &[&str], callers: &[Vec<&str>]) -> Vec<(String, String)> {
    let mut variables = vec![("SCM_GATEWAY__SERVER__METHODS".to_owned(), methods.join(","))];
    if !callers.is_empty() {
        variables.push(("SCM_GATEWAY__SERVER__TRUST_XFCC".to_owned(), "true".to_owned()));
    }
    for (index, words) in callers.iter().enumerate() {
        let values = [("IDENTITY", identity(index)), ("METHODS", words.join(",")), ("PROJECTS", "*".to_owned())];
        variables.extend(values.map(|(key, value)| (format!("SCM_GATEWAY__CALLERS__{index}__{key}"), value)));
    }
    variables
}

async fn start(emulator: &Emulator, methods: &[&str], callers: &[Vec<&str>]) -> Gateway {
    let variables = variables(methods, callers);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Gateway::with(emulator, &variables).await
}

fn forwarded(message: DynamicMessage, caller: usize) -> Request<DynamicMessage> {
    let mut request = Request::new(message);
    let header = format!("URI={}", identity(caller));
    request.metadata_mut().insert("x-forwarded-client-cert", header.parse().unwrap());
    request
}

/// Returns a request for an unknown project, whose fields are invalid as far as they can be.
fn bad_request(rpc: &Rpc) -> DynamicMessage {
    let mut request = DynamicMessage::new(rpc.method.input());
    request.set_field_by_name("project_id", prost_reflect::Value::String("unknown\0".to_owned()));
    request
}

#[tokio::test]
async fn words_and_names_grant_exactly_their_methods() {
    let (operations, lists) = (operations(), lists());
    for enabled in &lists {
        let emulator = emulator().await;
        let gateway = start(&emulator, enabled, &lists).await;
        for (caller, words) in lists.iter().enumerate() {
            for rpc in rpcs() {
                let what = format!("{} of {words:?} with {enabled:?}", rpc.name());
                let is_enabled = contains(enabled, rpc.name(), &operations);
                let is_granted = contains(words, rpc.name(), &operations);
                let before = emulator.attempts();
                let bad = gateway.call(&rpc, forwarded(bad_request(&rpc), caller)).await.unwrap_err();
                let (code, reason) = match is_enabled {
                    false => (Code::Unimplemented, "METHOD_DISABLED"),
                    true => (Code::PermissionDenied, "CALLER_NOT_ALLOWED"),
                };
                assert_status(&bad, code, reason, None);
                assert_eq!(emulator.attempts(), before, "{what}");
                if is_enabled && is_granted {
                    let (status, body) = rpc.success();
                    emulator.script(Step::Reply(Reply::json(status, &body)));
                }
                let good = samples::request(&rpc, Filling::Required);
                let result = gateway.call(&rpc, forwarded(good, caller)).await;
                match result {
                    Ok(_) => assert!(is_enabled && is_granted, "{what}"),
                    Err(status) => {
                        assert!(!(is_enabled && is_granted), "{what}: {status:?}");
                        assert_status(&status, code, reason, None);
                    }
                }
                assert_eq!(emulator.attempts() - before, usize::from(is_enabled && is_granted), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn an_unlisted_caller_is_rejected_before_the_method() {
    let emulator = emulator().await;
    let gateway = start(&emulator, &["SaveInfo"], &[vec!["SaveInfo"]]).await;
    for rpc in rpcs() {
        let without = gateway.call(&rpc, bad_request(&rpc)).await.unwrap_err();
        assert_status(&without, Code::Unauthenticated, "CALLER_UNAUTHENTICATED", None);
        let unlisted = gateway.call(&rpc, forwarded(bad_request(&rpc), 1)).await.unwrap_err();
        assert_status(&unlisted, Code::PermissionDenied, "CALLER_NOT_ALLOWED", None);
    }
}

#[tokio::test]
async fn without_callers_an_instance_is_protected_by_the_same_words() {
    let operations = operations();
    for enabled in lists() {
        let emulator = emulator().await;
        let gateway = start(&emulator, &enabled, &[]).await;
        for rpc in rpcs() {
            let status = gateway.call(&rpc, bad_request(&rpc)).await.unwrap_err();
            match contains(&enabled, rpc.name(), &operations) {
                true => assert_status(&status, Code::PermissionDenied, "CALLER_NOT_ALLOWED", None), // the project
                false => assert_status(&status, Code::Unimplemented, "METHOD_DISABLED", None),
            }
        }
    }
}

/// Returns what `--check` says of each caller.
fn check(methods: &[&str], callers: &[Vec<&str>]) -> Vec<String> {
    let variables = variables(methods, callers);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut command = std::process::Command::new(binary_path());
    command.arg("--check").env_clear().envs(environment("https://scm.example", &variables)).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    text.lines().filter(|line| line.contains(" may call ")).map(str::to_owned).collect()
}

#[test]
fn check_prints_what_each_caller_may_call() {
    let (operations, lists) = (operations(), lists());
    for enabled in &lists {
        let expected = |words: &[&str]| {
            let allowed = |name: &String| contains(enabled, name, &operations) && contains(words, name, &operations);
            methods().iter().map(|method| method.name().to_owned()).filter(allowed).collect::<Vec<_>>().join(", ")
        };
        let lines = check(enabled, &lists);
        assert_eq!(lines.len(), lists.len());
        for (caller, (line, words)) in lines.iter().zip(&lists).enumerate() {
            let expected = match expected(words) {
                names if names.is_empty() => format!("{} may call nothing", identity(caller)),
                names => format!("{} may call {names}, for every project", identity(caller)),
            };
            assert_eq!(*line, expected);
        }
        assert_eq!(check(enabled, &[]), [format!("every caller may call {}, for every project", expected(enabled))]);
    }
}

#[tokio::test]
async fn health_has_each_service_with_an_enabled_method() {
    let operations = operations();
    for enabled in lists() {
        let emulator = emulator().await;
        let gateway = start(&emulator, &enabled, &[]).await;
        let mut health = HealthClient::new(gateway.channel().await);
        let (mut found, mut expected) = (BTreeSet::new(), BTreeSet::new());
        for rpc in rpcs() {
            if contains(&enabled, rpc.name(), &operations) {
                expected.insert(rpc.service());
            }
            if health.check(HealthCheckRequest { service: rpc.service() }).await.is_ok() {
                found.insert(rpc.service());
            }
        }
        assert_eq!(found, expected, "{enabled:?}");
        health.check(HealthCheckRequest::default()).await.unwrap();
    }
}
