//! A soak test of two instances behind a load balancer: `make soak` runs it for 30 minutes, or for `SOAK_MINUTES`.
//!
//! One call in a hundred meets a fault of `tests/load/soak/faults.rs`. Keys and certificates are replaced every minute,
//! and the instances every five minutes. Each call ends as its fault implies, and no instance uses more memory,
//! descriptors and tasks at the end of its life than at the beginning.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a bench"
)]

use std::{process::ExitCode, sync::Arc, time::Duration};

use instance::Instance;
use load::Load;
use load_balancer::LoadBalancer;
use report::Report;
use rotation::Rotation;
use scm_emulator::{Emulator, Options};
use scm_harness as harness;
use tokio::time::{Instant, sleep_until};

mod client;
#[path = "../../tests/load/soak/faults.rs"]
#[allow(dead_code, reason = "shared with tests/load")]
mod faults;
mod implied;
mod instance;
mod load;
#[path = "../../tests/load/load_balancer.rs"]
mod load_balancer;
mod report;
mod rotation;

const MINUTE: Duration = Duration::from_secs(60);
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
const SERVICE_TIME: Duration = Duration::from_millis(200);

/// The minutes between two rolling restarts. A short soak restarts more often.
const RESTART_MINUTES: u32 = 5;

#[tokio::main]
async fn main() -> ExitCode {
    let minutes: u32 =
        std::env::var("SOAK_MINUTES").map_or(30, |minutes| minutes.parse().expect("a number of minutes"));
    let restart_minutes = RESTART_MINUTES.min(minutes.div_ceil(2));
    let mut rotation = Rotation::new();
    let options = Options {
        accounts: vec![rotation.account()],
        tls: Some(rotation.tls()),
        service_time: SERVICE_TIME,
        ..Options::default()
    };
    let emulator = Arc::new(Emulator::start(options).await.unwrap());
    let (balancer, address) = LoadBalancer::start().await;
    let mut report = Report::start();
    let mut instances = Vec::new();
    for _ in 0..2 {
        instances.push(started(&emulator, &rotation, &balancer, &report).await);
    }
    let mut load = Load::start(emulator.clone(), rotation.clients(&address)).await;

    let start = Instant::now();
    for minute in 1..=minutes {
        rotation.rotate(&emulator, &load, &instances, &address).await;
        if minute > 1 && (minute - 1) % restart_minutes == 0 {
            for instance in &mut instances {
                let new = started(&emulator, &rotation, &balancer, &report);
                report.ended(restart(instance, new, &balancer).await);
            }
        }
        while Instant::now() < start + minute * MINUTE {
            for instance in &mut instances {
                instance.sample().await;
            }
            sleep_until((Instant::now() + SAMPLE_INTERVAL).min(start + minute * MINUTE)).await;
        }
        if minute == minutes {
            load.stop().await;
        }
        report.minute(minute, load.take_tally(), &instances);
        drop(emulator.take_journal());
    }
    instances.into_iter().for_each(|instance| report.ended(instance));
    report.rejections(emulator.rejections().len(), &load);
    report.finish()
}

async fn started(emulator: &Emulator, rotation: &Rotation, balancer: &LoadBalancer, report: &Report) -> Instance {
    let instance = Instance::start(emulator, &rotation.variables(), report.warnings()).await;
    balancer.add(&instance.process).await;
    instance
}

/// Ends an instance as Kubernetes does, and replaces it by a new one. Returns the old one.
async fn restart(instance: &mut Instance, new: impl Future<Output = Instance>, balancer: &LoadBalancer) -> Instance {
    let code = instance.end().await;
    assert_eq!(code, Some(0), "exit code after SIGTERM");
    balancer.remove(&instance.process.address);
    std::mem::replace(instance, new.await)
}
