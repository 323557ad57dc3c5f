//! Measures the time from exec to the first answered call: starts a program and calls it until it answers.

#![allow(clippy::disallowed_methods, reason = "this measures time")]

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use floor::{proto::certificate_service_client::CertificateServiceClient, sample};
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;

/// The interval between connection attempts.
const RETRY_INTERVAL: Duration = Duration::from_micros(500);

const TIMEOUT: Duration = Duration::from_secs(10);

/// Prints the microseconds, and stops the program.
pub async fn run(address: &str, program: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = Endpoint::try_from(format!("http://{address}"))?;
    let [name, arguments @ ..] = program else { return Err("no program".into()) };
    let started = Instant::now();
    let mut child = Command::new(name).args(arguments).stdout(Stdio::null()).spawn()?;
    let answered = timeout(TIMEOUT, async {
        loop {
            match endpoint.connect().await {
                Ok(channel) => return CertificateServiceClient::new(channel).save_info(sample()).await,
                Err(_) => sleep(RETRY_INTERVAL).await,
            }
        }
    });
    let answered = answered.await;
    let elapsed = started.elapsed();
    child.kill()?;
    child.wait()?;
    answered??;
    println!("{}", elapsed.as_micros());
    Ok(())
}
