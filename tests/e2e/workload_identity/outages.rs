//! Outages: STS is gone for longer than the credentials are valid, and SCM rejects credentials that have not expired.

use std::time::Duration;

use scm_emulator::{Reply, Step};
use tokio::task::JoinSet;
use tonic::Code;

use super::{Lab, assert_no_credentials, call_with_short_deadline};
use crate::harness::{assert_status, sample, until};

#[tokio::test]
async fn outage_stops_calls_only_once_the_credentials_expire() {
    let lab = Lab::sts().await;
    lab.service.set_validity(Some(Duration::from_secs(3)));
    let gateway = lab.gateway(&lab.variables()).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    lab.service.set_validity(None);
    lab.service.always(Step::Reply(Reply::json(503, "{}")));
    lab.wait_for_outcome(&gateway, "failed", 1).await;
    gateway.save(sample()).await.unwrap();
    assert_eq!(gateway.admin("/readyz").await.0, 200, "the credentials are valid");

    until("not ready", || async { gateway.admin("/readyz").await.0 == 503 }).await;
    while call_with_short_deadline(&gateway).await.is_ok() {} // the credentials may stay in use for a moment more
    assert_no_credentials(&lab, &gateway).await;
    assert!(lab.emulator.rejections().is_empty(), "no expired credentials reach SCM");

    lab.service.always(Step::Serve);
    until("ready", || async { gateway.admin("/readyz").await.0 == 200 }).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    assert_eq!(lab.exchanges(&gateway, "issued").await, 2);
}

#[tokio::test]
async fn credentials_that_scm_rejects_are_exchanged_once() {
    let lab = Lab::sts().await;
    let gateway = lab.gateway(&lab.variables()).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    let revoked = lab.issued().account.access_key;
    lab.emulator.issuer().revoke(&revoked);
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let mut client = gateway.client.clone();
        calls.spawn(async move { client.save_info(sample()).await });
    }
    let rejected: Vec<_> = calls.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(!rejected.is_empty());
    for status in &rejected {
        assert_eq!(status.code(), Code::Internal, "{status:?}");
    }
    lab.wait_for_exchanges(2).await;
    lab.wait_for_outcome(&gateway, "issued", 2).await;
    let rejections = lab.emulator.rejections().len();
    lab.assert_last_credentials_are_used(&gateway).await;
    assert_ne!(lab.issued().account.access_key, revoked);
    assert_eq!((lab.service.attempts(), lab.emulator.rejections().len()), (2, rejections));
}

/// If SCM rejects new credentials too, no further exchange helps.
#[tokio::test]
async fn rejections_cause_no_storm_of_exchanges() {
    let lab = Lab::sts().await;
    let gateway = lab.gateway(&lab.variables()).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    for expected in [2, 2] {
        lab.emulator.issuer().revoke(&lab.issued().account.access_key);
        let status = gateway.save(sample()).await.unwrap_err();
        assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", Some(1));
        lab.wait_for_exchanges(expected).await;
        lab.wait_for_outcome(&gateway, "issued", expected as u64).await;
    }
    assert_eq!(lab.service.attempts(), 2);
}
