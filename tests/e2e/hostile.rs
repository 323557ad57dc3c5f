//! What the network, or an SCM that is broken or hostile, can do to a call: each fault is one test. Whatever it was, the
//! call ends with the status of the contract after the attempts of the contract, and the next call is good.

use std::time::Duration;

use scm_emulator::{Emulator, Step, Then};
use scm_gateway::clock::Clock;
use tonic::{Code, Request, Status};

use crate::harness::{Gateway, Seen, emulator, environment, sample, seen};

mod connection;
mod content;
mod errors;
mod framing;
mod heads;
mod memory;
mod tls;

/// The body of a success, 26 bytes.
const SUCCESS: &str = r#"{"request_info":"success"}"#;

/// The head of an answer with this line of framing.
fn head(line: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n")
}

/// A success as it should be.
fn success() -> String {
    head("Content-Length: 26") + SUCCESS
}

/// These bytes, then the connection is closed.
fn raw(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Raw(bytes.into())
}

/// These bytes, and then this.
fn then(bytes: impl Into<Vec<u8>>, then: Then) -> Step {
    Step::RawThen(bytes.into(), then)
}

/// A gateway that does not pause between attempts.
async fn gateway(endpoint: &str, variables: &[(&str, &str)]) -> Gateway {
    let mut all = vec![("SCM_GATEWAY__UPSTREAM__BACKOFF", "1ms"), ("SCM_GATEWAY__UPSTREAM__MAX_BACKOFF", "1ms")];
    all.extend(variables);
    Gateway::start(environment(endpoint, &all), Clock::system()).await
}

/// SCM and a gateway before it.
struct Pair {
    emulator: Emulator,
    gateway: Gateway,
}

impl Pair {
    async fn new() -> Self {
        let emulator = emulator().await;
        let gateway = gateway(&emulator.endpoint(), &[]).await;
        Self { emulator, gateway }
    }

    /// A call whose every attempt meets this step.
    async fn call(&self, step: Step, attempts: usize, timeout: Option<Duration>) -> Result<(), Status> {
        let before = self.emulator.attempts();
        self.emulator.scripts(vec![step; attempts]);
        let mut request = Request::new(sample());
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let result = self.gateway.patient_client().save_info(request).await.map(|_| ());
        assert_eq!(self.emulator.attempts() - before, attempts, "attempts of {result:?}");
        assert_eq!(self.emulator.steps_left(), 0);
        result
    }

    /// The call after it: served at its first attempt, by its own answer.
    async fn next_is_good(&self) {
        let before = self.emulator.attempts();
        let reply = self.gateway.save(sample()).await.expect("the next call is good");
        assert_eq!(reply.get_ref().request_info, "success");
        assert_eq!(self.emulator.attempts() - before, 1, "attempts of the next call");
        assert_eq!(self.emulator.refusals().len(), 0);
    }

    async fn refused(&self, step: Step, attempts: usize, code: Code, reason: &str) -> Seen {
        let status = self.call(step, attempts, None).await.unwrap_err();
        let seen = expect(&status, attempts, code, reason);
        self.next_is_good().await;
        seen
    }

    async fn lost(&self, step: Step) {
        self.refused(step, 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE").await;
    }

    async fn malformed(&self, step: Step) -> Seen {
        self.refused(step, 1, Code::Internal, "UPSTREAM_MALFORMED").await
    }
}

fn expect(status: &Status, attempts: usize, code: Code, reason: &str) -> Seen {
    let seen = seen(status);
    assert_eq!((seen.code, seen.reason.as_str()), (code, reason), "{status:?}");
    assert_eq!(seen.metadata["attempts"], attempts.to_string(), "{status:?}");
    assert!(!format!("{status:?}").contains("p1anted"), "text of the answer in {status:?}");
    seen
}

/// Ends as a success at the first attempt.
async fn good(step: Step) {
    let pair = Pair::new().await;
    pair.call(step, 1, None).await.unwrap();
    pair.next_is_good().await;
}

/// Sent, then the connection died, and repeating it did not settle it.
async fn lost(step: Step) {
    Pair::new().await.lost(step).await;
}

/// No answer, and nothing that a repeat would mend.
async fn malformed(step: Step) -> Seen {
    Pair::new().await.malformed(step).await
}

/// More than is read.
async fn too_large(step: Step) {
    let pair = Pair::new().await;
    pair.refused(step, 1, Code::Internal, "UPSTREAM_TOO_LARGE").await;
    pair.emulator.wait_for_open_connections(1).await; // the next call's: what would have come is not waited for
}

/// Not over before the deadline, which ends the call and the connection.
async fn overdue(step: Step) {
    let pair = Pair::new().await;
    let status = pair.call(step, 1, Some(Duration::from_millis(200))).await.unwrap_err();
    expect(&status, 1, Code::DeadlineExceeded, "DEADLINE");
    pair.emulator.wait_for_open_connections(0).await;
    pair.next_is_good().await;
}
