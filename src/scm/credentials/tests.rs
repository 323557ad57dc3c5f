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
async fn try_acquire(live: &LiveCredentials) -> Result<SigningPermit, Reason> {
    live.permit(monotonic()).await.map_err(|error| error.reason)
}

async fn attempt(live: &LiveCredentials, outcome: AuthOutcome) {
    try_acquire(live).await.unwrap().record(outcome);
}

#[tokio::test(start_paused = true)]
async fn unverified_credentials_have_three_requests_in_flight() {
    let live = live(Some(credentials()));
    let mut permits = Vec::new();
    for _ in 0..3 {
        permits.push(try_acquire(&live).await.unwrap());
    }
    let error = live.permit(monotonic()).await.unwrap_err();
    assert_eq!(
        (error.reason, error.cause),
        (Reason::Deadline, Some("waiting for credential verification")),
        "deadline exceeded"
    );
    permits.pop().unwrap().record(AuthOutcome::Unknown);
    permits.push(try_acquire(&live).await.unwrap());
    permits.pop().unwrap().record(AuthOutcome::Accepted);
    for _ in 0..100 {
        permits.push(try_acquire(&live).await.unwrap());
    }
    permits.pop().unwrap().record(AuthOutcome::Rejected);
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline, "unverified again after a rejection");
}

#[tokio::test(start_paused = true)]
async fn the_second_rejection_in_a_row_suspends_until_a_probe() {
    let live = live(Some(credentials()));
    for outcome in [AuthOutcome::Rejected, AuthOutcome::Accepted, AuthOutcome::Rejected, AuthOutcome::Unknown] {
        attempt(&live, outcome).await;
        assert!(!live.is_suspended());
    }
    attempt(&live, AuthOutcome::Rejected).await;
    assert!(live.is_suspended() && !live.is_usable());
    advance(Duration::from_millis(299_999)).await;
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::UpstreamCredentials);
    assert!(!live.is_usable());
    advance(Duration::from_millis(1)).await;
    assert!(live.is_usable(), "the next call is the probe");
    let probe = try_acquire(&live).await.unwrap();
    assert!(live.is_usable(), "usable during the probe");
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::UpstreamCredentials, "one probe at a time");
    probe.record(AuthOutcome::Rejected);
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::UpstreamCredentials, "suspended for five more minutes");
    assert!(!live.is_usable());
    advance(Duration::from_secs(300)).await;
    drop(try_acquire(&live).await.unwrap());
    attempt(&live, AuthOutcome::Accepted).await;
    assert!(!live.is_suspended());
}

#[tokio::test(start_paused = true)]
async fn another_access_key_has_its_own_rejection_count() {
    let live = live(Some(credentials()));
    let old = try_acquire(&live).await.unwrap();
    attempt(&live, AuthOutcome::Rejected).await;
    attempt(&live, AuthOutcome::Rejected).await;
    assert!(live.is_suspended() && !live.is_usable());
    live.replace(Some(Credentials { access_key: "AK2".to_owned(), ..credentials() }));
    assert!(!live.is_suspended() && live.is_usable());
    old.record(AuthOutcome::Rejected);
    attempt(&live, AuthOutcome::Rejected).await;
    assert!(!live.is_suspended(), "only one rejection of the new access key");
}

#[tokio::test(start_paused = true)]
async fn another_secret_for_a_rejected_access_key_is_probed() {
    let live = live(Some(credentials()));
    attempt(&live, AuthOutcome::Rejected).await;
    attempt(&live, AuthOutcome::Rejected).await;
    live.replace(Some(Credentials { secret_key: "SK2".into(), ..credentials() }));
    let first = try_acquire(&live).await.unwrap();
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline, "one at a time");
    first.record(AuthOutcome::Rejected);
    assert!(live.is_suspended(), "the third in a row");
    live.replace(Some(Credentials { secret_key: "SK3".into(), ..credentials() }));
    attempt(&live, AuthOutcome::Accepted).await;
    let all = [try_acquire(&live).await, try_acquire(&live).await, try_acquire(&live).await, try_acquire(&live).await];
    assert!(all.iter().all(Result::is_ok), "verified");
}

