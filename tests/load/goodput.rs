//! Ten times as many calls as there is capacity for: those that find a place are served as if the others were not there.

use std::time::{Duration, Instant};

use scm_emulator::{Emulator, Options};
use scm_gateway::grpc::service::certificate_service_client::CertificateServiceClient;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tonic::{Code, Status, transport::Channel};

use crate::harness::{assert_status, client, process::Process, sample};

/// Places through time: 27 calls a second, whose own work is little beside the time that they wait.
const PLACES: usize = 8;
const SERVICE_TIME: Duration = Duration::from_millis(300);
const CAPACITY: f64 = PLACES as f64 / SERVICE_TIME.as_secs_f64();

const LOAD: f64 = 10.0;
const MEASURED: Duration = Duration::from_secs(6);
/// Others use the machine too: what a gateway that gives way under load never reaches, a good one reaches in one of these.
const ROUNDS: usize = 3;
const CONNECTIONS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn at_ten_times_capacity_goodput_stays_at_nine_tenths() {
    let emulator = Emulator::start(Options { service_time: SERVICE_TIME, ..Options::default() }).await.unwrap();
    let places = PLACES.to_string();
    let mut process = Process::start(&emulator.endpoint(), &[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", &places)]).await;
    process.read_log();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(client(&process.address).await);
    }

    let mut ratios = Vec::new();
    while ratios.iter().all(|ratio| *ratio < 0.9) {
        assert!(ratios.len() < ROUNDS, "goodput to capacity: {ratios:?}");
        let capacity = busy(&clients).await;
        let before = emulator.attempts();
        let (good, shed, took) = flooded(&clients).await;
        ratios.push(good as f64 / took.as_secs_f64() / capacity);

        assert_eq!(emulator.attempts() - before, good, "what is shed is not sent");
        let offered = (good + shed.len()) as f64 / took.as_secs_f64();
        assert!(offered >= 0.8 * LOAD * CAPACITY, "only {offered:.0} calls a second were offered");
        for status in shed {
            assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
        }
    }
}

/// Successes a second when every place is always taken and nobody is turned away.
async fn busy(clients: &[CertificateServiceClient<Channel>]) -> f64 {
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..PLACES {
        let mut client = clients[caller % CONNECTIONS].clone();
        callers.spawn(async move {
            let mut good = 0;
            while started.elapsed() < MEASURED {
                client.save_info(sample()).await.unwrap();
                good += 1;
            }
            good
        });
    }
    let good: usize = callers.join_all().await.into_iter().sum();
    good as f64 / started.elapsed().as_secs_f64()
}

/// Calls that come whether or not the last ones are answered: how many succeeded, what the others got, and the time.
async fn flooded(clients: &[CertificateServiceClient<Channel>]) -> (usize, Vec<Status>, Duration) {
    let started = Instant::now();
    let mut tick = interval(Duration::from_secs_f64(1.0 / (LOAD * CAPACITY)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    let mut next = clients.iter().cycle();
    while started.elapsed() < MEASURED {
        tick.tick().await;
        let mut client = next.next().unwrap().clone();
        calls.spawn(async move { client.save_info(sample()).await.map(|_| ()) });
    }
    let (good, shed): (Vec<_>, Vec<_>) = calls.join_all().await.into_iter().partition(Result::is_ok);
    (good.len(), shed.into_iter().filter_map(Result::err).collect(), started.elapsed())
}
