//! Temporary credentials at SCM: only with their token, and until they expire.

use std::time::Duration;

use scm_emulator::{
    Account, Agency, Claims, CredentialService, Emulator, Issued, Metadata, Options, PodIdentity, Rights,
    ServiceOptions, Sts, Version,
};

use crate::client::{Call, ManualClock, call};
use crate::services::{Ask, sts_body};

/// Returns the time in the format of `X-Sdk-Date`.
fn sdk_date(hours: u32, seconds: u32) -> String {
    format!("20220809T{:02}05{:02}Z", 4 + hours, 6 + seconds)
}

/// Returns a signed request with temporary credentials.
fn signed(account: &Account, date: &str) -> Call {
    let token = account.security_token.clone().unwrap();
    Call::save()
        .set("X-Sdk-Date", date)
        .set("X-Security-Token", &token)
        .with(|call| {
            call.signed.push("x-security-token");
            call.access_key.clone_from(&account.access_key);
            call.secret_key.clone_from(&account.secret_key);
        })
        .sign()
}

async fn assert_rejected(emulator: &Emulator, request: &Call, reason: &str) {
    let answer = call(emulator, request).await;
    let rejected = emulator.rejections().pop().unwrap();
    assert_eq!((answer.status, rejected.reason), (401, reason));
    assert_eq!(answer.json()["error_code"], "APIG.0301");
}

async fn issue(service: &CredentialService, emulator: &Emulator, request: &Ask) -> Issued {
    assert_eq!(request.send(service).await.unwrap().status, 200);
    emulator.issuer().issued().pop().unwrap()
}

#[tokio::test]
async fn temporary_credentials_are_valid_with_their_token_until_they_expire() {
    let clock = ManualClock::default();
    let emulator = Emulator::start(clock.options()).await.unwrap();
    let options = ServiceOptions { now: clock.clock(), ..ServiceOptions::default() };
    let sts = CredentialService::start(Sts::default(), options, &emulator.issuer()).await.unwrap();
    let token = Claims::oidc(clock.now()).encode();
    let account = issue(&sts, &emulator, &Ask::sts(&sts_body(&token))).await.account;
    assert_eq!(call(&emulator, &signed(&account, &sdk_date(0, 0))).await.status, 200);
    assert_eq!(emulator.journal().pop().unwrap().access_key, account.access_key);

    let unsigned =
        signed(&account, &sdk_date(0, 0)).with(|call| call.signed.retain(|name| *name != "x-security-token"));
    assert_rejected(&emulator, &unsigned.sign(), "x-security-token is not signed").await;
    let without = signed(&account, &sdk_date(0, 0)).with(|call| {
        call.signed.retain(|name| *name != "x-security-token");
        call.headers.retain(|(name, _)| *name != "X-Security-Token");
    });
    assert_rejected(&emulator, &without.sign(), "the security token is missing").await;
    let other = issue(&sts, &emulator, &Ask::sts(&sts_body(&token))).await.account;
    let mixed = Account { security_token: other.security_token.clone(), ..account.clone() };
    assert_rejected(&emulator, &signed(&mixed, &sdk_date(0, 0)), "wrong security token").await;

    clock.advance(Duration::from_secs(3599));
    assert_eq!(call(&emulator, &signed(&account, &sdk_date(0, 0))).await.status, 401, "the signature is old");
    let date = sdk_date(0, 0).replace("T0405", "T0505");
    assert_eq!(call(&emulator, &signed(&account, &date)).await.status, 200);
    clock.advance(Duration::from_secs(1));
    assert_rejected(&emulator, &signed(&account, &date), "the temporary access key has expired").await;
}

#[tokio::test]
async fn revoked_credentials_are_unknown() {
    let clock = ManualClock::default();
    let emulator = Emulator::start(clock.options()).await.unwrap();
    let metadata = Metadata { version: Version::One(404), ..Metadata::default() };
    let options = ServiceOptions { now: clock.clock(), ..ServiceOptions::default() };
    let service = CredentialService::start(metadata, options, &emulator.issuer()).await.unwrap();
    let account = issue(&service, &emulator, &Ask::key(None)).await.account;
    assert_eq!(call(&emulator, &signed(&account, &sdk_date(0, 0))).await.status, 200);
    emulator.issuer().revoke(&account.access_key);
    assert_rejected(&emulator, &signed(&account, &sdk_date(0, 0)), "unknown access key").await;
}

/// Issuers are per emulator, and an agency has its own projects.
#[tokio::test]
async fn credentials_have_the_rights_of_their_agency() {
    let clock = ManualClock::default();
    let emulator = Emulator::start(clock.options()).await.unwrap();
    let elsewhere = Emulator::start(Options { now: clock.clock(), ..Options::default() }).await.unwrap();
    let rights = Rights { projects: vec!["another".to_owned()], ..Rights::default() };
    let sts = Sts { agencies: vec![Agency { rights, ..Agency::default() }], ..Sts::default() };
    let options = ServiceOptions { now: clock.clock(), ..ServiceOptions::default() };
    let token = Claims::oidc(clock.now()).encode();
    let sts = CredentialService::start(sts, options.clone(), &emulator.issuer()).await.unwrap();
    let narrow = issue(&sts, &emulator, &Ask::sts(&sts_body(&token))).await.account;
    assert_eq!(call(&emulator, &signed(&narrow, &sdk_date(0, 0))).await.status, 403);

    let agent = CredentialService::start(PodIdentity::default(), options, &emulator.issuer()).await.unwrap();
    let token = Claims::pod_identity(clock.now()).encode();
    let account = issue(&agent, &emulator, &Ask::pod(&token)).await.account;
    assert_eq!(call(&emulator, &signed(&account, &sdk_date(0, 0))).await.status, 200);
    assert_rejected(&elsewhere, &signed(&account, &sdk_date(0, 0)), "unknown access key").await;
}
