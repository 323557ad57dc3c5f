//! Measures how several gateways share one account's quota at SCM. `cargo bench --bench scaling` prints the table of
//! `docs/scaling.md`.
//!
//! Gateways and sockets are real. The emulator replaces SCM, with a quota in fixed time windows as in the vendor's API
//! gateway. Calls arrive at a constant rate, whatever the outcome of earlier calls, and are retried after the delay in
//! RetryInfo.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "a bench")]

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

/// The quota of the account.
const QUOTA: Quota = Quota { calls: 200, per: Duration::from_secs(10) };
const WINDOWS: u32 = 4;

/// The rates of arriving calls, relative to the quota.
const LOADS: [f64; 3] = [0.8, 1.5, 4.0];
const INSTANCES: [usize; 4] = [1, 2, 4, 8];

/// The maximum number of attempts of a call.
const MAX_ATTEMPTS: usize = 20;

#[tokio::main]
async fn main() {
    println!(
        "| load / quota | gateways | served / quota | rejected by SCM / served | rejected in cooldown / served | least / most served |"
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
    let mut calls = JoinSet::new();
    let mut next = (0..instances).cycle();
    let mut tick = interval(QUOTA.per.div_f64(f64::from(QUOTA.calls) * load));
    while started.elapsed() < QUOTA.per * WINDOWS {
        tick.tick().await;
        let instance = next.next().unwrap();
        calls.spawn(call(gateways[instance].client.clone(), instance));
    }
    calls.abort_all();
    let mut served = vec![0; instances];
    let mut rejections = 0;
    while let Some(outcome) = calls.join_next().await {
        if let Ok((instance, is_served, rejected)) = outcome {
            served[instance] += usize::from(is_served);
            rejections += rejected;
        }
    }
    let total: usize = served.iter().sum();
    let rejected_by_scm = emulator.attempts() - total;
    let ratio = |part: usize, of: f64| format!("{:.2}", part as f64 / of);
    let min = *served.iter().min().unwrap();
    let max = *served.iter().max().unwrap();
    [
        ratio(total, f64::from(QUOTA.calls * WINDOWS)),
        ratio(rejected_by_scm, total as f64),
        ratio(rejections - rejected_by_scm.min(rejections), total as f64),
        ratio(min, max as f64),
    ]
    .join(" | ")
}

/// Retries a call until it is served. Returns the instance, whether the call was served, and the number of rejections.
async fn call(mut client: CertificateServiceClient<Channel>, instance: usize) -> (usize, bool, usize) {
    for rejections in 0..MAX_ATTEMPTS {
        let Err(status) = client.save_info(sample()).await else { return (instance, true, rejections) };
        let delay = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
        sleep(delay.unwrap_or(Duration::from_secs(1))).await;
    }
    (instance, false, MAX_ATTEMPTS)
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
        let (started, addresses) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
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
