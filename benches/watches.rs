//! Measures what idle watches cost: memory for each, and CPU time. `cargo bench --bench watches` prints both.
//!
//! The gateway is the real binary in its own process. The emulator replaces SCM.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "a bench")]

use std::time::Duration;

use scm_emulator::{Emulator, Options, Reply, Step};
use scm_gateway::proto::WatchCertificateRequest;
use scm_harness::{CERT, client, process::Process};
use tokio::time::sleep;

/// As many as `server.max_concurrent_streams` allows on each connection, up to `watch.max`.
const CONNECTIONS: usize = 10;
const WATCHES: usize = 100;

/// Two or three polls of each certificate.
const MEASURED: Duration = Duration::from_secs(75);

#[tokio::main]
async fn main() {
    measure("all of one certificate", |_| CERT.to_owned()).await;
    measure("each of its own certificate", |number| format!("scs{number:013}")).await;
}

/// Measures watches of certificates with these ids.
async fn measure(which: &str, cert_id: impl Fn(usize) -> String) {
    let step = |number| {
        let id = cert_id(number);
        let body = format!(r#"{{"id":"{id}","status":"CHECKING_DOMAIN","domain":"www.example.org"}}"#);
        (id, Step::Reply(Reply::json(200, &body)))
    };
    let steps = (0..CONNECTIONS * WATCHES).map(step).collect();
    let emulator = Emulator::start(Options { steps, ..Options::default() }).await.unwrap();
    let mut process = Process::start(&emulator.endpoint(), &[]).await;
    process.read_log();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(client(&process.address).await);
    }
    let mut open = Vec::new();
    let mut before = 0;
    for number in 0..CONNECTIONS * WATCHES {
        if number == CONNECTIONS {
            before = process.memory("VmRSS:"); // each connection has one
        }
        let request = WatchCertificateRequest { cert_id: cert_id(number), ..WatchCertificateRequest::default() };
        let watch = clients[number % CONNECTIONS].watch_certificate(request).await;
        let mut watch = watch.unwrap().into_inner();
        watch.message().await.unwrap().unwrap();
        open.push(watch);
    }
    let grown = process.memory("VmRSS:") - before;
    println!("{} watches, {which}: {:.1} KiB each", open.len(), grown as f64 / (open.len() - CONNECTIONS) as f64);

    let (started, polls) = (process.cpu_time(), emulator.attempts());
    sleep(MEASURED).await;
    let used = process.cpu_time() - started;
    let share = 100.0 * used.as_secs_f64() / MEASURED.as_secs_f64();
    println!("idle for {MEASURED:?}: {share:.2} % of a core, {} polls", emulator.attempts() - polls);
}
