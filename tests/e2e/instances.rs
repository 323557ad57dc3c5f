//! Several gateways with one access key: SCM counts the rejections of all, and locks the key after more than five in a row.

use std::fs;

use futures_util::future::join_all;
use scm_emulator::{Emulator, Options, SAMPLE_PROJECT};
use tokio::task::JoinSet;

use crate::{
    harness::{client, folder::Folder, process::Process, sample, seen},
    reload::{account, write},
};

/// Starts so many gateways in processes of their own that read the same credential files.
async fn gateways(count: usize, emulator: &Emulator, folder: &Folder) -> Vec<Process> {
    let files = ["ak", "sk", "token"].map(|name| folder.path(name));
    let variables = [
        ("SCM_GATEWAY__PROJECTS__0__ID", SAMPLE_PROJECT),
        ("SCM_GATEWAY__PROJECTS__0__AK_FILE", &files[0]),
        ("SCM_GATEWAY__PROJECTS__0__SK_FILE", &files[1]),
        ("SCM_GATEWAY__PROJECTS__0__SECURITY_TOKEN_FILE", &files[2]),
    ];
    let endpoint = emulator.endpoint();
    join_all((0..count).map(|_| Process::start(&endpoint, &variables))).await
}

/// Makes so many calls at each gateway, all at once. Returns how many failed, all because of the credentials.
async fn failures(gateways: &[Process], calls: usize) -> usize {
    let mut running = JoinSet::new();
    for gateway in gateways {
        let client = client(&gateway.address).await;
        for _ in 0..calls {
            let mut client = client.clone();
            running.spawn(async move { client.save_info(sample()).await });
        }
    }
    let failed: Vec<_> = running.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(failed.iter().all(|status| seen(status).reason == "UPSTREAM_CREDENTIALS"), "{failed:?}");
    failed.len()
}

fn is_locked(emulator: &Emulator) -> bool {
    emulator.rejections().iter().any(|rejected| rejected.reason == "the access key is locked")
}

#[tokio::test]
async fn five_instances_try_a_wrong_new_key_once_each_and_no_call_fails() {
    let folder = Folder::new();
    write(folder.0.path(), "1");
    let options = Options { accounts: vec![account("1"), account("2")], ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let mut gateways = gateways(5, &emulator, &folder).await;
    assert_eq!(failures(&gateways, 20).await, 0);
    fs::write(folder.0.path().join("ak"), "AK2").unwrap(); // the key to come, still with the secret of the previous one
    for gateway in &mut gateways {
        gateway.line("credentials reloaded").await;
    }

    assert_eq!(failures(&gateways, 20).await, 0);

    assert_eq!(emulator.rejections().len(), 5, "one attempt of each");
    for gateway in &mut gateways {
        let line = gateway.line("new credentials").await;
        assert_eq!(line["message"], "new credentials rejected, keeping the previous ones");
        assert_eq!(line["upstream_code"], "APIG.0301");
    }
    assert_eq!(failures(&gateways, 20).await, 0);
    write(folder.0.path(), "2");
    for gateway in &mut gateways {
        gateway.line("credentials reloaded").await;
    }
    assert_eq!(failures(&gateways, 20).await, 0, "the right secret is accepted");
    for gateway in &mut gateways {
        assert_eq!(gateway.line("new credentials").await["message"], "new credentials accepted");
    }
    assert!(!is_locked(&emulator));
    assert!(emulator.journal().last().unwrap().access_key == "AK2");
}

#[tokio::test]
async fn two_instances_that_start_with_a_wrong_key_do_not_lock_it() {
    let folder = Folder::new();
    write(folder.0.path(), "1");
    fs::write(folder.0.path().join("sk"), "wrong").unwrap();
    let options = Options { accounts: vec![account("1")], ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let mut gateways = gateways(2, &emulator, &folder).await;
    assert_eq!(failures(&gateways, 60).await, 120);
    assert_eq!(emulator.rejections().len(), 4, "two of each");
    write(folder.0.path(), "1");
    for gateway in &mut gateways {
        gateway.line("credentials reloaded").await;
    }
    assert_eq!(failures(&gateways, 60).await, 0);
    assert!(!is_locked(&emulator));
}
