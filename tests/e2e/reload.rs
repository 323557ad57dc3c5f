//! Reload of credentials while the gateway runs.

use std::{fs, os::unix::fs::symlink, path::Path};

use scm_emulator::{Account, Emulator, Options, SAMPLE_PROJECT};
use scm_gateway::clock::Clock;

use crate::harness::{Gateway, environment, folder::Folder, sample};

pub fn account(name: &str) -> Account {
    Account {
        access_key: format!("AK{name}"),
        secret_key: format!("SK{name}"),
        security_token: Some(format!("token{name}")),
        projects: vec![SAMPLE_PROJECT.to_owned()],
    }
}

/// Writes the three credential files into a folder.
fn write(folder: &Path, name: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("ak"), format!("AK{name}\n")).unwrap();
    fs::write(folder.join("sk"), format!("SK{name}\n")).unwrap();
    fs::write(folder.join("token"), format!("token{name}\n")).unwrap();
}

async fn start(folder: &Folder) -> (Emulator, Gateway) {
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
    let gateway = Gateway::start(environment(&emulator.endpoint(), &variables), Clock::system()).await;
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
    for _ in 0..1000 {
        let (_, metrics) = gateway.admin("/metrics").await;
        if metrics.lines().any(|line| line.starts_with(metric) && line.contains(&label) && !line.ends_with(" 0")) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no {metric} with {label} in 10 s");
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
        reloaded(&gateway, "failure").await;
        assert_eq!(access_key_used(&emulator, &gateway).await, "AK1");
        write(folder.0.path(), "2");
        reloaded(&gateway, "success").await;
        assert_eq!(access_key_used(&emulator, &gateway).await, "AK2");
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
