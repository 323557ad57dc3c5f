//! Tests of the trust states, on a paused clock.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;
use tokio::time::advance;

use super::{AuthOutcome, Lease, LiveCredentials, LockoutGuards, SigningPermit};
use crate::{
    clock::{Clock, Moment, monotonic},
    config::secret::Credentials,
    error::Reason,
    ops::status::{Circuit, CircuitState, CredentialsVersion, Trust},
};

#[cfg(feature = "shuttle")]
mod interleavings;
mod state_machine;
mod vendor;

fn credentials() -> Credentials {
    Credentials { access_key: "AK".to_owned(), secret_key: "SK".into(), security_token: None }
}

fn live(credentials: Option<Credentials>) -> LiveCredentials {
    LiveCredentials::new("p".into(), credentials, Arc::<LockoutGuards>::default())
}

/// Returns credentials that SCM has accepted.
async fn accepted() -> LiveCredentials {
    let live = live(Some(credentials()));
    attempt(&live, AuthOutcome::Accepted).await;
    live
}

fn second() -> Credentials {
    Credentials { access_key: "AK2".to_owned(), ..credentials() }
}

fn other_secret(secret_key: &str) -> Credentials {
    Credentials { secret_key: secret_key.into(), ..credentials() }
}

/// Returns the access keys of so many permits, none of which is released before the last is acquired.
async fn signers(live: &LiveCredentials, count: usize) -> Vec<String> {
    let mut permits = Vec::new();
    for _ in 0..count {
        permits.push(try_acquire(live).await.unwrap());
    }
    permits.iter().map(|permit| permit.credentials().access_key.clone()).collect()
}

/// Returns a permit if one is free at once.
async fn try_acquire(live: &LiveCredentials) -> Result<SigningPermit, Reason> {
    live.permit(monotonic(), || {}).await.map_err(|error| error.reason)
}

async fn attempt(live: &LiveCredentials, outcome: AuthOutcome) {
    try_acquire(live).await.unwrap().record(outcome);
}

#[tokio::test(start_paused = true)]
async fn unverified_credentials_have_one_request_in_flight() {
    let live = live(Some(credentials()));
    let first = try_acquire(&live).await.unwrap();
    let error = live.permit(monotonic(), || {}).await.unwrap_err();
    assert_eq!(
        (error.reason, error.cause),
        (Reason::Deadline, Some("waiting for credential verification")),
        "deadline exceeded"
    );
    first.record(AuthOutcome::Unknown);
    let second = try_acquire(&live).await.unwrap();
    second.record(AuthOutcome::Accepted);
    let mut permits = Vec::new();
    for _ in 0..100 {
        permits.push(try_acquire(&live).await.unwrap());
    }
    permits.pop().unwrap().record(AuthOutcome::Rejected);
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline, "unverified again after a rejection");
}

#[tokio::test(start_paused = true)]
async fn current_credentials_stay_in_use_until_new_ones_are_accepted() {
    let live = accepted().await;
    live.install(second(), None);
    assert_eq!(live.is_pending_rejected(), Some(false));
    assert_eq!(signers(&live, 4).await, ["AK2", "AK", "AK", "AK"], "one call tries the new credentials");
    assert_eq!(signers(&live, 2).await, ["AK2", "AK"], "an unknown outcome decides nothing");
    attempt(&live, AuthOutcome::ClockSkewed).await;
    attempt(&live, AuthOutcome::Accepted).await;
    assert_eq!(live.is_pending_rejected(), None);
    assert_eq!(signers(&live, 3).await, ["AK2", "AK2", "AK2"]);
}

