//! A soak test: a minute at half capacity, in which one request in a hundred meets one of the scripted faults. Nothing
//! leaks, and every call ends with the outcome of its fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use faults::Fault;
use futures_util::future::join_all;
use scm_emulator::{Emulator, Options, Step, Tls};
use scm_gateway::{grpc::service::certificate_service_client::CertificateServiceClient, proto::SaveInfoRequest};
use tokio::time::sleep;
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt as _;

use crate::harness::{assert_status, client, folder::Folder, process::Process, sample, seen};

#[allow(dead_code, reason = "shared with benches/soak")]
mod faults;

const PERMITS: usize = 16;
const CALLERS: usize = PERMITS / 2;
const SERVICE_TIME: Duration = Duration::from_millis(50);
const SOAK: Duration = Duration::from_secs(60);

/// More steps than the calls of the soak can use.
const STEPS: usize = 12_000;

/// The tolerated increase, for example of file descriptors by an admin connection.
const TOLERANCE: usize = 4;
const TOLERANCE_KIB: u64 = 4 * 1024;

/// The outcomes of the calls.
#[derive(Default)]
struct Outcomes {
    /// The certificates of successful calls.
    successes: Vec<String>,
    /// The number of failed calls with attempts, by status and reason.
    failures: BTreeMap<(String, String), usize>,
}

/// The resources of the process that may leak, without its idle connections to SCM.
#[derive(Debug)]
struct Usage {
    descriptors: usize,
    tasks: usize,
    kib: u64,
}

impl Usage {
    async fn of(process: &Process, emulator: &Emulator) -> Self {
        let idle = emulator.open_connections();
        Self {
            descriptors: process.descriptors() - idle,
            tasks: process.metric("scm_gateway_runtime_alive_tasks").await as usize - idle,
            kib: process.memory("VmRSS:"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_faults_leaks_nothing() {
    let tls = Tls::generate();
    let folder = Folder::new();
    let ca = folder.file("ca.pem", &tls.ca_pem());
    let options = Options { tls: Some(tls), service_time: SERVICE_TIME, ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let permits = PERMITS.to_string();
    let variables = [
        ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", permits.as_str()),
        ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "3s"),
        ("SCM_GATEWAY__UPSTREAM__CA_FILE", &ca),
    ];
    let mut process = Process::start(&emulator.endpoint(), &variables).await;
    process.read_log();
    let client = client(&process.address).await;
    let faults = faults::all(faults::TIMED_OUT);
    let warm_up = script(&faults, 10, 10 * faults.len());
    let script = [warm_up, script(&faults, 100, STEPS)].concat();
    emulator.scripts(script.iter().map(|fault| fault.step.clone()));

    let outcomes = Mutex::default();
    soak(&client, &outcomes, || emulator.steps_left() > STEPS).await;
    let before = Usage::of(&process, &emulator).await;
    let started = Instant::now();
    soak(&client, &outcomes, || started.elapsed() < SOAK).await;
    let after = Usage::of(&process, &emulator).await;

    let unused = emulator.steps_left();
    assert!(unused > 0, "the script was long enough");
    assert_outcomes(&script[..script.len() - unused], &outcomes.into_inner().unwrap(), &emulator);
    assert!(after.descriptors <= before.descriptors + TOLERANCE, "{before:?}, {after:?}");
    assert!(after.tasks <= before.tasks + TOLERANCE, "{before:?}, {after:?}");
    assert!(after.kib <= before.kib + TOLERANCE_KIB, "{before:?}, {after:?}");
}

/// Returns a script in which one step in `one_in` is a fault, and the others serve the request.
fn script(faults: &[Fault], one_in: usize, steps: usize) -> Vec<Fault> {
    let served = Fault { step: Step::Serve, outcome: None, is_success: true };
    let mut faults = faults.iter().cycle();
    (1..=steps).map(|nth| if nth % one_in == 0 { faults.next().unwrap() } else { &served }.clone()).collect()
}

/// Makes calls at half of the capacity while `is_running` returns true.
async fn soak(client: &CertificateServiceClient<Channel>, outcomes: &Mutex<Outcomes>, is_running: impl Fn() -> bool) {
    let caller = |_| async {
        while is_running() {
            call(client.clone(), outcomes).await;
        }
    };
    join_all((0..CALLERS).map(caller)).await;
}

/// Makes a call for a new certificate, and waits for the delay in RetryInfo, if any.
async fn call(mut client: CertificateServiceClient<Channel>, outcomes: &Mutex<Outcomes>) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let cert_id = format!("scs{:013}", NEXT.fetch_add(1, Relaxed));
    let request = SaveInfoRequest { cert_id: cert_id.clone(), ..sample() };
    let Err(status) = client.save_info(request).await else {
        outcomes.lock().unwrap().successes.push(cert_id);
        return;
    };
    let seen = seen(&status);
    if seen.metadata.contains_key("attempts") {
        *outcomes.lock().unwrap().failures.entry((format!("{:?}", seen.code), seen.reason)).or_default() += 1;
    } else {
        // Rejected during the cooldown after a 429.
        assert_status(&status, Code::ResourceExhausted, "UPSTREAM_THROTTLED", None);
    }
    if let Some(delay) = status.get_error_details().retry_info().and_then(|info| info.retry_delay) {
        sleep(delay).await;
    }
}

/// Asserts that the outcomes of the calls are exactly those of the used steps.
fn assert_outcomes(used: &[Fault], outcomes: &Outcomes, emulator: &Emulator) {
    let mut failures = BTreeMap::new();
    for (code, reason) in used.iter().filter_map(|fault| fault.outcome) {
        *failures.entry((format!("{code:?}"), reason.to_owned())).or_default() += 1;
    }
    assert_eq!(outcomes.failures, failures);
    assert_eq!(outcomes.successes.len(), used.iter().filter(|fault| fault.is_success).count(), "successes");
    let unread = used.iter().filter(|fault| matches!(fault.step, Step::CloseUnread)).count();
    let journal = emulator.journal();
    assert_eq!((journal.len() + unread, emulator.rejections().len()), (used.len(), 0), "requests");
    let requested: BTreeSet<_> = journal.iter().filter_map(|request| request.target.split('/').rev().nth(1)).collect();
    let all_requested = outcomes.successes.iter().all(|cert_id| requested.contains(cert_id.as_str()));
    assert!(all_requested, "a call succeeded without a request to SCM");
}
