//! Tests of the trust states, on a paused clock.

use std::{sync::Arc, time::Duration};

use tokio::time::advance;

use super::{AuthOutcome, LiveCredentials, LockoutGuards, SigningPermit};
use crate::{clock::monotonic, config::secret::Credentials, error::Reason};

fn credentials() -> Credentials {
    Credentials { access_key: "AK".to_owned(), secret_key: "SK".into(), security_token: None }
}

fn live(credentials: Option<Credentials>) -> LiveCredentials {
    LiveCredentials::new(credentials, Arc::<LockoutGuards>::default())
}

/// Returns a permit if one is free at once.
async fn try_acquire(key: &LiveCredentials) -> Result<SigningPermit, Reason> {
    key.permit(monotonic()).await.map_err(|error| error.reason)
}

async fn attempt(key: &LiveCredentials, verdict: AuthOutcome) {
    try_acquire(key).await.unwrap().record(verdict);
}

#[tokio::test(start_paused = true)]
async fn unverified_credentials_have_three_requests_in_flight() {
    let key = live(Some(credentials()));
    let mut permits = Vec::new();
    for _ in 0..3 {
        permits.push(try_acquire(&key).await.unwrap());
    }
    let error = key.permit(monotonic()).await.unwrap_err();
    assert_eq!(
        (error.reason, error.cause),
        (Reason::Deadline, Some("waiting for credential verification")),
        "deadline exceeded"
    );
    permits.pop().unwrap().record(AuthOutcome::Unknown);
    permits.push(try_acquire(&key).await.unwrap());
    permits.pop().unwrap().record(AuthOutcome::Accepted);
    for _ in 0..100 {
        permits.push(try_acquire(&key).await.unwrap());
    }
    permits.pop().unwrap().record(AuthOutcome::Rejected);
    assert_eq!(try_acquire(&key).await.unwrap_err(), Reason::Deadline, "rejected last: unverified again");
}

#[tokio::test(start_paused = true)]
async fn the_second_rejection_in_a_row_suspends_until_a_probe() {
    let key = live(Some(credentials()));
    for verdict in [AuthOutcome::Rejected, AuthOutcome::Accepted, AuthOutcome::Rejected, AuthOutcome::Unknown] {
        attempt(&key, verdict).await;
        assert!(!key.is_suspended());
    }
    attempt(&key, AuthOutcome::Rejected).await;
    assert!(key.is_suspended() && !key.is_usable());
    advance(Duration::from_millis(299_999)).await;
    assert_eq!(try_acquire(&key).await.unwrap_err(), Reason::UpstreamCredentials);
    assert!(!key.is_usable());
    advance(Duration::from_millis(1)).await;
    assert!(key.is_usable(), "for the probe");
    let probe = try_acquire(&key).await.unwrap();
    assert!(key.is_usable(), "not known to be bad");
    assert_eq!(try_acquire(&key).await.unwrap_err(), Reason::UpstreamCredentials, "one probe at a time");
    probe.record(AuthOutcome::Rejected);
    assert_eq!(try_acquire(&key).await.unwrap_err(), Reason::UpstreamCredentials, "five minutes more");
    assert!(!key.is_usable());
    advance(Duration::from_secs(300)).await;
    drop(try_acquire(&key).await.unwrap());
    attempt(&key, AuthOutcome::Accepted).await;
    assert!(!key.is_suspended());
}

#[tokio::test(start_paused = true)]
async fn another_access_key_starts_with_a_count_of_its_own() {
    let key = live(Some(credentials()));
    let old = try_acquire(&key).await.unwrap();
    attempt(&key, AuthOutcome::Rejected).await;
    attempt(&key, AuthOutcome::Rejected).await;
    assert!(key.is_suspended() && !key.is_usable());
    key.replace(Some(Credentials { access_key: "AK2".to_owned(), ..credentials() }));
    assert!(!key.is_suspended() && key.is_usable());
    old.record(AuthOutcome::Rejected);
    attempt(&key, AuthOutcome::Rejected).await;
    assert!(!key.is_suspended(), "one rejection of its own");
}

#[tokio::test(start_paused = true)]
async fn another_secret_for_a_rejected_access_key_is_probed() {
    let key = live(Some(credentials()));
    attempt(&key, AuthOutcome::Rejected).await;
    attempt(&key, AuthOutcome::Rejected).await;
    key.replace(Some(Credentials { secret_key: "SK2".into(), ..credentials() }));
    let first = try_acquire(&key).await.unwrap();
    assert_eq!(try_acquire(&key).await.unwrap_err(), Reason::Deadline, "one at a time");
    first.record(AuthOutcome::Rejected);
    assert!(key.is_suspended(), "the third in a row");
    key.replace(Some(Credentials { secret_key: "SK3".into(), ..credentials() }));
    attempt(&key, AuthOutcome::Accepted).await;
    let all = [try_acquire(&key).await, try_acquire(&key).await, try_acquire(&key).await, try_acquire(&key).await];
    assert!(all.iter().all(Result::is_ok), "verified");
}