#[tokio::test(start_paused = true)]
async fn rejected_new_credentials_are_tried_again_after_five_minutes() {
    let live = accepted().await;
    live.install(second(), None);
    attempt(&live, AuthOutcome::Rejected).await;
    assert_eq!((live.is_pending_rejected(), live.is_usable(), live.is_suspended()), (Some(true), true, false));
    advance(Duration::from_millis(299_999)).await;
    assert_eq!(signers(&live, 2).await, ["AK", "AK"]);
    advance(Duration::from_millis(1)).await;
    assert_eq!(signers(&live, 2).await, ["AK2", "AK"]);
    attempt(&live, AuthOutcome::Accepted).await;
    assert_eq!(signers(&live, 2).await, ["AK2", "AK2"]);
}

#[tokio::test(start_paused = true)]
async fn only_accepted_credentials_are_used_after_a_rejected_trial() {
    let signer = async |live: &LiveCredentials| {
        let permit = live.permit_of_accepted(monotonic()).await;
        permit.map(|permit| (permit.credentials().access_key.clone(), permit.is_trial()))
    };
    let live = live(Some(credentials()));
    assert_eq!(signer(&live).await, None, "not accepted yet");
    attempt(&live, AuthOutcome::Accepted).await;
    live.install(second(), None);
    let accepted = Some(("AK".to_owned(), false));
    assert_eq!(signer(&live).await, accepted, "also beside untried ones");
    attempt(&live, AuthOutcome::Rejected).await;
    assert_eq!(signer(&live).await, accepted);
    assert!(live.permit_of_accepted(monotonic() - Duration::from_millis(1)).await.is_none(), "deadline exceeded");
    live.reverify();
    let first = live.permit_of_accepted(monotonic()).await.unwrap();
    assert_eq!(signer(&live).await, None, "one at a time");
    let waiting = live.permit_of_accepted(monotonic() + Duration::from_secs(1));
    let (permit, ()) = tokio::join!(waiting, async { first.record(AuthOutcome::Accepted) });
    assert_eq!(permit.unwrap().credentials().access_key, "AK", "a call waits for it");
    let held = [try_acquire(&live).await.unwrap(), try_acquire(&live).await.unwrap()];
    held.into_iter().for_each(|permit| permit.record(AuthOutcome::Rejected));
    assert_eq!(signer(&live).await, None, "suspended");
    advance(Duration::from_secs(300)).await;
    assert_eq!(signer(&live).await, None, "the probe is a call's first attempt");
    live.remove(&credentials());
    assert_eq!(signer(&live).await, None, "expired");
}

#[tokio::test(start_paused = true)]
async fn changed_files_end_the_wait_of_rejected_credentials() {
    let live = accepted().await;
    live.install(second(), None);
    attempt(&live, AuthOutcome::Rejected).await;
    live.install(Credentials { access_key: "AK3".to_owned(), ..credentials() }, None);
    assert_eq!(signers(&live, 2).await, ["AK3", "AK"]);
    live.install(credentials(), None);
    assert_eq!((live.is_pending_rejected(), signers(&live, 2).await), (None, vec!["AK".to_owned(); 2]), "rolled back");
}

