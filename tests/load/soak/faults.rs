//! The faults of SCM and the network, and the outcome of a call that meets one. The end-to-end suite of hostile
//! responses tests each fault alone.

use std::time::Duration;

use scm_emulator::{
    Reply, Step,
    Step::{Close, CloseUnread, Drip, Endless, Hang, Raw, RawThen, Reset},
    Then,
};
use tonic::Code::{self, Aborted, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument, NotFound};

/// The status of the call, or `None` if the call is retried or succeeds.
pub type Outcome = Option<(Code, &'static str)>;

/// A scripted fault.
#[derive(Clone)]
pub struct Fault {
    pub step: Step,
    pub outcome: Outcome,
    /// Whether the call succeeds with this response.
    pub is_success: bool,
}

const SUCCESS: &str = r#"{"request_info":"success"}"#;
const CHUNKED: &str = "Transfer-Encoding: chunked";

const MALFORMED: Outcome = Some((Internal, "UPSTREAM_MALFORMED"));
const TOO_LARGE: Outcome = Some((Internal, "UPSTREAM_TOO_LARGE"));
pub const TIMED_OUT: Outcome = Some((DeadlineExceeded, "DEADLINE"));
pub const THROTTLED: Outcome = Some((Code::ResourceExhausted, "UPSTREAM_THROTTLED"));
pub const REJECTED: Outcome = Some((Internal, "UPSTREAM_CREDENTIALS"));
pub const RETRIED: Outcome = None;

fn head(line: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n")
}

/// Returns all faults of SaveInfo, without two of the same kind in a row. A response that never ends has this outcome.
pub fn all(hang: Outcome) -> Vec<Fault> {
    mixed(&[error_statuses(), lost(), bodies(), timeouts(hang), framing(), endless_bodies(), successes()])
}

/// Returns the faults that have the same outcome with every method.
pub fn of_any_method(hang: Outcome) -> Vec<Fault> {
    mixed(&[error_statuses(), lost(), timeouts(hang), framing(), endless_bodies()])
}

fn mixed(kinds: &[Vec<Fault>]) -> Vec<Fault> {
    let max = kinds.iter().map(Vec::len).max().unwrap_or_default();
    (0..max).flat_map(|nth| kinds.iter().filter_map(move |kind| kind.get(nth).cloned())).collect()
}

fn faults(outcomes: impl IntoIterator<Item = (Step, Outcome)>) -> Vec<Fault> {
    outcomes.into_iter().map(|(step, outcome)| Fault { step, outcome, is_success: false }).collect()
}

fn error_statuses() -> Vec<Fault> {
    let reply = |status, code| Reply::json(status, &format!(r#"{{"error_code":"{code}"}}"#));
    let error = |status, code| Step::Reply(reply(status, code));
    let retry_after = Step::Reply(reply(429, "APIG.0308").header("Retry-After", "1"));
    faults([
        (error(400, "SCM.0010"), Some((FailedPrecondition, "CERTIFICATE_STATE"))),
        (error(401, "APIG.0301"), REJECTED),
        (error(403, "SCM.0003"), Some((Code::PermissionDenied, "CERTIFICATE_NOT_OWNED"))),
        (error(404, "SCM.0008"), Some((NotFound, "CERTIFICATE_NOT_FOUND"))),
        (error(405, "-"), Some((Internal, "UPSTREAM_CONFIGURATION"))),
        (error(408, "-"), RETRIED),
        (error(409, "-"), Some((Aborted, "UPSTREAM_CONFLICT"))),
        (error(413, "-"), Some((InvalidArgument, "INVALID_REQUEST"))),
        (error(429, "APIG.0308"), THROTTLED),
        (retry_after, THROTTLED),
        (error(500, "-"), Some((Internal, "UPSTREAM_ERROR"))),
        (error(502, "-"), RETRIED),
        (error(503, "APIG.0613"), RETRIED),
        (error(504, "-"), RETRIED),
    ])
}

fn lost() -> Vec<Fault> {
    let raw = |bytes: String| Raw(bytes.into());
    let cut = |bytes: String, then| RawThen(bytes.into(), then);
    let half = head("Content-Length: 26") + &SUCCESS[..10];
    faults(
        [
            Close,
            CloseUnread,
            Reset,
            raw("HTTP/1.1 200 OK\r\nContent-Le".into()),
            cut("HTTP/1.1 200 OK\r\nContent-Le".into(), Then::Reset),
            raw(head("Content-Length: 26")),
            raw(half.clone()),
            cut(half.clone(), Then::Cut),
            cut(half, Then::Reset),
            raw(head(CHUNKED) + "1a\r\n" + SUCCESS + "\r\n"),
        ]
        .map(|step| (step, RETRIED)),
    )
}

fn bodies() -> Vec<Fault> {
    let of = |body: Vec<u8>| Step::Reply(Reply::new(200).body(body));
    let deep = format!(r#"{{"request_info":{}"#, "[".repeat(100_000));
    faults(
        [
            of(b"<!DOCTYPE html>".into()),
            of(Vec::new()),
            of(b"{\"request_info\":\"success\xff\"}".into()),
            of(br#"{"request_info":"failed"}"#.into()),
            of(br#"{"request_info":"success","request_info":"success"}"#.into()),
            of(deep.into()),
            Step::Reply(Reply::new(302).header("Location", "https://elsewhere.example/")),
            Step::Reply(Reply::new(204)),
        ]
        .map(|step| (step, MALFORMED)),
    )
}

fn timeouts(outcome: Outcome) -> Vec<Fault> {
    let hang = |bytes: String| RawThen(bytes.into(), Then::Hang);
    let drip =
        |head: String, bytes: &str| Drip { head: head.into(), bytes: bytes.into(), every: Duration::from_secs(1) };
    faults(
        [
            Hang,
            hang("HTTP/1.1 200 OK\r\nContent-Le".into()),
            hang(head("Content-Length: 26")),
            hang(head("Content-Length: 27") + SUCCESS),
            drip(String::new(), "HTTP/1.1 200 OK\r\n"),
            drip(head("Content-Length: 26"), SUCCESS),
            endless(String::new(), &"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(100)),
        ]
        .map(|step| (step, outcome)),
    )
}

fn framing() -> Vec<Fault> {
    let keep_alive = |bytes: String| RawThen(bytes.into(), Then::KeepAlive);
    faults(
        [
            keep_alive(head("Content-Length: 25") + SUCCESS),
            keep_alive(head("Content-Length: 26\r\nContent-Length: 27") + SUCCESS),
            keep_alive(head("Content-Length: -1") + SUCCESS),
            keep_alive(head(CHUNKED) + "zz\r\n" + SUCCESS + "\r\n0\r\n\r\n"),
            keep_alive(head(CHUNKED) + "10\r\n" + SUCCESS + "\r\n0\r\n\r\n"),
            keep_alive(head(&("X: y\r\n".repeat(10_000) + "Content-Length: 26")) + SUCCESS),
            endless(head(CHUNKED) + "1;", &"x".repeat(1024)),
            endless(head(CHUNKED) + "0\r\n", &"X: y\r\n".repeat(1000)),
            endless("HTTP/1.1 200 OK\r\nX: ".into(), &"x".repeat(1024)),
        ]
        .map(|step| (step, MALFORMED)),
    )
}

fn endless(head: String, chunk: &str) -> Step {
    Endless { head: head.into(), chunk: chunk.into() }
}

fn endless_bodies() -> Vec<Fault> {
    let spaces = " ".repeat(64 * 1024);
    faults(
        [
            endless(head("Content-Length: 104857600"), &spaces),
            endless(head("X: y"), &spaces),
            endless(head(CHUNKED), &format!("10000\r\n{spaces}\r\n")),
            Step::Reply(Reply::new(200).body(" ".repeat(1024 * 1024 + 1))),
        ]
        .map(|step| (step, TOO_LARGE)),
    )
}

/// Returns unusual responses that are successes.
fn successes() -> Vec<Fault> {
    let success = head("Content-Length: 26") + SUCCESS;
    let chunked =
        head(CHUNKED) + "a;x=y\r\n" + &SUCCESS[..10] + "\r\n10\r\n" + &SUCCESS[10..] + "\r\n0\r\nX: y\r\n\r\n";
    let responses = [
        Raw(success.clone().into()),
        RawThen((success.clone() + "HTTP/1.1 400 Bad Request\r\n\r\n").into(), Then::KeepAlive),
        RawThen(chunked.into(), Then::KeepAlive),
        Drip { head: Vec::new(), bytes: success.into(), every: Duration::from_millis(1) },
    ];
    responses.map(|step| Fault { step, outcome: None, is_success: true }).into()
}
