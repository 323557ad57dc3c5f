//! The load generator: connections, streams on each connection, and sequential calls on each stream. Every response is
//! checked.

#![allow(clippy::disallowed_methods, reason = "the load generator measures time")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use floor::{proto::certificate_service_client::CertificateServiceClient, sample};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

/// Makes the calls, and prints their latencies. Fails if any call fails.
pub async fn run(
    address: &str,
    connections: usize,
    streams: usize,
    calls: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let remaining = Arc::new(AtomicUsize::new(calls));
    let mut callers = JoinSet::new();
    let mut channels = Vec::new();
    for _ in 0..connections {
        channels.push(Endpoint::try_from(format!("http://{address}"))?.connect().await?);
    }
    let started = Instant::now();
    for channel in channels {
        for _ in 0..streams {
            let mut client = CertificateServiceClient::new(channel.clone());
            let remaining = remaining.clone();
            callers.spawn(async move {
                let mut latencies = Vec::new();
                while remaining.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1)).is_ok() {
                    let started = Instant::now();
                    let reply = client.save_info(sample()).await?;
                    if reply.get_ref().request_info != "success" {
                        return Err(tonic::Status::unknown("unexpected reply"));
                    }
                    latencies.push(started.elapsed());
                }
                Ok(latencies)
            });
        }
    }
    let latencies: Result<Vec<_>, _> = callers.join_all().await.into_iter().collect();
    let mut latencies = latencies?.concat();
    let seconds = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize].as_micros();
    println!("calls {} seconds {seconds:.3} p50_us {} p99_us {}", latencies.len(), quantile(0.5), quantile(0.99));
    Ok(())
}
