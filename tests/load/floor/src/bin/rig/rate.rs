//! The load generator with a constant rate: calls start on schedule, whether or not those before them have ended.

#![allow(clippy::disallowed_methods, reason = "the load generator measures time")]

use std::{sync::Arc, time::Duration};

use floor::sample;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, interval},
};

use crate::load;

/// How often calls start. tokio's timer has no shorter interval.
const TICK: Duration = Duration::from_millis(1);

/// Half of what the gateway accepts by default. Calls beyond it start late, and the achieved rate falls.
const MAX_IN_FLIGHT: usize = 256;

/// Makes calls, and prints the achieved rate, the failures, and the others' latencies since their scheduled start.
pub async fn run(address: &str, connections: usize, rate: u64, seconds: u64) -> Result<(), Box<dyn std::error::Error>> {
    let clients = load::connect(address, connections).await?;
    let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut calls = JoinSet::new();
    let mut results = Vec::new();
    let mut ticks = interval(TICK);
    let started = Instant::now();
    let mut number = 0;
    while number < rate * seconds {
        let scheduled = ticks.tick().await;
        let due = rate * (scheduled - started + TICK).as_micros() as u64 / 1_000_000;
        while number < due.min(rate * seconds) {
            let permit = in_flight.clone().acquire_owned().await?;
            let mut client = clients[number as usize % connections].clone();
            calls.spawn(async move {
                let response = client.save_info(sample()).await;
                drop(permit);
                response.map(|_| scheduled.elapsed())
            });
            number += 1;
        }
        results.extend(std::iter::from_fn(|| calls.try_join_next()).flatten());
    }
    results.extend(calls.join_all().await);
    let seconds = started.elapsed().as_secs_f64();
    let (latencies, failures): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let latencies = latencies.into_iter().flatten().collect();
    println!("rate {:.0} failures {} {}", number as f64 / seconds, failures.len(), load::quantiles(latencies));
    Ok(())
}
