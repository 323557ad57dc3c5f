//! From exec to the first answered call: starts a program and calls it until it answers.

#![allow(clippy::disallowed_methods, reason = "time is what is measured")]

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use floor::{proto::certificate_service_client::CertificateServiceClient, sample};
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;

/// As long as nobody listens, the next try comes after this time.
const PAUSE: Duration = Duration::from_micros(500);

const LATEST: Duration = Duration::from_secs(10);

/// Prints the microseconds, and ends the program.
pub async fn run(address: &str, program: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = Endpoint::try_from(format!("http://{address}"))?;
    let [name, arguments @ ..] = program else { return Err("no program".into()) };
    let started = Instant::now();
    let mut child = Command::new(name).args(arguments).stdout(Stdio::null()).spawn()?;
    let answered = timeout(LATEST, async {
        loop {
            match endpoint.connect().await {
                Ok(channel) => return CertificateServiceClient::new(channel).save_info(sample()).await,
                Err(_) => sleep(PAUSE).await,
            }
        }
    });
    let answered = answered.await;
    let took = started.elapsed();
    child.kill()?;
    child.wait()?;
    answered??;
    println!("{}", took.as_micros());
    Ok(())
}
