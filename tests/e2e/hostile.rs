//! Faults of the network and of a broken or hostile SCM, one test each. The call ends with the documented status after
//! the documented number of attempts, and the next call succeeds.

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
mod proxy;
mod tls;
mod tls_failures;

/// The body of a success, 26 bytes.
const SUCCESS: &str = r#"{"request_info":"success"}"#;

/// Returns the head of a response with this header line.
fn head(line: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n")
}

/// Returns a valid success.
fn success() -> String {
    head("Content-Length: 26") + SUCCESS
}

/// Sends these bytes, then closes the connection.
fn raw(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Raw(bytes.into())
}

/// Sends these bytes, then does `then`.
fn then(bytes: impl Into<Vec<u8>>, then: Then) -> Step {
    Step::RawThen(bytes.into(), then)
}

/// Starts a gateway with a backoff of at most 1 ms.
async fn gateway(endpoint: &str, variables: &[(&str, &str)]) -> Gateway {
    let mut all =
        vec![("SCM_GATEWAY__UPSTREAM__INITIAL_BACKOFF", "1ms"), ("SCM_GATEWAY__UPSTREAM__MAX_BACKOFF", "1ms")];
    all.extend(variables);
    Gateway::start(environment(endpoint, &all), Clock::system()).await
}

/// An emulator and a gateway in front of it.
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

    /// Makes a call whose attempts all get this step, and asserts their number.
    async fn call(&self, step: Step, attempts: usize, timeout: Option<Duration>) -> Result<(), Status> {
        let before = self.emulator.attempts();
        self.emulator.scripts(vec![step; attempts]);
        let mut request = Request::new(sample());
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let result = self.gateway.untimed_client().save_info(request).await.map(|_| ());
        assert_eq!(self.emulator.attempts() - before, attempts, "attempts of {result:?}");
        assert_eq!(self.emulator.steps_left(), 0);
        result
    }

    /// Asserts that the next call succeeds at its first attempt.
    async fn next_is_good(&self) {
        let before = self.emulator.attempts();
        let reply = self.gateway.save(sample()).await.expect("the next call succeeds");
        assert_eq!(reply.get_ref().request_info, "success");
        assert_eq!(self.emulator.attempts() - before, 1, "attempts of the next call");
        assert_eq!(self.emulator.rejections().len(), 0);
    }

    async fn fails_with(&self, step: Step, attempts: usize, code: Code, reason: &str) -> Seen {
        let status = self.call(step, attempts, None).await.unwrap_err();
        let seen = expect(&status, attempts, code, reason);
        self.next_is_good().await;
        seen
    }

    async fn lost(&self, step: Step) {
        self.fails_with(step, 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE").await;
    }

    async fn malformed(&self, step: Step) -> Seen {
        self.fails_with(step, 1, Code::Internal, "UPSTREAM_MALFORMED").await
    }
}

fn expect(status: &Status, attempts: usize, code: Code, reason: &str) -> Seen {
    let seen = seen(status);
    assert_eq!((seen.code, seen.reason.as_str()), (code, reason), "{status:?}");
    assert_eq!(seen.metadata["attempts"], attempts.to_string(), "{status:?}");
    assert!(!format!("{status:?}").contains("p1anted"), "text of the response in {status:?}");
    seen
}

/// Asserts that the call succeeds at its first attempt.
async fn succeeds(step: Step) {
    let pair = Pair::new().await;
    pair.call(step, 1, None).await.unwrap();
    pair.next_is_good().await;
}

/// Asserts that each attempt loses its connection, and the call fails after its retries.
async fn lost(step: Step) {
    Pair::new().await.lost(step).await;
}

/// Asserts that the response is malformed, which is not retried.
async fn malformed(step: Step) -> Seen {
    Pair::new().await.malformed(step).await
}

/// Asserts that the response exceeds the size limit.
async fn too_large(step: Step) {
    let pair = Pair::new().await;
    pair.fails_with(step, 1, Code::Internal, "UPSTREAM_TOO_LARGE").await;
    pair.emulator.wait_for_open_connections(1).await; // the next call's: the rest of the response is not read
}

/// Asserts that the deadline ends the call and closes the connection.
async fn times_out(step: Step) {
    let pair = Pair::new().await;
    let status = pair.call(step, 1, Some(Duration::from_millis(200))).await.unwrap_err();
    expect(&status, 1, Code::DeadlineExceeded, "DEADLINE");
    pair.emulator.wait_for_open_connections(0).await;
    pair.next_is_good().await;
}
