//! Two instances behind a balancer are restarted one after the other, and no call fails.

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

use crate::harness::{Patient, patient_client, process::Process, sample};

const LAME_DUCK: (&str, &str) = ("SCM_GATEWAY__SERVER__LAME_DUCK", "1s");

/// How often the balancer looks whether an instance is ready.
const PROBED: Duration = Duration::from_millis(100);

/// 100 calls a second, by these many clients with a connection each.
const BETWEEN_CALLS: Duration = Duration::from_millis(10);
const CLIENTS: usize = 6;

/// An instance, as the balancer knows it.
struct Instance {
    address: String,
    readyz: String,
    ready: AtomicBool,
}

/// Gives each connection to the next instance that is ready, as a mesh would.
#[derive(Clone)]
struct WorkerPicker(Arc<Mutex<Vec<Arc<Instance>>>>, Arc<AtomicUsize>);

impl WorkerPicker {
    /// Starts to listen; the address beside it.
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

    /// Adds an instance, and waits until it was found ready.
    async fn add(&self, process: &Process) {
        let (address, readyz) = (process.address.clone(), format!("http://{}/readyz", process.admin));
        let instance = Arc::new(Instance { address, readyz, ready: AtomicBool::new(false) });
        self.0.lock().unwrap().push(instance.clone());
        while !instance.ready.load(Relaxed) {
            sleep(PROBED).await;
        }
    }

    async fn probe(self) {
        let mut tick = interval(PROBED);
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
            sleep(PROBED).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_call() {
    let service_time = Duration::from_millis(50);
    let emulator = Emulator::start(Options { service_time, ..Options::default() }).await.unwrap();
    let (balancer, address) = WorkerPicker::start().await;
    let mut instances = Vec::new();
    for _ in 0..2 {
        instances.push(Process::start(&emulator.endpoint(), &[LAME_DUCK]).await);
        balancer.add(&instances[instances.len() - 1]).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let calls = tokio::spawn(call(address, done.clone()));

    let mut fresh = Vec::new();
    for old in instances {
        let answered = emulator.attempts();
        emulator.wait_for_attempts(answered + 100).await; // both are at work
        old.signal("TERM");
        assert_eq!(old.end().await.0, Some(0));
        let mut new = Process::start(&emulator.endpoint(), &[LAME_DUCK]).await;
        new.read_log();
        balancer.add(&new).await;
        fresh.push(new);
    }
    let answered = emulator.attempts();
    emulator.wait_for_attempts(answered + 100).await;
    done.store(true, Relaxed);

    let results = calls.await.unwrap();
    let (calls, failed): (_, Vec<_>) = (results.len(), results.into_iter().filter_map(Result::err).collect());
    assert!(failed.is_empty(), "{} of {calls} failed: {failed:?}", failed.len());
    assert_eq!(emulator.attempts(), calls, "none was made twice");
}

/// Calls at their pace until it is done.
async fn call(address: String, done: Arc<AtomicBool>) -> Vec<Result<(), Status>> {
    let clients: Vec<_> = (0..CLIENTS).map(|_| patient_client(&address)).collect();
    let (mut calls, mut tick) = (JoinSet::new(), interval(BETWEEN_CALLS));
    let mut next = clients.iter().cycle();
    while !done.load(Relaxed) {
        tick.tick().await;
        calls.spawn(save(next.next().unwrap().clone()));
    }
    calls.join_all().await
}

/// A call, made again if it never left the client, which this client sees to itself, or if the server says that it has
/// not touched it: gRPC's libraries repeat both, at once and out of sight.
async fn save(mut client: CertificateServiceClient<Patient>) -> Result<(), Status> {
    loop {
        match client.save_info(sample()).await {
            Err(status) if is_untouched(&status) => {}
            other => return other.map(|_| ()),
        }
    }
}

/// Whether the call came behind the last one of which GOAWAY says that it counts (RFC 9113, 6.8).
fn is_untouched(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.downcast_ref::<h2::Error>().is_some_and(|error| error.is_go_away() && error.is_remote()) {
            return true;
        }
        cause = error.source();
    }
    false
}
