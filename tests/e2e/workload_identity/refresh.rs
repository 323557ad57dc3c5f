//! The refresh: a rotated token, calls without a failure, and a token that is rejected until its file changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use scm_emulator::{Claims, Issue, Step};
use tokio::{task::JoinSet, time::Instant};

use super::{EXPIRY, Lab, assert_no_credentials, credentials_status};
use crate::harness::{sample, until};

#[tokio::test]
async fn each_exchange_presents_the_token_of_its_moment() {
    for lab in [Lab::sts().await, Lab::pod_identity().await] {
        lab.service.set_validity(Some(Duration::from_secs(3)));
        let first = lab.replace_token(&lab.claims());
        let gateway = lab.gateway(&lab.variables()).await;
        lab.assert_last_credentials_are_used(&gateway).await;
        let second = lab.replace_token(&lab.claims());
        lab.wait_for_exchanges(2).await;
        let presented: Vec<_> = lab.service.exchanges().iter().map(|exchange| exchange.token().unwrap()).collect();
        assert_eq!(presented[..2], [first, second]);
        lab.service.set_validity(None);
        lab.wait_for_exchanges(3).await;
        until("the new credentials", || async {
            let in_use = gateway.metric::<f64>(EXPIRY).await;
            in_use > 3.0
        })
        .await;
        lab.assert_last_credentials_are_used(&gateway).await;
        assert!(lab.emulator.rejections().is_empty());
    }
}

#[tokio::test]
async fn refresh_under_load_fails_no_call() {
    let lab = Lab::sts().await;
    lab.service.set_validity(Some(Duration::from_secs(3)));
    let gateway = lab.gateway(&lab.variables()).await;
    gateway.save(sample()).await.unwrap();
    let started = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (mut client, done) = (gateway.client.clone(), done.clone());
        callers.spawn(async move {
            let mut calls = 0;
            while !done.load(Relaxed) {
                client.save_info(sample()).await.unwrap_or_else(|status| panic!("call {calls}: {status:?}"));
                calls += 1;
            }
            calls
        });
    }
    lab.wait_for_exchanges(4).await;
    let most = started.elapsed().as_secs() + 2;
    done.store(true, Relaxed);
    let calls: u64 = callers.join_all().await.iter().sum();
    let exchanges = lab.service.attempts() as u64;
    assert!(exchanges <= most, "at most one exchange a second: {exchanges} in {most} s");
    assert!(calls > 100, "{calls}");
    assert!(lab.emulator.rejections().is_empty());
    let keys: std::collections::BTreeSet<_> = lab.emulator.journal().into_iter().map(|sent| sent.access_key).collect();
    assert!(keys.len() >= 3, "SCM saw the credentials of the exchanges: {keys:?}");
}

/// `STS5.1001` at the first start: the trust policy does not match until the token file is replaced.
#[tokio::test]
async fn rejected_token_is_exchanged_again_once_its_file_changes() {
    let lab = Lab::sts().await;
    let wrong = Claims { subject: "system:serviceaccount:scm:other".to_owned(), ..Claims::oidc(SystemTime::now()) };
    lab.replace_token(&wrong);
    let gateway = lab.gateway(&lab.variables()).await;
    lab.wait_for_outcome(&gateway, "rejected", 1).await;
    assert_no_credentials(&lab, &gateway).await;
    let status = credentials_status(&gateway).await;
    assert_eq!((&status["exchange"]["last_outcome"], &status["in_use"]), (&"rejected".into(), &().into()), "{status}");

    let replaced = Instant::now();
    lab.replace_token(&Claims::oidc(SystemTime::now()));
    lab.wait_for_exchanges(2).await;
    assert!(replaced.elapsed() < Duration::from_secs(3), "within 2 s, and not after 5 minutes");
    lab.assert_last_credentials_are_used(&gateway).await;
    assert_eq!((lab.exchanges(&gateway, "rejected").await, lab.service.attempts()), (1, 2));
    assert_eq!(gateway.admin("/readyz").await.0, 200);
}

/// The service repeats the same credentials inside the margin.
#[tokio::test]
async fn unchanged_credentials_are_not_published_again() {
    let lab = Lab::sts().await;
    lab.service.scripts([
        Step::Issue(Issue::Valid(Duration::from_secs(3))),
        Step::Issue(Issue::Again),
        Step::Issue(Issue::Again),
    ]);
    let gateway = lab.gateway(&lab.variables()).await;
    gateway.save(sample()).await.unwrap();
    lab.wait_for_outcome(&gateway, "unchanged", 1).await;
    gateway.save(sample()).await.unwrap();
    lab.wait_for_outcome(&gateway, "issued", 2).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    assert!(lab.emulator.rejections().is_empty());
}

#[tokio::test]
async fn a_call_succeeds_though_scm_rejects_the_new_credentials() {
    let lab = Lab::sts().await;
    lab.service.set_validity(Some(Duration::from_secs(9)));
    let gateway = lab.gateway(&lab.variables()).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    let previous = lab.issued().account.access_key;
    lab.wait_for_outcome(&gateway, "issued", 2).await;
    lab.emulator.issuer().revoke(&lab.issued().account.access_key);

    gateway.save(sample()).await.unwrap();

    assert_eq!(lab.emulator.rejections().len(), 1, "the new ones were tried");
    assert_eq!(lab.emulator.journal().last().unwrap().access_key, previous);
}