#[tokio::test(start_paused = true)]
async fn projects_with_one_access_key_share_its_rejections() {
    let guards = Arc::<LockoutGuards>::default();
    let keys = [(); 3].map(|()| LiveCredentials::new(Some(credentials()), guards.clone()));
    let mut permits = Vec::new();
    for key in &keys {
        permits.push(try_acquire(key).await.unwrap());
    }
    assert_eq!(try_acquire(&keys[0]).await.unwrap_err(), Reason::Deadline, "three in flight over all projects");
    permits.into_iter().for_each(|permit| permit.record(AuthOutcome::Rejected));
    assert!(keys.iter().all(LiveCredentials::is_suspended));
}

#[tokio::test(start_paused = true)]
async fn a_success_from_before_a_rejection_verifies_nothing() {
    let key = live(Some(credentials()));
    let early = try_acquire(&key).await.unwrap();
    attempt(&key, AuthOutcome::Rejected).await;
    attempt(&key, AuthOutcome::Rejected).await;
    early.record(AuthOutcome::Accepted);
    assert!(key.is_suspended());
}

#[tokio::test(start_paused = true)]
async fn reverifying_allows_one_request_at_a_time() {
    let key = live(Some(credentials()));
    attempt(&key, AuthOutcome::Accepted).await;
    key.reverify();
    let first = try_acquire(&key).await.unwrap();
    assert_eq!(try_acquire(&key).await.unwrap_err(), Reason::Deadline);
    first.record(AuthOutcome::Accepted);
    let many = [try_acquire(&key).await, try_acquire(&key).await];
    assert!(many.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn five_hundred_waiting_calls_do_not_lock_the_key() {
    let key = Arc::new(live(Some(credentials())));
    let calls = (0..500).map(|_| {
        let key = key.clone();
        tokio::spawn(async move {
            let permit = key.permit(monotonic() + Duration::from_secs(10)).await.map_err(|error| error.reason)?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            permit.record(AuthOutcome::Rejected);
            Ok::<(), Reason>(())
        })
    });
    let mut rejected_by_scm = 0;
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Ok(()) => rejected_by_scm += 1,
            Err(reason) => assert_eq!(reason, Reason::UpstreamCredentials),
        }
    }
    assert_eq!(rejected_by_scm, 3);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_is_corrected_by_one_request_at_a_time() {
    let key = live(Some(credentials()));
    let first = [try_acquire(&key).await.unwrap(), try_acquire(&key).await.unwrap(), try_acquire(&key).await.unwrap()];
    first.into_iter().for_each(|permit| permit.record(AuthOutcome::ClockSkewed));
    assert!(!key.is_suspended());
    let corrected = try_acquire(&key).await.unwrap();
    assert_eq!(try_acquire(&key).await.unwrap_err(), Reason::Deadline, "the others wait for the outcome");
    corrected.record(AuthOutcome::Rejected);
    assert!(key.is_suspended(), "four rejections in a row, and no fifth");
}

#[tokio::test(start_paused = true)]
async fn a_clock_jump_under_load_suspends_nothing() {
    let key = live(Some(credentials()));
    attempt(&key, AuthOutcome::Accepted).await;
    let mut permits = Vec::new();
    for _ in 0..100 {
        permits.push(try_acquire(&key).await.unwrap());
    }
    permits.into_iter().for_each(|permit| permit.record(AuthOutcome::ClockSkewed));
    assert!(!key.is_suspended());
    attempt(&key, AuthOutcome::Accepted).await;
    let many = [try_acquire(&key).await, try_acquire(&key).await];
    assert!(many.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_credentials_and_then_for_a_permit() {
    let key = Arc::new(live(None));
    assert!(!key.is_usable());
    let error = key.permit(monotonic()).await.unwrap_err();
    assert_eq!((error.reason, error.cause), (Reason::UpstreamCredentials, Some("no credentials")), "deadline exceeded");
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let key = key.clone();
            tokio::spawn(async move {
                let permit = key.permit(monotonic() + Duration::from_secs(10)).await.unwrap();
                assert_eq!(permit.credentials().access_key, "AK");
                permit.record(AuthOutcome::Accepted);
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(calls.iter().all(|call| !call.is_finished()));
    key.replace(Some(credentials()));
    for call in calls {
        call.await.unwrap();
    }
    let held = try_acquire(&key).await.unwrap();
    key.replace(None);
    held.record(AuthOutcome::Accepted);
    assert_eq!(try_acquire(&key).await.unwrap_err(), Reason::UpstreamCredentials, "expired");
}
