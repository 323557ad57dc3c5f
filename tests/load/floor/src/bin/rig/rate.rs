//! The load generator with a constant rate: calls start on schedule, whether or not those before them have ended.

#![allow(clippy::disallowed_methods, reason = "the load generator measures time")]

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, interval},
};

use crate::load::{self, Rpc};

/// How often calls start. tokio's timer has no shorter interval.
const TICK: Duration = Duration::from_millis(1);

/// Half of what the gateway accepts by default. Calls beyond it start late, and the achieved rate falls.
const MAX_IN_FLIGHT: usize = 256;

/// Makes calls, and prints the achieved rate and the failures.
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
                let is_saved = Rpc::Save.call(&mut client).await.is_ok_and(|is_expected| is_expected);
                drop(permit);
                is_saved
            });
            number += 1;
        }
        results.extend(std::iter::from_fn(|| calls.try_join_next()).flatten());
    }
    results.extend(calls.join_all().await);
    let seconds = started.elapsed().as_secs_f64();
    let failures = results.iter().filter(|is_saved| !**is_saved).count();
    println!("rate {:.0} failures {failures}", number as f64 / seconds);
    Ok(())
}