#[tokio::test(start_paused = true)]
async fn projects_with_one_access_key_share_its_rejections() {
    let guards = Arc::<LockoutGuards>::default();
    let projects = [(); 3].map(|()| LiveCredentials::new(Some(credentials()), guards.clone()));
    let mut permits = Vec::new();
    for live in &projects {
        permits.push(try_acquire(live).await.unwrap());
    }
    assert_eq!(try_acquire(&projects[0]).await.unwrap_err(), Reason::Deadline, "three in flight over all projects");
    permits.into_iter().for_each(|permit| permit.record(AuthOutcome::Rejected));
    assert!(projects.iter().all(LiveCredentials::is_suspended));
}

#[tokio::test(start_paused = true)]
async fn a_success_before_a_rejection_does_not_verify() {
    let live = live(Some(credentials()));
    let early = try_acquire(&live).await.unwrap();
    attempt(&live, AuthOutcome::Rejected).await;
    attempt(&live, AuthOutcome::Rejected).await;
    early.record(AuthOutcome::Accepted);
    assert!(live.is_suspended());
}

#[tokio::test(start_paused = true)]
async fn reverifying_allows_one_request_at_a_time() {
    let live = live(Some(credentials()));
    attempt(&live, AuthOutcome::Accepted).await;
    live.reverify();
    let first = try_acquire(&live).await.unwrap();
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline);
    first.record(AuthOutcome::Accepted);
    let many = [try_acquire(&live).await, try_acquire(&live).await];
    assert!(many.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_do_not_lock_the_access_key() {
    let live = Arc::new(live(Some(credentials())));
    let calls = (0..500).map(|_| {
        let live = live.clone();
        tokio::spawn(async move {
            let permit = live.permit(monotonic() + Duration::from_secs(10)).await.map_err(|error| error.reason)?;
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
    let live = live(Some(credentials()));
    let first =
        [try_acquire(&live).await.unwrap(), try_acquire(&live).await.unwrap(), try_acquire(&live).await.unwrap()];
    first.into_iter().for_each(|permit| permit.record(AuthOutcome::ClockSkewed));
    assert!(!live.is_suspended());
    let corrected = try_acquire(&live).await.unwrap();
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline, "the others wait for the outcome");
    corrected.record(AuthOutcome::Rejected);
    assert!(live.is_suspended(), "suspended after the fourth rejection in a row");
}

#[tokio::test(start_paused = true)]
async fn a_clock_jump_under_load_suspends_nothing() {
    let live = live(Some(credentials()));
    attempt(&live, AuthOutcome::Accepted).await;
    let mut permits = Vec::new();
    for _ in 0..100 {
        permits.push(try_acquire(&live).await.unwrap());
    }
    permits.into_iter().for_each(|permit| permit.record(AuthOutcome::ClockSkewed));
    assert!(!live.is_suspended());
    attempt(&live, AuthOutcome::Accepted).await;
    let many = [try_acquire(&live).await, try_acquire(&live).await];
    assert!(many.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_credentials_and_then_for_a_permit() {
    let live = Arc::new(live(None));
    assert!(!live.is_usable());
    let error = live.permit(monotonic()).await.unwrap_err();
    assert_eq!((error.reason, error.cause), (Reason::UpstreamCredentials, Some("no credentials")), "deadline exceeded");
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let live = live.clone();
            tokio::spawn(async move {
                let permit = live.permit(monotonic() + Duration::from_secs(10)).await.unwrap();
                assert_eq!(permit.credentials().access_key, "AK");
                permit.record(AuthOutcome::Accepted);
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(calls.iter().all(|call| !call.is_finished()));
    live.replace(Some(credentials()));
    for call in calls {
        call.await.unwrap();
    }
    let held = try_acquire(&live).await.unwrap();
    live.replace(None);
    held.record(AuthOutcome::Accepted);
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::UpstreamCredentials, "expired");
}
