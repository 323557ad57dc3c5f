//! Overload: at ten times the capacity, calls with a permit are served as usual, and the others are rejected.

use std::time::{Duration, Instant};

use scm_emulator::{Emulator, Options};
use scm_gateway::grpc::service::certificate_service_client::CertificateServiceClient;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tonic::{Code, Status, transport::Channel};

use crate::harness::{assert_status, client, process::Process, sample};

/// Permits divided by service time: 27 calls a second. The CPU time of these calls is negligible.
const PERMITS: usize = 8;
const SERVICE_TIME: Duration = Duration::from_millis(300);
const CAPACITY: f64 = PERMITS as f64 / SERVICE_TIME.as_secs_f64();

const LOAD: f64 = 10.0;
const MEASURED: Duration = Duration::from_secs(6);
/// The number of rounds, one of which must reach the expected goodput. Other programs use the machine too, but a gateway
/// that degrades under load fails every round.
const MAX_ROUNDS: usize = 3;
const CONNECTIONS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn goodput_at_10x_load_is_90_percent_of_capacity() {
    let emulator = Emulator::start(Options { service_time: SERVICE_TIME, ..Options::default() }).await.unwrap();
    let permits = PERMITS.to_string();
    let mut process = Process::start(&emulator.endpoint(), &[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", &permits)]).await;
    process.read_log();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(client(&process.address).await);
    }

    let mut ratios = Vec::new();
    while ratios.iter().all(|ratio| *ratio < 0.9) {
        assert!(ratios.len() < MAX_ROUNDS, "goodput / capacity: {ratios:?}");
        let capacity = saturate(&clients).await;
        let before = emulator.attempts();
        let (successes, rejected, elapsed) = overload(&clients).await;
        assert_eq!(emulator.attempts() - before, successes, "rejected calls are not sent");
        let offered = (successes + rejected.len()) as f64 / elapsed.as_secs_f64();
        let is_overload = offered >= 0.8 * LOAD * CAPACITY; // otherwise this machine had no time for the callers
        ratios.push(if is_overload { successes as f64 / elapsed.as_secs_f64() / capacity } else { 0.0 });
        for status in rejected {
            assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
        }
    }
}

/// Returns the successes a second when every permit is in use and no call is rejected.
async fn saturate(clients: &[CertificateServiceClient<Channel>]) -> f64 {
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..PERMITS {
        let mut client = clients[caller % CONNECTIONS].clone();
        callers.spawn(async move {
            let mut successes = 0;
            while started.elapsed() < MEASURED {
                client.save_info(sample()).await.unwrap();
                successes += 1;
            }
            successes
        });
    }
    let successes: usize = callers.join_all().await.into_iter().sum();
    successes as f64 / started.elapsed().as_secs_f64()
}

/// Makes calls at a fixed rate, without waiting for responses. Returns the number of successes, the statuses of the
/// other calls, and the elapsed time.
async fn overload(clients: &[CertificateServiceClient<Channel>]) -> (usize, Vec<Status>, Duration) {
    let started = Instant::now();
    let mut tick = interval(Duration::from_secs_f64(1.0 / (LOAD * CAPACITY)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    let mut next = clients.iter().cycle();
    while started.elapsed() < MEASURED {
        tick.tick().await;
        let mut client = next.next().unwrap().clone();
        calls.spawn(async move { client.save_info(sample()).await.map(|_| ()) });
    }
    let (successes, failures): (Vec<_>, Vec<_>) = calls.join_all().await.into_iter().partition(Result::is_ok);
    (successes.len(), failures.into_iter().filter_map(Result::err).collect(), started.elapsed())
}
