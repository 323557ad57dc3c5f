//! The load generator: connections, streams on each connection, and sequential calls on each stream. Every response is
//! checked.

#![allow(clippy::disallowed_methods, reason = "the load generator measures time")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use floor::{
    proto::{ListCertificatesRequest, certificate_service_client::CertificateServiceClient},
    sample,
};
use tokio::task::JoinSet;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

pub type Client = CertificateServiceClient<Channel>;

/// What is called.
#[derive(Clone, Copy)]
pub enum Rpc {
    /// SaveInfo with the vendor's example.
    Save,
    /// ListCertificates with a full page.
    List,
}

impl Rpc {
    /// Makes a call. Returns whether the response is the expected one.
    pub async fn call(self, client: &mut Client) -> Result<bool, Status> {
        match self {
            Self::Save => Ok(client.save_info(sample()).await?.get_ref().request_info == "success"),
            Self::List => {
                let request = ListCertificatesRequest { limit: Some(50), ..ListCertificatesRequest::default() };
                Ok(client.list_certificates(request).await?.get_ref().certificates.len() == 50)
            }
        }
    }
}

/// Makes the calls, and prints their latencies. Fails if any call fails.
pub async fn run(
    address: &str,
    connections: usize,
    streams: usize,
    calls: usize,
    rpc: Rpc,
) -> Result<(), Box<dyn std::error::Error>> {
    let remaining = Arc::new(AtomicUsize::new(calls));
    let mut callers = JoinSet::new();
    let clients = connect(address, connections).await?;
    let started = Instant::now();
    for client in clients {
        for _ in 0..streams {
            let mut client = client.clone();
            let remaining = remaining.clone();
            callers.spawn(async move {
                let mut latencies = Vec::new();
                while remaining.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1)).is_ok() {
                    let started = Instant::now();
                    if !rpc.call(&mut client).await? {
                        return Err(Status::unknown("unexpected reply"));
                    }
                    latencies.push(started.elapsed());
                }
                Ok(latencies)
            });
        }
    }
    let latencies: Result<Vec<_>, _> = callers.join_all().await.into_iter().collect();
    let latencies = latencies?.concat();
    let seconds = started.elapsed().as_secs_f64();
    println!("calls {} seconds {seconds:.3} {}", latencies.len(), quantiles(latencies));
    Ok(())
}

/// Returns a client for each of `connections` new connections.
pub async fn connect(address: &str, connections: usize) -> Result<Vec<Client>, tonic::transport::Error> {
    let endpoint = Endpoint::try_from(format!("http://{address}"))?;
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::new(endpoint.connect().await?));
    }
    Ok(clients)
}

/// Formats the median and the p99.
fn quantiles(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let last = latencies.len().saturating_sub(1) as f64;
    let quantile = |q: f64| latencies.get((last * q) as usize).map_or(0, Duration::as_micros);
    format!("p50_us {} p99_us {}", quantile(0.5), quantile(0.99))
}
