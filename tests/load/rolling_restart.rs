//! A rolling restart: two instances behind a load balancer are replaced one after the other, and no call fails.

use std::{
    error::Error as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use scm_emulator::{Emulator, Options};
use scm_gateway::grpc::service::certificate_service_client::CertificateServiceClient;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{interval, sleep},
};
use tonic::Status;

use crate::harness::{UntimedTransport, process::Process, sample, untimed_client};

const LAME_DUCK: (&str, &str) = ("SCM_GATEWAY__SERVER__LAME_DUCK", "1s");

/// The interval of the load balancer's readiness probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// 100 calls a second in total.
const CALL_INTERVAL: Duration = Duration::from_millis(10);
/// Each client has its own connection.
const CLIENTS: usize = 6;

/// An instance behind the load balancer.
struct Instance {
    address: String,
    readyz: String,
    ready: AtomicBool,
}

/// A load balancer that assigns each connection to the next ready instance, as a mesh does.
#[derive(Clone)]
struct LoadBalancer(Arc<Mutex<Vec<Arc<Instance>>>>, Arc<AtomicUsize>);

impl LoadBalancer {
    /// Starts a load balancer and returns it with its address.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let balancer = Self(Arc::default(), Arc::default());
        tokio::spawn(balancer.clone().probe());
        tokio::spawn(balancer.clone().listen(listener));
        (balancer, address)
    }

    fn instances(&self) -> Vec<Arc<Instance>> {
        self.0.lock().unwrap().clone()
    }

    /// Adds an instance, and waits until a probe succeeds.
    async fn add(&self, process: &Process) {
        let address = process.address.clone();
        let readyz = format!("http://{}/readyz", process.admin);
        let instance = Arc::new(Instance { address, readyz, ready: AtomicBool::new(false) });
        self.0.lock().unwrap().push(instance.clone());
        while !instance.ready.load(Relaxed) {
            sleep(PROBE_INTERVAL).await;
        }
    }

    async fn probe(self) {
        let mut tick = interval(PROBE_INTERVAL);
        loop {
            tick.tick().await;
            for instance in self.instances() {
                let answer = reqwest::get(&instance.readyz).await;
                instance.ready.store(answer.is_ok_and(|answer| answer.status().is_success()), Relaxed);
            }
        }
    }

    async fn listen(self, listener: TcpListener) {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let balancer = self.clone();
            tokio::spawn(async move {
                let mut server = balancer.connect().await;
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    }

    async fn connect(&self) -> TcpStream {
        loop {
            let ready: Vec<_> = self.instances().into_iter().filter(|instance| instance.ready.load(Relaxed)).collect();
            for _ in &ready {
                let next = self.1.fetch_add(1, Relaxed) % ready.len();
                if let Ok(stream) = TcpStream::connect(&ready[next].address).await {
                    return stream;
                }
            }
            sleep(PROBE_INTERVAL).await;
        }
    }
}

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
        old.signal("TERM");
        assert_eq!(old.end().await.0, Some(0));
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

/// Returns whether the call's stream is above the last stream id of a GOAWAY (RFC 9113, 6.8).
fn is_unprocessed(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.downcast_ref::<h2::Error>().is_some_and(|error| error.is_go_away() && error.is_remote()) {
            return true;
        }
        cause = error.source();
    }
    false
}
