//! Every error code of `tests/errors.tsv`, end to end.

use scm_emulator::{Reply, Step};
use tonic::Code;

use crate::harness::{Gateway, emulator, sample, seen};

fn code(name: &str) -> Code {
    (0..=16).map(Code::from_i32).find(|code| screaming_snake_case(*code) == name).unwrap()
}

/// Returns `INVALID_ARGUMENT` for `InvalidArgument`.
fn screaming_snake_case(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}

#[tokio::test]
async fn every_documented_code_has_its_status() {
    let rows: Vec<_> = include_str!("../errors.tsv").lines().skip(1).collect();
    assert!(rows.len() > 100);
    for (index, row) in rows.iter().enumerate() {
        let [http_status, upstream_code, message, status, reason] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("a row has five columns: {row}");
        };
        // Each row has its own gateway, because circuit breakers and cooldowns keep state.
        let emulator = emulator().await;
        let gateway = Gateway::of(&emulator).await;
        let attempts = if ["408", "502", "503", "504"].contains(&http_status) { 3 } else { 1 };
        let body = match upstream_code {
            "-" => String::new(),
            code => format!(r#"{{"error_code":"{code}","error_msg":"{message} p1anted","request_id":"of-the-body"}}"#),
        };
        let reply = Reply::json(http_status.parse().unwrap(), &body).header("X-Request-Id", format!("id-{index}"));
        emulator.scripts(vec![Step::Reply(reply); attempts]);

        let rejected = gateway.save(sample()).await.unwrap_err();

        let seen = seen(&rejected);
        assert_eq!((seen.code, seen.reason.as_str()), (code(status), reason), "{row}");
        let mut expected = vec![
            ("attempts".to_owned(), attempts.to_string()),
            ("http_status".to_owned(), http_status.to_owned()),
            ("upstream_request_id".to_owned(), format!("id-{index}")),
        ];
        if upstream_code != "-" {
            expected.push(("upstream_code".to_owned(), upstream_code.to_owned()));
        }
        assert_eq!(seen.metadata, expected.into_iter().collect(), "{row}");
        assert_eq!(rejected.metadata().get("x-upstream-request-id").unwrap(), &format!("id-{index}"));
        let details = String::from_utf8_lossy(rejected.details());
        let leaked = rejected.message().contains("p1anted") || details.contains("p1anted");
        assert!(!leaked, "text of SCM: {rejected:?}");
        assert_eq!(emulator.attempts(), attempts, "{row}");
    }
}

#[tokio::test]
async fn rejections_of_scm_have_distinct_reasons() {
    let options = scm_emulator::Options {
        unknown: vec!["scs0000000000008".into()],
        foreign: vec!["scs0000000000003".into()],
        issued: vec!["scs0000000000010".into()],
        ..scm_emulator::Options::default()
    };
    let emulator = scm_emulator::Emulator::start(options).await.unwrap();
    let gateway = Gateway::of(&emulator).await;
    for (cert_id, code, reason) in [
        ("scs0000000000008", Code::NotFound, "CERTIFICATE_NOT_FOUND"),
        ("scs0000000000003", Code::PermissionDenied, "CERTIFICATE_NOT_OWNED"),
        ("scs0000000000010", Code::FailedPrecondition, "CERTIFICATE_STATE"),
    ] {
        let request = scm_gateway::proto::SaveInfoRequest { cert_id: cert_id.into(), ..sample() };
        crate::harness::assert_status(&gateway.save(request).await.unwrap_err(), code, reason, Some(1));
    }
}

#[tokio::test]
async fn retry_after_becomes_retry_info() {
    use tonic_types::StatusExt as _;
    for (retry_after, expected) in [("7", Some(7)), ("3600", Some(60)), ("soon", None), ("0", None)] {
        let emulator = emulator().await;
        let gateway = Gateway::of(&emulator).await;
        let body = r#"{"error_code":"APIG.0308","error_msg":"over ratelimit"}"#;
        emulator.script(Step::Reply(Reply::json(429, body).header("Retry-After", retry_after)));
        let status = gateway.save(sample()).await.unwrap_err();
        crate::harness::assert_status(&status, Code::ResourceExhausted, "UPSTREAM_THROTTLED", Some(1));
        let wait = status.get_error_details().retry_info().and_then(|info| info.retry_delay).map(|wait| wait.as_secs());
        assert_eq!(wait, expected, "{retry_after}");
    }
}
