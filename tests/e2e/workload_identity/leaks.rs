//! Tokens and temporary credentials leave the gateway only to their service and to SCM. `secrets.rs` tests the other
//! secrets in the same way.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use scm_emulator::{Field, Issue, Reply, Step};
use tonic::{Request, Status};

use super::Lab;
use crate::harness::{client, process::Process, sample};

/// The number of responses that `echoes` returns.
const FAULTS: usize = 9;

/// The number of gateways that a test runs at the same time.
const MAX_PROCESSES: usize = 5;

/// Returns the responses of a service that fails in each way, and that echoes the token and other secrets.
fn echoes(token: &str) -> [Step; FAULTS] {
    let echo = |status: u16, code: &str| {
        let body = serde_json::json!({
            "error_code": code, "error_msg": format!("p1anted {token}"), "request_id": "p1anted",
            "encoded_authorization_message": format!("p1anted {token}"),
        });
        Step::Reply(Reply::json(status, &body.to_string()).header("X-Request-Id", format!("p1anted {token}")))
    };
    [
        echo(500, "p1anted code"),
        echo(503, token),
        echo(502, token.split('.').next_back().unwrap_or_default()),
        Step::Reply(Reply::json(200, &format!("p1anted {token}"))),
        Step::Reply(Reply::json(
            200,
            r#"{"credentials":{"access_key_id":"p1anted 1","accessKeyId":"p1anted 1","secret_access_key":"p1anted","secretAccessKey":"p1anted","security_token":"p1anted","securityToken":"p1anted","expiration":"p1anted"}}"#,
        )),
        Step::Reply(Reply::new(307).header("Location", format!("/p1anted?{token}"))),
        Step::Issue(Issue::Without(Field::Expiration)),
        Step::Raw(format!("p1anted {token}\r\n\r\n").into_bytes()),
        echo(403, "STS5.1001"),
    ]
}

/// Makes a call with this deadline.
async fn call(process: &Process, deadline: Duration) -> Result<(), Status> {
    let mut request = Request::new(sample());
    request.set_timeout(deadline);
    client(&process.address).await.save_info(request).await.map(drop)
}

/// Starts the binary with a service that issues credentials, and then fails in this way until they expire. Asserts that
/// no output has a secret.
async fn assert_no_leak(lab: Lab, fault: usize) {
    let token = lab.replace_token(&lab.claims());
    let (keys, fault) = (lab.keys(), echoes(&token)[fault].clone());
    lab.service.script(Step::Issue(Issue::Valid(Duration::from_secs(4))));
    lab.service.always(fault);
    let mut variables: Vec<_> = keys.iter().map(|(name, value)| (*name, value.as_str())).collect();
    variables.push(("RUST_LOG", "trace"));
    let mut process = Process::start(&lab.emulator.endpoint(), &variables).await;
    call(&process, Duration::from_secs(10)).await.unwrap();
    process.line("temporary credentials refresh failed").await;
    process.line("temporary credentials expired").await;
    let status = call(&process, Duration::from_millis(200)).await.unwrap_err();
    let mut outputs = vec![process.metrics().await];
    for path in ["/", "/status", "/config"] {
        let answer = reqwest::get(format!("http://{}{path}", process.admin)).await.unwrap();
        outputs.push(answer.text().await.unwrap());
    }
    process.signal("TERM");
    let (code, log) = process.end().await;
    assert_eq!(code, Some(0));

    outputs.extend(log);
    outputs.push(format!("{status:?} {}", String::from_utf8_lossy(status.details())));
    let account = lab.issued().account;
    let payload = token.split('.').nth(1).unwrap();
    let markers = [&account.access_key, &account.secret_key, account.security_token.as_ref().unwrap(), &token];
    let markers = markers.into_iter().map(String::as_str);
    for marker in markers.chain([payload, "p1anted", "EXAMPLEsignature", "HSTAEXAMPLE", "EXAMPLEtemporarySK"]) {
        let found = outputs.iter().find(|output| output.contains(marker));
        assert!(found.is_none(), "{marker} in {found:?}");
    }
}

#[tokio::test]
async fn oidc_token_and_its_credentials_do_not_leak() {
    stream::iter(0..FAULTS)
        .for_each_concurrent(MAX_PROCESSES, |fault| async move { assert_no_leak(Lab::sts().await, fault).await })
        .await;
}

#[tokio::test]
async fn pod_token_and_its_credentials_do_not_leak() {
    // A service error, a response that is no credentials, and a redirect: the client is that of STS.
    stream::iter([1, 4, 5])
        .for_each_concurrent(
            MAX_PROCESSES,
            |fault| async move { assert_no_leak(Lab::pod_identity().await, fault).await },
        )
        .await;
}

/// The SDKs obey `HTTP_PROXY`, which then gets the token in plain text.
#[tokio::test]
async fn proxies_of_the_environment_get_no_token() {
    let proxy = crate::harness::emulator().await;
    let endpoint = proxy.endpoint();
    let lab = Lab::sts().await;
    let keys = lab.keys();
    let mut variables: Vec<_> = keys.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        variables.push((name, &endpoint));
    }
    let process = Process::start(&lab.emulator.endpoint(), &variables).await;
    call(&process, Duration::from_secs(10)).await.unwrap();
    assert_eq!((proxy.connections(), lab.service.attempts()), (0, 1));
}
