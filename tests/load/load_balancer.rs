//! A load balancer in front of several instances, and which failed calls its clients may retry.

use std::{
    error::Error as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::{interval, sleep},
};
use tonic::Status;

use crate::harness::process::Process;

/// The interval of the load balancer's readiness probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// An instance behind the load balancer.
struct Instance {
    address: String,
    readyz: String,
    ready: AtomicBool,
}

/// A load balancer that assigns each connection to the next ready instance, as a mesh does.
#[derive(Clone)]
pub struct LoadBalancer(Arc<Mutex<Vec<Arc<Instance>>>>, Arc<AtomicUsize>);

impl LoadBalancer {
    /// Starts a load balancer and returns it with its address.
    pub async fn start() -> (Self, String) {
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
    pub async fn add(&self, process: &Process) {
        let address = process.address.clone();
        let readyz = format!("http://{}/readyz", process.admin);
        let instance = Arc::new(Instance { address, readyz, ready: AtomicBool::new(false) });
        self.0.lock().unwrap().push(instance.clone());
        while !instance.ready.load(Relaxed) {
            sleep(PROBE_INTERVAL).await;
        }
    }

    /// Removes an instance that has ended.
    pub fn remove(&self, address: &str) {
        self.0.lock().unwrap().retain(|instance| instance.address != address);
    }

    async fn probe(self) {
        let http = reqwest::Client::new();
        let mut tick = interval(PROBE_INTERVAL);
        loop {
            tick.tick().await;
            for instance in self.instances() {
                let answer = http.get(&instance.readyz).send().await;
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

/// Returns whether the call's stream is above the last stream id of a GOAWAY (RFC 9113, 6.8).
pub fn is_unprocessed(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.downcast_ref::<h2::Error>().is_some_and(|error| error.is_go_away() && error.is_remote()) {
            return true;
        }
        cause = error.source();
    }
    false
}
