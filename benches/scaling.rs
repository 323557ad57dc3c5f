//! How several gateways share one account's quota at SCM: `cargo run --release --example scaling` prints the table of
//! `docs/scaling.md`.
//!
//! The gateways are real, and so are their sockets; the emulator stands in for SCM, with a quota in windows of time, as
//! the vendor's API gateway has one. Callers come at a monotonic rate, whatever became of the calls before, and call again
//! when RetryInfo says so.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "an example")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use scm_emulator::{Emulator, Options, Quota, SAMPLE_ACCESS_KEY, SAMPLE_PROJECT, SAMPLE_SECRET_KEY};
use scm_gateway::{
    app::run,
    clock::Clock,
    config,
    grpc::service::certificate_service_client::CertificateServiceClient,
    proto::{CertificateInfo, SaveInfoRequest},
    runtime::Workers,
};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{interval, sleep},
};
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

/// What SCM serves.
const QUOTA: Quota = Quota { calls: 200, per: Duration::from_secs(10) };
const WINDOWS: u32 = 4;

/// The calls that come, in parts of the quota.
const LOADS: [f64; 3] = [0.8, 1.5, 4.0];
const INSTANCES: [usize; 4] = [1, 2, 4, 8];

/// A call is given up when it has been refused so often.
const TRIES: usize = 20;

#[tokio::main]
async fn main() {
    println!(
        "| load / quota | gateways | served / quota | refused by SCM / served | held back here / served | least / most served |"
    );
    println!("|---|---|---|---|---|---|");
    for load in LOADS {
        for instances in INSTANCES {
            println!("| {load} | {instances} | {} |", measure(load, instances).await);
        }
    }
}

async fn measure(load: f64, instances: usize) -> String {
    let emulator = Emulator::start(Options { quota: Some(QUOTA), ..Options::default() }).await.unwrap();
    let mut gateways = Vec::new();
    for _ in 0..instances {
        gateways.push(Gateway::start(&emulator).await);
    }
    let started = Instant::now();
    let (mut calls, mut next) = (JoinSet::new(), (0..instances).cycle());
    let mut tick = interval(QUOTA.per.div_f64(f64::from(QUOTA.calls) * load));
    while started.elapsed() < QUOTA.per * WINDOWS {
        tick.tick().await;
        let instance = next.next().unwrap();
        calls.spawn(call(gateways[instance].client.clone(), instance));
    }
    calls.abort_all(); // who waits now is not served any more
    let (mut served, mut retry_later) = (vec![0; instances], 0);
    while let Some(outcome) = calls.join_next().await {
        if let Ok((instance, good, refusals)) = outcome {
            served[instance] += usize::from(good);
            retry_later += refusals;
        }
    }
    let all: usize = served.iter().sum();
    let refused = emulator.attempts() - all;
    let part = |of: usize, whole: f64| format!("{:.2}", of as f64 / whole);
    let (least, most) = (*served.iter().min().unwrap(), *served.iter().max().unwrap());
    [
        part(all, f64::from(QUOTA.calls * WINDOWS)),
        part(refused, all as f64),
        part(retry_later - refused.min(retry_later), all as f64),
        part(least, most as f64),
    ]
    .join(" | ")
}

/// Calls until the call is served: whether it was in the end, and how often it was refused.
async fn call(mut client: CertificateServiceClient<Channel>, instance: usize) -> (usize, bool, usize) {
    for refusals in 0..TRIES {
        let Err(status) = client.save_info(sample()).await else { return (instance, true, refusals) };
        let wait = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
        sleep(wait.unwrap_or(Duration::from_secs(1))).await;
    }
    (instance, false, TRIES)
}

/// A gateway in this process.
struct Gateway {
    client: CertificateServiceClient<Channel>,
    _stop: oneshot::Sender<()>,
}

impl Gateway {
    async fn start(emulator: &Emulator) -> Self {
        let endpoint = emulator.endpoint();
        let variables = [
            ("HUAWEICLOUD_SDK_AK", SAMPLE_ACCESS_KEY),
            ("HUAWEICLOUD_SDK_SK", SAMPLE_SECRET_KEY),
            ("HUAWEICLOUD_SDK_PROJECT_ID", SAMPLE_PROJECT),
            ("SCM_GATEWAY__SERVER__LISTEN", "127.0.0.1:0"),
            ("SCM_GATEWAY__ADMIN__LISTEN", "127.0.0.1:0"),
            ("SCM_GATEWAY__UPSTREAM__ENDPOINT", &endpoint),
        ];
        let environment = BTreeMap::from_iter(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let config = config::load(None, &environment, &Clock::system()).unwrap();
        let ((started, addresses), (stop, stopped)) = (oneshot::channel(), oneshot::channel::<()>());
        tokio::spawn(run(config, Workers::current(), Clock::system(), started, async {
            let _ = stopped.await;
        }));
        let address = format!("http://{}", addresses.await.unwrap().server);
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        Self { client: CertificateServiceClient::new(channel), _stop: stop }
    }
}

fn sample() -> SaveInfoRequest {
    let info = CertificateInfo {
        domain: "www.example.com".into(),
        company_name: "Example Ltd".into(),
        company_province: "Sichuan".into(),
        company_city: "Chengdu".into(),
        country: "CN".into(),
        applicant_name: "Tom".into(),
        applicant_phone: "13212345678".into(),
        applicant_email: "tom@example.com".into(),
        agree_privacy_protection: true,
        ..CertificateInfo::default()
    };
    SaveInfoRequest { project_id: String::new(), cert_id: "scs1481110651012".into(), info: Some(info) }
}