/// SCM counts rejections per access key, so an accepted call has to come between two rejected secrets.
#[tokio::test(start_paused = true)]
async fn rejected_secrets_of_an_accepted_access_key_never_follow_each_other() {
    let live = accepted().await;
    for secret in ["SK2", "SK3", "SK4"] {
        live.install(other_secret(secret), None);
        let trial = try_acquire(&live).await.unwrap();
        assert!(trial.credentials() == &other_secret(secret) && trial.is_unverified());
        trial.record(AuthOutcome::Rejected);
        live.install(other_secret("another"), None);
        let permits = [try_acquire(&live).await.unwrap(), try_acquire(&live).await.unwrap()];
        assert!(permits.iter().all(|permit| *permit.credentials() == credentials() && !permit.is_unverified()));
        permits.into_iter().for_each(|permit| permit.record(AuthOutcome::Accepted));
    }
    assert!(!live.is_suspended());
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_the_trial_if_the_current_credentials_are_suspended() {
    let live = Arc::new(accepted().await);
    live.install(second(), None);
    let trial = try_acquire(&live).await.unwrap();
    attempt(&live, AuthOutcome::Rejected).await;
    attempt(&live, AuthOutcome::Rejected).await;
    assert!(!live.is_suspended() && live.is_usable());
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline);
    let waiting = {
        let live = live.clone();
        tokio::spawn(async move { live.permit(monotonic() + Duration::from_secs(10), || {}).await.unwrap() })
    };
    tokio::task::yield_now().await;
    trial.record(AuthOutcome::Accepted);
    assert_eq!(waiting.await.unwrap().credentials().access_key, "AK2");
    live.install(credentials(), None);
    attempt(&live, AuthOutcome::Rejected).await;
    assert_eq!(signers(&live, 2).await, ["AK2", "AK2"]);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_are_not_accepted_are_replaced_at_once() {
    for outcome in [AuthOutcome::Unknown, AuthOutcome::Rejected] {
        let live = live(Some(credentials()));
        attempt(&live, outcome).await;
        live.install(second(), None);
        let first = try_acquire(&live).await.unwrap();
        assert_eq!(first.credentials().access_key, "AK2");
        assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline, "the first credentials are gone");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_jump_does_not_make_new_credentials_the_only_ones() {
    let live = accepted().await;
    live.reverify();
    live.install(second(), None);
    attempt(&live, AuthOutcome::Rejected).await;
    assert_eq!(signers(&live, 1).await, ["AK"]);
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_not_used_beside_pending_ones() {
    let live = accepted().await;
    live.install(second(), None);
    live.remove(&credentials());
    let first = try_acquire(&live).await.unwrap();
    assert_eq!(first.credentials().access_key, "AK2");
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline);
    live.remove(&second());
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::UpstreamCredentials);
    assert!(!live.is_usable() && !live.is_suspended());
}

#[tokio::test(start_paused = true)]
async fn only_rejected_pending_credentials_are_reported_at_an_expiry() {
    for (outcome, expected) in [(AuthOutcome::Unknown, false), (AuthOutcome::Rejected, true)] {
        let live = accepted().await;
        live.install(second(), None);
        attempt(&live, outcome).await;
        assert_eq!(live.change(|versions| versions.remove(&credentials())), expected, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_expiry_credentials_that_were_rejected_once_are_tried_at_once() {
    for newer in [second(), other_secret("SK2")] {
        let live = accepted().await;
        live.install(newer.clone(), None);
        attempt(&live, AuthOutcome::Rejected).await;
        live.remove(&credentials());
        assert!(live.is_usable() && !live.is_suspended());
        let trial = try_acquire(&live).await.unwrap();
        assert!(*trial.credentials() == newer);
        assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline, "one at a time");
        trial.record(AuthOutcome::Rejected);
        assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::UpstreamCredentials, "the second rejection in a row");
        advance(Duration::from_secs(300)).await;
        attempt(&live, AuthOutcome::Accepted).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_expiry_does_not_end_the_wait_after_two_rejections() {
    let live = accepted().await;
    live.install(second(), None);
    attempt(&live, AuthOutcome::Rejected).await;
    advance(Duration::from_secs(300)).await;
    attempt(&live, AuthOutcome::Rejected).await;
    live.remove(&credentials());
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::UpstreamCredentials);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_of_temporary_credentials_is_notified() {
    for (outcome, expected) in [
        (AuthOutcome::Accepted, false),
        (AuthOutcome::ClockSkewed, false),
        (AuthOutcome::Unknown, false),
        (AuthOutcome::Rejected, true),
    ] {
        let lease = Arc::new(Lease::new(SystemTime::UNIX_EPOCH, Duration::ZERO));
        let live = live(None);
        live.install(credentials(), Some(lease.clone()));
        attempt(&live, outcome).await;
        assert_eq!(lease.rejected.notified().now_or_never().is_some(), expected, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_come_back_keep_their_lease() {
    let leases = [3600, 7200].map(|seconds| {
        let left = Duration::from_secs(seconds);
        Arc::new(Lease::new(SystemTime::UNIX_EPOCH + left, left))
    });
    let live = live(None);
    live.install(credentials(), Some(leases[0].clone()));
    attempt(&live, AuthOutcome::Accepted).await;
    live.install(second(), Some(leases[1].clone()));
    leases[0].renew(SystemTime::UNIX_EPOCH + Duration::from_secs(9000), Duration::from_secs(9000));
    live.install(credentials(), Some(leases[0].clone()));
    let (current, pending, _) = live.status(&Moment::now(&Clock::system()));
    let expires_at = current.and_then(|current| current.expires_at);
    assert_eq!(expires_at, Some((SystemTime::UNIX_EPOCH + Duration::from_secs(9000)).into()));
    assert!(pending.is_none());
    attempt(&live, AuthOutcome::Rejected).await;
    assert!(leases[0].rejected.notified().now_or_never().is_some());
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
    let live = accepted().await;
    let old = [try_acquire(&live).await.unwrap(), try_acquire(&live).await.unwrap()];
    let last = try_acquire(&live).await.unwrap();
    old.into_iter().for_each(|permit| permit.record(AuthOutcome::Rejected));
    assert!(live.is_suspended() && !live.is_usable());
    live.install(second(), None);
    assert!(!live.is_suspended() && live.is_usable());
    last.record(AuthOutcome::Rejected);
    attempt(&live, AuthOutcome::Rejected).await;
    assert!(!live.is_suspended(), "only one rejection of the new access key");
}

#[tokio::test(start_paused = true)]
async fn another_secret_for_a_rejected_access_key_is_tried() {
    let live = live(Some(credentials()));
    attempt(&live, AuthOutcome::Rejected).await;
    attempt(&live, AuthOutcome::Rejected).await;
    live.install(other_secret("SK2"), None);
    let first = try_acquire(&live).await.unwrap();
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline, "one at a time");
    first.record(AuthOutcome::Rejected);
    assert!(live.is_suspended(), "the third in a row");
    live.install(other_secret("SK3"), None);
    attempt(&live, AuthOutcome::Accepted).await;
    assert_eq!(signers(&live, 4).await.len(), 4, "verified");
}

#[tokio::test(start_paused = true)]
async fn after_four_rejected_secrets_another_one_waits_for_the_suspension() {
    let live = live(Some(credentials()));
    attempt(&live, AuthOutcome::Rejected).await;
    for secret in ["SK2", "SK3", "SK4"] {
        live.install(other_secret(secret), None);
        attempt(&live, AuthOutcome::Rejected).await;
    }
    live.install(other_secret("SK5"), None);
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::UpstreamCredentials);
    advance(Duration::from_secs(300)).await;
    attempt(&live, AuthOutcome::Accepted).await;
    assert!(!live.is_suspended());
}

#[tokio::test(start_paused = true)]
async fn projects_with_one_access_key_share_its_rejections() {
    let guards = Arc::<LockoutGuards>::default();
    let projects = [(); 3].map(|()| LiveCredentials::new("p".into(), Some(credentials()), guards.clone()));
    let first = try_acquire(&projects[0]).await.unwrap();
    assert_eq!(try_acquire(&projects[1]).await.unwrap_err(), Reason::Deadline, "one in flight over all projects");
    first.record(AuthOutcome::Rejected);
    attempt(&projects[2], AuthOutcome::Rejected).await;
    assert!(projects.iter().all(LiveCredentials::is_suspended));
}

#[tokio::test(start_paused = true)]
async fn rejections_of_unused_access_keys_are_forgotten_after_an_hour() {
    let guards = Arc::<LockoutGuards>::default();
    let used = LiveCredentials::new("used".into(), Some(second()), guards.clone());
    attempt(&used, AuthOutcome::Rejected).await;
    let unused = LiveCredentials::new("unused".into(), Some(credentials()), guards.clone());
    attempt(&unused, AuthOutcome::Rejected).await;
    drop(unused);
    advance(Duration::from_secs(3599)).await;
    assert!(guards.get("AK").rejected_at().is_some());
    advance(Duration::from_secs(1)).await;
    assert!(guards.get("AK").rejected_at().is_none());
    assert!(guards.get("AK2").rejected_at().is_some(), "in use");
}

/// One project has the secret of the access key, the other one a wrong one.
#[tokio::test(start_paused = true)]
async fn a_wrong_secret_of_one_project_does_not_suspend_another() {
    let guards = Arc::<LockoutGuards>::default();
    let right = LiveCredentials::new("right".into(), Some(credentials()), guards.clone());
    let wrong = LiveCredentials::new("wrong".into(), Some(other_secret("SK2")), guards.clone());
    attempt(&right, AuthOutcome::Accepted).await;
    for _ in 0..2 {
        attempt(&wrong, AuthOutcome::Rejected).await;
        assert_eq!(signers(&right, 3).await.len(), 3);
        attempt(&right, AuthOutcome::Accepted).await;
    }
    assert_eq!(try_acquire(&wrong).await.unwrap_err(), Reason::UpstreamCredentials);
    assert_eq!((right.is_suspended(), wrong.is_suspended()), (false, true));
}

#[tokio::test(start_paused = true)]
async fn a_success_before_a_rejection_does_not_verify() {
    let live = accepted().await;
    let early = [try_acquire(&live).await.unwrap(), try_acquire(&live).await.unwrap()];
    attempt(&live, AuthOutcome::Rejected).await;
    early.into_iter().for_each(|permit| permit.record(AuthOutcome::Accepted));
    let first = try_acquire(&live).await.unwrap();
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline, "one at a time");
    first.record(AuthOutcome::Rejected);
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
            let permit =
                live.permit(monotonic() + Duration::from_secs(10), || {}).await.map_err(|error| error.reason)?;
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
    assert_eq!(rejected_by_scm, 2);
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_beyond_its_deadline() {
    let live = Arc::new(live(Some(credentials())));
    let hanging = try_acquire(&live).await.unwrap();
    let calls: Vec<_> = (1..=100)
        .map(|millis| {
            let (live, deadline) = (live.clone(), monotonic() + Duration::from_millis(millis));
            tokio::spawn(async move {
                let error = live.permit(deadline, || {}).await.unwrap_err();
                assert_eq!(error.reason, Reason::Deadline);
                assert!(monotonic() - deadline <= Duration::from_millis(1));
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    hanging.record(AuthOutcome::Accepted);
    assert_eq!(signers(&live, 9).await.len(), 9, "those calls have left nothing behind");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_is_corrected_by_one_request_at_a_time() {
    let live = live(Some(credentials()));
    attempt(&live, AuthOutcome::ClockSkewed).await;
    assert!(!live.is_suspended());
    let corrected = try_acquire(&live).await.unwrap();
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::Deadline, "the others wait for the outcome");
    corrected.record(AuthOutcome::Rejected);
    assert!(live.is_suspended(), "suspended after the second rejection in a row");
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
    let error = live.permit(monotonic(), || {}).await.unwrap_err();
    assert_eq!((error.reason, error.cause), (Reason::UpstreamCredentials, Some("no credentials")), "deadline exceeded");
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let live = live.clone();
            tokio::spawn(async move {
                let permit = live.permit(monotonic() + Duration::from_secs(10), || {}).await.unwrap();
                assert_eq!(permit.credentials().access_key, "AK");
                permit.record(AuthOutcome::Accepted);
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(calls.iter().all(|call| !call.is_finished()));
    live.install(credentials(), None);
    for call in calls {
        call.await.unwrap();
    }
    let held = try_acquire(&live).await.unwrap();
    live.remove(&credentials());
    held.record(AuthOutcome::Accepted);
    assert_eq!(try_acquire(&live).await.unwrap_err(), Reason::UpstreamCredentials, "expired");
}

/// Returns the trust in the current and the pending credentials and the state of the circuit, as the status page shows them.
fn shown(live: &LiveCredentials) -> (Option<Trust>, Option<Trust>, CircuitState) {
    let (current, pending, circuit) = live.status(&Moment::now(&Clock::system()));
    let trust = |version: Option<CredentialsVersion>| version.map(|version| version.trust);
    (trust(current), trust(pending), circuit.state)
}

#[tokio::test(start_paused = true)]
async fn status_shows_the_trust_in_both_credentials() {
    use CircuitState::{Closed, HalfOpen, Open};
    use Trust::{ProbeDue, Probing, Suspect, Suspended, Unverified, Verified};
    let live = live(None);
    assert_eq!(shown(&live), (None, None, Closed));
    live.install(credentials(), None);
    assert_eq!(shown(&live), (None, Some(Unverified), Closed));
    attempt(&live, AuthOutcome::Accepted).await;
    assert_eq!(shown(&live), (Some(Verified), None, Closed));
    for newer in [second(), other_secret("SK2")] {
        live.install(newer, None);
        assert_eq!(shown(&live), (Some(Verified), Some(Unverified), Closed), "not tried yet");
        attempt(&live, AuthOutcome::Rejected).await;
        assert_eq!(shown(&live), (Some(Verified), Some(Suspended), Closed), "the accepted ones stay in use");
        attempt(&live, AuthOutcome::Accepted).await;
        live.install(credentials(), None);
        assert_eq!(shown(&live), (Some(Verified), None, Closed), "rolled back");
    }
    attempt(&live, AuthOutcome::Rejected).await;
    assert_eq!(shown(&live), (Some(Suspect), None, Closed));
    attempt(&live, AuthOutcome::Rejected).await;
    assert_eq!(shown(&live), (Some(Suspended), None, Open));
    advance(Duration::from_secs(300)).await;
    assert_eq!(shown(&live), (Some(ProbeDue), None, CircuitState::ProbeDue));
    assert!(!live.is_suspended());
    let probe = try_acquire(&live).await.unwrap();
    assert_eq!(shown(&live), (Some(Probing), None, HalfOpen));
    assert!(live.is_suspended(), "other calls are rejected");
    probe.record(AuthOutcome::Accepted);
    assert_eq!(shown(&live), (Some(Verified), None, Closed));
}

#[tokio::test(start_paused = true)]
async fn status_shows_the_times_of_credentials() {
    let live = live(Some(credentials()));
    advance(Duration::from_secs(60)).await;
    attempt(&live, AuthOutcome::Rejected).await;
    attempt(&live, AuthOutcome::Rejected).await;
    let rejected = Moment::now(&Clock::system());
    advance(Duration::from_secs(10)).await;
    let now = Moment { monotonic: monotonic(), wall: rejected.wall + Duration::from_secs(10) };
    let (_, pending, circuit) = live.status(&now);
    let pending = pending.unwrap();
    let at = |seconds: u64, before: u64| {
        Some((rejected.wall + Duration::from_secs(seconds) - Duration::from_secs(before)).into())
    };
    assert_eq!(
        (pending.age_seconds, Some(pending.loaded_at), live.age()),
        (70, at(0, 60), Some(Duration::from_secs(70)))
    );
    assert_eq!((pending.last_rejected_at, pending.suspended_until), (at(0, 0), at(300, 0)));
    let Circuit { state, since, until } = circuit;
    assert_eq!((state, since, until), (CircuitState::Open, at(0, 0), at(300, 0)));

    advance(Duration::from_secs(290)).await;
    attempt(&live, AuthOutcome::Rejected).await;
    let now = Moment { monotonic: monotonic(), wall: rejected.wall + Duration::from_secs(300) };
    let (_, pending, Circuit { state, since, until }) = live.status(&now);
    assert_eq!((state, since, until), (CircuitState::Open, at(0, 0), at(600, 0)), "since the first suspension");
    assert_eq!(pending.unwrap().last_rejected_at, at(300, 0));
}
