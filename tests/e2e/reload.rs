//! Reload of credentials while the gateway runs.

use std::{fs, os::unix::fs::symlink, path::Path};

use scm_emulator::{Account, Emulator, Options, Reply, SAMPLE_PROJECT, Step};
use scm_gateway::clock::Clock;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::harness::{
    Gateway, assert_status, environment,
    folder::Folder,
    rpc::{Rpc, names, rpcs},
    sample,
    samples::{self, Filling},
    until,
};

pub fn account(name: &str) -> Account {
    Account {
        access_key: format!("AK{name}"),
        secret_key: format!("SK{name}"),
        security_token: Some(format!("token{name}")),
        projects: vec![SAMPLE_PROJECT.to_owned()],
        ..Account::sample()
    }
}

/// Writes the three credential files into a folder.
pub fn write(folder: &Path, name: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("ak"), format!("AK{name}\n")).unwrap();
    fs::write(folder.join("sk"), format!("SK{name}\n")).unwrap();
    fs::write(folder.join("token"), format!("token{name}\n")).unwrap();
}

async fn start(folder: &Folder) -> (Emulator, Gateway) {
    start_with(folder, &[]).await
}

async fn start_with(folder: &Folder, further: &[(&str, &str)]) -> (Emulator, Gateway) {
    let options = Options { accounts: vec![account("1"), account("2")], ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let ak = folder.path("ak");
    let sk = folder.path("sk");
    let token = folder.path("token");
    let variables = [
        ("SCM_GATEWAY__PROJECTS__0__ID", SAMPLE_PROJECT),
        ("SCM_GATEWAY__PROJECTS__0__AK_FILE", &ak),
        ("SCM_GATEWAY__PROJECTS__0__SK_FILE", &sk),
        ("SCM_GATEWAY__PROJECTS__0__SECURITY_TOKEN_FILE", &token),
    ];
    let gateway =
        Gateway::start(environment(&emulator.endpoint(), &[&variables, further].concat()), Clock::system()).await;
    (emulator, gateway)
}

/// Makes a call and returns the access key that signed its request.
pub async fn access_key_used(emulator: &Emulator, gateway: &Gateway) -> String {
    gateway.save(sample()).await.unwrap();
    emulator.journal().last().unwrap().access_key.clone()
}

/// Waits until the metrics count a reload of credentials with this outcome.
pub async fn reloaded(gateway: &Gateway, outcome: &str) {
    counted(gateway, "scm_gateway_credentials_reloads", outcome).await;
}

/// Waits until a metric counts this outcome.
pub async fn counted(gateway: &Gateway, metric: &str, outcome: &str) {
    let label = format!("outcome=\"{outcome}\"");
    let is_counted = || async {
        let (_, metrics) = gateway.admin("/metrics").await;
        metrics.lines().any(|line| line.starts_with(metric) && line.contains(&label) && !line.ends_with(" 0"))
    };
    until(&format!("{metric} with {label}"), is_counted).await;
}

#[tokio::test]
async fn rewritten_files_are_reloaded_together() {
    let folder = Folder::new();
    write(folder.0.path(), "1");
    let (emulator, gateway) = start(&folder).await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK1");
    write(folder.0.path(), "2");
    reloaded(&gateway, "success").await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK2");
    assert!(emulator.rejections().is_empty(), "old and new credentials are never mixed");
}

#[tokio::test]
async fn kubernetes_link_swap_is_reloaded() {
    let folder = Folder::new();
    write(&folder.0.path().join("..1"), "1");
    write(&folder.0.path().join("..2"), "2");
    symlink("..1", folder.0.path().join("..data")).unwrap();
    for name in ["ak", "sk", "token"] {
        symlink(Path::new("..data").join(name), folder.0.path().join(name)).unwrap();
    }
    let (emulator, gateway) = start(&folder).await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK1");
    symlink("..2", folder.0.path().join("..data_tmp")).unwrap();
    fs::rename(folder.0.path().join("..data_tmp"), folder.0.path().join("..data")).unwrap();
    reloaded(&gateway, "success").await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK2");
    assert!(emulator.rejections().is_empty());
}

#[tokio::test]
async fn empty_or_missing_file_keeps_the_credentials() {
    for spoil in [|path: &str| fs::write(path, "").unwrap(), |path: &str| fs::remove_file(path).unwrap()] {
        let folder = Folder::new();
        write(folder.0.path(), "1");
        let (emulator, gateway) = start(&folder).await;
        spoil(&folder.path("sk"));
        let is_failing = async || {
            let status: serde_json::Value = serde_json::from_str(&gateway.admin("/status").await.1).unwrap();
            let shown = status["projects"][0]["credentials"]["reload_failing"].as_bool().unwrap();
            let metric = gateway.metric::<u64>("scm_gateway_credentials_reload_failing{").await;
            assert_eq!(metric, u64::from(shown));
            shown
        };
        reloaded(&gateway, "failure").await;
        assert_eq!(access_key_used(&emulator, &gateway).await, "AK1");
        assert!(is_failing().await);
        write(folder.0.path(), "2");
        reloaded(&gateway, "success").await;
        assert_eq!(access_key_used(&emulator, &gateway).await, "AK2");
        assert!(!is_failing().await);
    }
}

#[tokio::test]
async fn reload_replaces_suspended_credentials() {
    let folder = Folder::new();
    write(folder.0.path(), "1");
    fs::write(folder.0.path().join("sk"), "wrong").unwrap();
    let (emulator, gateway) = start(&folder).await;
    for _ in 0..5 {
        gateway.save(sample()).await.unwrap_err();
    }
    assert_eq!(emulator.rejections().len(), 2, "the credentials are suspended");
    write(folder.0.path(), "2");
    reloaded(&gateway, "success").await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK2");
}

/// Makes so many calls at once. Returns the statuses of those that failed.
pub async fn failures(gateway: &Gateway, calls: usize) -> Vec<Status> {
    let mut running = JoinSet::new();
    for _ in 0..calls {
        let mut client = gateway.client.clone();
        running.spawn(async move { client.save_info(sample()).await });
    }
    running.join_all().await.into_iter().filter_map(Result::err).collect()
}

const UNTRIED: &str = r#"state="untried""#;
const REJECTED: &str = r#"state="rejected""#;

/// Waits until the newest credentials are in this state, or until SCM has accepted them.
pub async fn pending(gateway: &Gateway, state: Option<&str>) {
    let is_in_state = || async {
        let (_, metrics) = gateway.admin("/metrics").await;
        let states = metrics.lines().filter(|line| line.starts_with("scm_gateway_credentials_pending{"));
        let set: Vec<_> = states.filter(|line| line.ends_with(" 1")).collect();
        set.len() == usize::from(state.is_some()) && set.iter().all(|line| line.contains(state.unwrap_or_default()))
    };
    until(&format!("the newest credentials to be {state:?}"), is_in_state).await;
}

/// An access key that SCM does not know, a wrong secret of the accepted access key, and a wrong token.
#[tokio::test]
async fn a_wrong_new_key_costs_one_attempt_and_fails_no_call() {
    for (ak, sk, token) in [("AK9", "SK9", "token9"), ("AK1", "SK9", "token1"), ("AK1", "SK1", "token9")] {
        let folder = Folder::new();
        write(folder.0.path(), "1");
        let (emulator, gateway) = start(&folder).await;
        assert_eq!(failures(&gateway, 20).await.len(), 0);
        pending(&gateway, None).await;
        for (name, content) in [("ak", ak), ("sk", sk), ("token", token)] {
            fs::write(folder.0.path().join(name), content).unwrap();
        }
        pending(&gateway, Some(UNTRIED)).await;

        assert_eq!(failures(&gateway, 40).await.len(), 0);

        assert_eq!((emulator.rejections().len(), emulator.attempts()), (1, 61));
        let retries = format!(
            "scm_gateway_retries_total{{scm_project_id=\"{SAMPLE_PROJECT}\",scm_reason=\"UPSTREAM_CREDENTIALS\""
        );
        assert_eq!(gateway.metric::<u64>(&retries).await, 1);
        pending(&gateway, Some(REJECTED)).await;
        assert_eq!(failures(&gateway, 40).await.len(), 0);
        write(folder.0.path(), "2");
        pending(&gateway, Some(UNTRIED)).await;
        assert_eq!(access_key_used(&emulator, &gateway).await, "AK2");
        pending(&gateway, None).await;
        assert_eq!(emulator.rejections().len(), 1);
    }
}

/// SCM rejects the new key, and answers the attempt with the accepted one. A 401 was not carried out, so that a DELETE may be
/// sent again, and its NOT_FOUND is no success.
async fn assert_signed_again(rpc: Rpc) {
    let folder = Folder::new();
    write(folder.0.path(), "1");
    let (emulator, gateway) = start_with(&folder, &[("SCM_GATEWAY__SERVER__METHODS", &names())]).await;
    gateway.save(sample()).await.unwrap();
    write(folder.0.path(), "2");
    pending(&gateway, Some(UNTRIED)).await;
    let error = |code: &str| format!(r#"{{"error_code":"{code}","error_msg":"x"}}"#);
    let steps = [(401, "APIG.0301"), (404, "SCM.0008")];
    emulator.scripts(steps.map(|(status, code)| Step::Reply(Reply::json(status, &error(code)))));

    let status = gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await.unwrap_err();

    assert_status(&status, Code::NotFound, "CERTIFICATE_NOT_FOUND", Some(2));
    let sent: Vec<_> = emulator.journal().iter().map(|request| request.access_key.clone()).collect();
    assert_eq!(sent, ["AK1", "AK2", "AK1"], "{}", rpc.name());
}

#[tokio::test]
async fn every_method_is_signed_again_with_the_accepted_key() {
    rpcs().into_iter().map(assert_signed_again).collect::<JoinSet<_>>().join_all().await;
}

#[tokio::test]
async fn a_wrong_new_key_that_is_rolled_back_is_forgotten() {
    let folder = Folder::new();
    write(folder.0.path(), "1");
    let (emulator, gateway) = start(&folder).await;
    gateway.save(sample()).await.unwrap();
    write(folder.0.path(), "9");
    pending(&gateway, Some(UNTRIED)).await;
    gateway.save(sample()).await.unwrap();
    pending(&gateway, Some(REJECTED)).await;
    write(folder.0.path(), "1");
    pending(&gateway, None).await;
    assert_eq!(failures(&gateway, 20).await.len(), 0);
    assert_eq!(emulator.rejections().len(), 1);
}

fn profile(name: &str) -> String {
    format!("[global]\nak = x\n[basic]\nak = AK{name}\nsk = SK{name}\nsecurity_token = token{name}\n")
}

#[tokio::test]
async fn vendor_profile_is_reloaded() {
    let folder = Folder::new();
    let path = folder.path("credentials");
    fs::write(&path, profile("1")).unwrap();
    let options = Options { accounts: vec![account("1"), account("2"), account("3")], ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let mut environment = environment(&emulator.endpoint(), &[("HUAWEICLOUD_SDK_CREDENTIALS_FILE", &path)]);
    environment.retain(|name, _| name != "HUAWEICLOUD_SDK_AK" && name != "HUAWEICLOUD_SDK_SK");
    let gateway = Gateway::start(environment, Clock::system()).await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK1");
    fs::write(&path, profile("2").replace("[basic]", "[other]")).unwrap();
    reloaded(&gateway, "failure").await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK1");
    fs::write(&path, profile("3")).unwrap();
    reloaded(&gateway, "success").await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK3");
    assert!(emulator.rejections().is_empty());
}
