//! What becomes of a call whose outcome is unknown: every method, and every way to fail. Unsafe calls are never repeated.

use scm_emulator::{Emulator, Reply, Step, Then};
use tokio::task::JoinSet;
use tonic::{
    Code::{self, Aborted, DeadlineExceeded, Internal, InvalidArgument, ResourceExhausted, Unavailable, Unknown},
    Status,
};
use tonic_types::StatusExt as _;

use crate::harness::{
    Gateway, Refusing, assert_status, emulator, environment,
    facts::is_unsafe,
    rpc::{Rpc, rpcs},
    samples::{self, Filling},
};

/// The outcome of a call: attempts, code and reason.
type Outcome = (u32, Code, &'static str);

/// The outcome of a failure that every method reports alike, after one attempt.
const fn once(code: Code, reason: &'static str) -> [Outcome; 2] {
    [(1, code, reason); 2]
}

const UNKNOWN: Outcome = (1, Unknown, "UPSTREAM_OUTCOME_UNKNOWN");
/// The outcomes of an idempotent method, and of another one.
const AMBIGUOUS: [Outcome; 2] = [(3, Unavailable, "UPSTREAM_UNAVAILABLE"), UNKNOWN];
const AMBIGUOUS_TIMEOUT: [Outcome; 2] = [(3, DeadlineExceeded, "UPSTREAM_TIMEOUT"), UNKNOWN];
const UNPROCESSED: [Outcome; 2] = [(3, Unavailable, "UPSTREAM_UNAVAILABLE"), (1, Unavailable, "UPSTREAM_UNAVAILABLE")];
const MALFORMED: [Outcome; 2] = once(Internal, "UPSTREAM_MALFORMED");

fn raw(text: &str) -> Step {
    Step::Raw(text.as_bytes().to_vec())
}

fn reply(status: u16, code: &str) -> Step {
    Step::Reply(Reply::json(status, &format!(r#"{{"error_code":"{code}","error_msg":"text"}}"#)))
}

/// Every way to fail, and the outcomes of an idempotent method and of another one.
fn faults() -> Vec<(&'static str, Step, [Outcome; 2])> {
    let partial = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{";
    vec![
        ("closed before the head", Step::Close, AMBIGUOUS),
        ("reset before the head", Step::Reset, AMBIGUOUS),
        ("closed in the head", raw("HTTP/1.1 200 OK\r\nContent-Le"), AMBIGUOUS),
        ("closed in the status line", raw("HTTP/1.1 2"), AMBIGUOUS),
        ("closed after the head", raw("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"), AMBIGUOUS),
        ("closed in the body", raw(partial), AMBIGUOUS),
        ("reset in the body", Step::RawThen(partial.into(), Then::Reset), AMBIGUOUS),
        ("closed in a chunk", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"), AMBIGUOUS),
        (
            "closed before the last chunk",
            raw("HTTP/1.1 201 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
            AMBIGUOUS,
        ),
        ("closed in the body of a 503", raw("HTTP/1.1 503 x\r\nContent-Length: 99\r\n\r\n{"), AMBIGUOUS),
        ("closed in the body of a 504", raw("HTTP/1.1 504 x\r\nContent-Length: 99\r\n\r\n{"), AMBIGUOUS_TIMEOUT),
        ("408", Step::Reply(Reply::new(408)), AMBIGUOUS),
        ("502", Step::Reply(Reply::new(502)), AMBIGUOUS),
        ("503", Step::Reply(Reply::new(503)), AMBIGUOUS),
        ("504", Step::Reply(Reply::new(504)), AMBIGUOUS_TIMEOUT),
        ("502, HTML", Step::Reply(Reply::new(502).header("Content-Type", "text/html").body("<html>")), AMBIGUOUS),
        ("503, APIG.0201", reply(503, "APIG.0201"), AMBIGUOUS),
        ("504, APIG.0203", reply(504, "APIG.0203"), AMBIGUOUS_TIMEOUT),
        ("503, unknown code", reply(503, "SCM.9999"), AMBIGUOUS),
        (
            "503, code of the state",
            reply(503, "SCM.0010"),
            [(1, Code::FailedPrecondition, "CERTIFICATE_STATE"), UNKNOWN],
        ),
        ("504, code of an error", reply(504, "SCM.0016"), [(1, Internal, "UPSTREAM_ERROR"), UNKNOWN]),
        ("503, APIG.0610", reply(503, "APIG.0610"), UNPROCESSED),
        ("503, APIGW.0613", reply(503, "APIGW.0613"), UNPROCESSED),
        ("500, APIG.0613", reply(500, "APIG.0613"), once(Unavailable, "UPSTREAM_UNAVAILABLE")),
        ("400", Step::Reply(Reply::new(400)), once(InvalidArgument, "INVALID_REQUEST")),
        ("409", Step::Reply(Reply::new(409)), once(Aborted, "UPSTREAM_CONFLICT")),
        ("500", Step::Reply(Reply::new(500)), once(Internal, "UPSTREAM_ERROR")),
        ("500, SCM.0016", reply(500, "SCM.0016"), once(Internal, "UPSTREAM_ERROR")),
        ("501", Step::Reply(Reply::new(501)), once(Internal, "UPSTREAM_ERROR")),
        ("no JSON", Step::Reply(Reply::json(200, "<html>")), MALFORMED),
        ("no HTTP", raw("p1anted\r\n\r\n"), MALFORMED),
        ("over the cap", Step::Reply(Reply::json(200, &"x".repeat(1 << 21))), once(Internal, "UPSTREAM_TOO_LARGE")),
        // Last, because a cooldown follows.
        ("429", Step::Reply(Reply::new(429)), once(ResourceExhausted, "UPSTREAM_THROTTLED")),
    ]
}

/// Starts a gateway that retries at once, and whose circuit breaker stays closed.
async fn gateway(emulator: &Emulator, more: &[(&str, &str)]) -> Gateway {
    let variables =
        [("SCM_GATEWAY__UPSTREAM__INITIAL_BACKOFF", "1ms"), ("SCM_GATEWAY__UPSTREAM__CIRCUIT_MAX_FAILURES", "1000")];
    Gateway::serving_all(emulator, &[&variables, more].concat()).await
}

fn expected(rpc: &Rpc, outcomes: [Outcome; 2]) -> Outcome {
    outcomes[usize::from(is_unsafe(rpc))]
}

/// Asserts the outcome of a call, and that a caller is not asked to retry where a retry could do harm.
fn assert_outcome(what: &str, status: &Status, (attempts, code, reason): Outcome) {
    let seen = crate::harness::seen(status);
    assert_eq!((seen.code, seen.reason.as_str()), (code, reason), "{what}: {status:?}");
    assert_eq!(seen.metadata.get("attempts"), Some(&attempts.to_string()), "{what}");
    if reason == "UPSTREAM_OUTCOME_UNKNOWN" {
        assert!(status.get_error_details().retry_info().is_none(), "{what}");
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms"), None, "{what}");
    }
}

/// Makes a call that meets each fault in turn.
async fn assert_faults(rpc: Rpc) {
    let request = samples::request(&rpc, Filling::Required);
    let mut emulator = emulator().await;
    let mut gateway = gateway(&emulator, &[]).await;
    for (fault, step, outcomes) in faults() {
        let outcome = expected(&rpc, outcomes);
        // The retry budget of a new gateway allows ten retries at once.
        if emulator.attempts() > 6 {
            emulator = crate::harness::emulator().await;
            gateway = self::gateway(&emulator, &[]).await;
        }
        let before = emulator.attempts();
        emulator.scripts(vec![step; outcome.0 as usize]);
        let status = gateway.call(&rpc, request.clone()).await.unwrap_err();
        assert_outcome(&format!("{fault}: {}", rpc.name()), &status, outcome);
        assert_eq!((emulator.attempts() - before, emulator.steps_left()), (outcome.0 as usize, 0), "{fault}");
    }
}

#[tokio::test]
async fn attempts_and_status_follow_the_idempotency() {
    rpcs().into_iter().map(assert_faults).collect::<JoinSet<_>>().join_all().await;
}

#[tokio::test]
async fn retry_after_asks_no_caller_to_repeat_an_unsafe_call() {
    for rpc in rpcs() {
        let emulator = emulator().await;
        let gateway = gateway(&emulator, &[]).await;
        for (calls, status) in [408, 502, 503, 504].into_iter().enumerate() {
            emulator.script(Step::Reply(Reply::new(status).header("Retry-After", "30")));
            let error = gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await.unwrap_err();
            let is_unsafe = is_unsafe(&rpc);
            assert_eq!(error.get_error_details().retry_info().is_none(), is_unsafe, "{status}: {}", rpc.name());
            let pushback = error.metadata().get("grpc-retry-pushback-ms");
            assert_eq!(pushback.is_some(), !is_unsafe && status != 504, "{status}: {}", rpc.name());
            assert_eq!(emulator.attempts(), calls + 1);
        }
    }
}

#[tokio::test]
async fn calls_that_were_not_sent_are_repeated_for_every_method() {
    let refusing = Refusing::new();
    for rpc in rpcs() {
        let methods = crate::harness::rpc::names();
        let variables =
            [("SCM_GATEWAY__UPSTREAM__INITIAL_BACKOFF", "1ms"), ("SCM_GATEWAY__SERVER__METHODS", methods.as_str())];
        let environment = environment(&refusing.endpoint(), &variables);
        let gateway = Gateway::start(environment, scm_gateway::clock::Clock::system()).await;
        let status = gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await.unwrap_err();
        assert_status(&status, Unavailable, "UPSTREAM_UNAVAILABLE", Some(3));
    }
}

#[tokio::test]
async fn a_deadline_after_the_request_was_sent_says_so() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec();
    for step in [Step::Hang, Step::RawThen(head, Then::Hang)] {
        let mut calls = JoinSet::new();
        for rpc in rpcs() {
            let step = step.clone();
            calls.spawn(async move {
                let emulator = emulator().await;
                // The gateway's own deadline: a client's would end its wait, too.
                let gateway = gateway(&emulator, &[("SCM_GATEWAY__UPSTREAM__TIMEOUT", "2s")]).await;
                emulator.script(step);
                let status = gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await.unwrap_err();
                assert_outcome(rpc.name(), &status, (1, DeadlineExceeded, "DEADLINE"));
                assert_eq!(emulator.attempts(), 1);
            });
        }
        calls.join_all().await;
    }
}

#[tokio::test]
async fn shutdown_during_an_attempt_follows_the_idempotency() {
    let mut calls = JoinSet::new();
    for rpc in rpcs() {
        calls.spawn(async move {
            let emulator = emulator().await;
            let mut gateway = gateway(&emulator, &[("SCM_GATEWAY__SERVER__DRAIN", "200ms")]).await;
            emulator.script(Step::Hang);
            let channel = gateway.channel().await;
            let call = {
                let rpc = rpc.clone();
                let request = samples::request(&rpc, Filling::Required);
                tokio::spawn(async move { crate::harness::rpc::call(channel, &rpc, request).await })
            };
            emulator.wait_for_attempts(1).await;
            gateway.stop();
            let status = call.await.unwrap().unwrap_err();
            let outcome = expected(&rpc, [(1, Unavailable, "SHUTTING_DOWN"), UNKNOWN]);
            assert_outcome(rpc.name(), &status, outcome);
            assert_eq!(emulator.attempts(), 1);
            gateway.stopped().await;
        });
    }
    calls.join_all().await;
}

#[tokio::test]
async fn a_hanging_attempt_is_repeated_only_if_the_method_is_idempotent() {
    let mut calls = JoinSet::new();
    for rpc in rpcs() {
        calls.spawn(async move {
            let emulator = emulator().await;
            let timeouts = [("SCM_GATEWAY__UPSTREAM__ATTEMPT_TIMEOUT", "2s"), ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "5s")];
            let gateway = gateway(&emulator, &timeouts).await;
            let (status, body) = rpc.success();
            emulator.scripts([Step::Hang, Step::Reply(Reply::json(status, &body))]);
            let result = gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await;
            let is_unsafe = is_unsafe(&rpc);
            assert_eq!(result.is_err(), is_unsafe, "{}: {result:?}", rpc.name());
            assert_eq!(emulator.attempts(), if is_unsafe { 1 } else { 2 }, "{}", rpc.name());
        });
    }
    calls.join_all().await;
}

#[tokio::test]
async fn not_found_after_an_unprocessed_delete_is_not_found() {
    for rpc in rpcs().into_iter().filter(|rpc| rpc.verb == "DELETE" && rpc.idempotent) {
        for (first, is_success) in [
            (reply(503, "APIG.0610"), false),
            (reply(503, "APIGW.0613"), false),
            (reply(503, "APIG.0201"), true),
            (Step::Reply(Reply::new(503)), true),
        ] {
            let emulator = emulator().await;
            let gateway = gateway(&emulator, &[]).await;
            emulator.scripts([first.clone(), reply(404, "SCM.0008")]);
            match gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await {
                Ok(_) => assert!(is_success, "{} after {first:?}", rpc.name()),
                Err(status) => {
                    assert!(!is_success, "{} after {first:?}: {status:?}", rpc.name());
                    assert_status(&status, Code::NotFound, "CERTIFICATE_NOT_FOUND", Some(2));
                }
            }
            assert_eq!(emulator.attempts(), 2);
        }
    }
}

#[tokio::test]
async fn not_found_after_a_retried_delete_is_a_success() {
    let not_found = || reply(404, "SCM.0008");
    for rpc in rpcs() {
        let is_unsafe = is_unsafe(&rpc);
        let deletes = rpc.verb == "DELETE" && !is_unsafe;
        let emulator = emulator().await;
        let gateway = gateway(&emulator, &[]).await;
        for (first, gone) in [
            (Step::Reply(Reply::new(503)), not_found()),
            (Step::Reply(Reply::new(504)), Step::Reply(Reply::new(404))),
            (Step::Reply(Reply::new(408)), reply(400, "SCM.0707")),
            (Step::Close, reply(400, "SCM.0020")),
            (raw("HTTP/1.1 204 No"), not_found()),
        ] {
            let before = emulator.attempts();
            let steps = [first.clone(), gone].into_iter().take(if is_unsafe { 1 } else { 2 });
            emulator.scripts(steps);
            match gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await {
                Ok(reply) => {
                    assert!(deletes, "{} after {first:?}", rpc.name());
                    assert_eq!(reply.into_inner(), prost_reflect::DynamicMessage::new(rpc.method.output()));
                }
                Err(status) if is_unsafe => assert_outcome(rpc.name(), &status, UNKNOWN),
                Err(status) => assert!(!deletes && status.code() == Code::NotFound, "{}: {status:?}", rpc.name()),
            }
            assert_eq!(emulator.attempts() - before, if is_unsafe { 1 } else { 2 });
        }
        emulator.script(not_found());
        let status = gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await.unwrap_err();
        assert_status(&status, Code::NotFound, "CERTIFICATE_NOT_FOUND", Some(1));
    }
}
