//! A rolling restart: two instances behind a load balancer are replaced one after the other, and no call fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use scm_emulator::{Emulator, Options};
use scm_gateway::grpc::service::certificate_service_client::CertificateServiceClient;
use tokio::{task::JoinSet, time::interval};
use tonic::Status;

use crate::{
    harness::{UntimedTransport, process::Process, sample, untimed_client},
    load_balancer::{LoadBalancer, is_unprocessed},
};

const LAME_DUCK: (&str, &str) = ("SCM_GATEWAY__SERVER__LAME_DUCK", "1s");

/// 100 calls a second in total.
const CALL_INTERVAL: Duration = Duration::from_millis(10);
/// Each client has its own connection.
const CLIENTS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_call() {
    let service_time = Duration::from_millis(50);
    let emulator = Emulator::start(Options { service_time, ..Options::default() }).await.unwrap();
    let (balancer, address) = LoadBalancer::start().await;
    let mut instances = Vec::new();
    for _ in 0..2 {
        instances.push(Process::start(&emulator.endpoint(), &[LAME_DUCK]).await);
        balancer.add(&instances[instances.len() - 1]).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let calls = tokio::spawn(call(address, done.clone()));

    let mut replacements = Vec::new();
    for old in instances {
        let answered = emulator.attempts();
        emulator.wait_for_attempts(answered + 100).await; // both instances serve calls
        let address = old.address.clone();
        old.signal("TERM");
        assert_eq!(old.end().await.0, Some(0));
        balancer.remove(&address);
        let mut new = Process::start(&emulator.endpoint(), &[LAME_DUCK]).await;
        new.read_log();
        balancer.add(&new).await;
        replacements.push(new);
    }
    let answered = emulator.attempts();
    emulator.wait_for_attempts(answered + 100).await;
    done.store(true, Relaxed);

    let results = calls.await.unwrap();
    let calls = results.len();
    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} of {calls} failed: {failed:?}", failed.len());
    assert_eq!(emulator.attempts(), calls, "no call was sent twice");
}

/// Makes calls at a fixed rate until `done`, and returns their results.
async fn call(address: String, done: Arc<AtomicBool>) -> Vec<Result<(), Status>> {
    let clients: Vec<_> = (0..CLIENTS).map(|_| untimed_client(&address)).collect();
    let mut calls = JoinSet::new();
    let mut tick = interval(CALL_INTERVAL);
    let mut next = clients.iter().cycle();
    while !done.load(Relaxed) {
        tick.tick().await;
        calls.spawn(save(next.next().unwrap().clone()));
    }
    calls.join_all().await
}

/// Makes a call, and retries it if the server did not process it, as gRPC libraries do transparently. The client itself
/// retries a call that it has not sent.
async fn save(mut client: CertificateServiceClient<UntimedTransport>) -> Result<(), Status> {
    loop {
        match client.save_info(sample()).await {
            Err(status) if is_unprocessed(&status) => {}
            other => return other.map(|_| ()),
        }
    }
}
