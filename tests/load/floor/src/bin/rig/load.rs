//! The load: connections, streams on each, and calls one after the other on each stream. Every answer is checked.

#![allow(clippy::disallowed_methods, reason = "a load measures time")]

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

/// Makes the calls, and prints how long they took. An error if any of them failed.
pub async fn run(
    address: &str,
    connections: usize,
    streams: usize,
    calls: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let left = Arc::new(AtomicUsize::new(calls));
    let mut callers = JoinSet::new();
    let mut channels = Vec::new();
    for _ in 0..connections {
        channels.push(Endpoint::try_from(format!("http://{address}"))?.connect().await?);
    }
    let started = Instant::now();
    for channel in channels {
        for _ in 0..streams {
            let (mut client, left) = (CertificateServiceClient::new(channel.clone()), left.clone());
            callers.spawn(async move {
                let mut took = Vec::new();
                while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let started = Instant::now();
                    let reply = client.save_info(sample()).await?;
                    if reply.get_ref().request_info != "success" {
                        return Err(tonic::Status::unknown("another reply"));
                    }
                    took.push(started.elapsed());
                }
                Ok(took)
            });
        }
    }
    let took: Result<Vec<_>, _> = callers.join_all().await.into_iter().collect();
    let (mut took, seconds) = (took?.concat(), started.elapsed().as_secs_f64());
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_micros();
    println!("calls {} seconds {seconds:.3} p50_us {} p99_us {}", took.len(), at(0.5), at(0.99));
    Ok(())
}
