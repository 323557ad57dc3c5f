//! A minute at half capacity in which one request in a hundred goes wrong, in every way there is: nothing leaks, and
//! every call ends as its fault says.

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

mod faults;

const PLACES: usize = 16;
const CALLERS: usize = PLACES / 2;
const SERVICE_TIME: Duration = Duration::from_millis(50);
const SOAK: Duration = Duration::from_secs(60);

/// More than can be used up meanwhile.
const STEPS: usize = 12_000;

/// What may come and go at any time: a connection of the operator's, a page of memory.
const FEW: usize = 4;
const FEW_KIB: u64 = 4 * 1024;

/// How calls ended.
#[derive(Default)]
struct Ended {
    /// Their certificates.
    good: Vec<String>,
    /// By status and reason, those of which something was sent.
    failed: BTreeMap<(String, String), usize>,
}

/// What the process has of what may leak, beside the connections to SCM that it keeps for the next call.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    tasks: usize,
    kib: u64,
}

impl Held {
    async fn by(process: &Process, emulator: &Emulator) -> Self {
        let kept = emulator.open_connections();
        Self {
            descriptors: process.descriptors() - kept,
            tasks: process.metric("scm_gateway_runtime_alive_tasks").await as usize - kept,
            kib: process.memory("VmRSS:"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_faults_leaks_nothing_and_every_call_ends_as_its_fault_says() {
    let (tls, folder) = (Tls::generate(), Folder::new());
    let ca = folder.file("ca.pem", &tls.ca_pem());
    let options = Options { tls: Some(tls), service_time: SERVICE_TIME, ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let places = PLACES.to_string();
    let variables = [
        ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", places.as_str()),
        ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "3s"),
        ("SCM_GATEWAY__UPSTREAM__CA_FILE", &ca),
    ];
    let mut process = Process::start(&emulator.endpoint(), &variables).await;
    process.read_log();
    let client = client(&process.address).await;
    let faults = faults::all();
    let warm_up = script(&faults, 10, 10 * faults.len());
    let script = [warm_up, script(&faults, 100, STEPS)].concat();
    emulator.scripts(script.iter().map(|fault| fault.step.clone()));

    let ended = Mutex::default();
    soak(&client, &ended, || emulator.steps_left() > STEPS).await;
    let before = Held::by(&process, &emulator).await;
    let started = Instant::now();
    soak(&client, &ended, || started.elapsed() < SOAK).await;
    let after = Held::by(&process, &emulator).await;

    let left = emulator.steps_left();
    assert!(left > 0, "the script was long enough");
    agrees(&script[..script.len() - left], &ended.into_inner().unwrap(), &emulator);
    assert!(after.descriptors <= before.descriptors + FEW, "{before:?}, {after:?}");
    assert!(after.tasks <= before.tasks + FEW, "{before:?}, {after:?}");
    assert!(after.kib <= before.kib + FEW_KIB, "{before:?}, {after:?}");
}

/// Steps that serve, and one in so many that does not.
fn script(faults: &[Fault], one_in: usize, steps: usize) -> Vec<Fault> {
    let served = Fault { step: Step::Serve, outcome: None, is_answer: true };
    let mut faults = faults.iter().cycle();
    (1..=steps).map(|nth| if nth % one_in == 0 { faults.next().unwrap() } else { &served }.clone()).collect()
}

/// Calls, as many at a time as are half of the capacity.
async fn soak(client: &CertificateServiceClient<Channel>, ended: &Mutex<Ended>, goes_on: impl Fn() -> bool) {
    let caller = |_| async {
        while goes_on() {
            call(client.clone(), ended).await;
        }
    };
    join_all((0..CALLERS).map(caller)).await;
}

/// One call of a certificate of its own. It waits as long as it is told to before the next one.
async fn call(mut client: CertificateServiceClient<Channel>, ended: &Mutex<Ended>) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let cert_id = format!("scs{:013}", NEXT.fetch_add(1, Relaxed));
    let request = SaveInfoRequest { cert_id: cert_id.clone(), ..sample() };
    let Err(status) = client.save_info(request).await else {
        ended.lock().unwrap().good.push(cert_id);
        return;
    };
    let seen = seen(&status);
    if seen.metadata.contains_key("attempts") {
        *ended.lock().unwrap().failed.entry((format!("{:?}", seen.code), seen.reason)).or_default() += 1;
    } else {
        // After a 429, for as long as it says.
        assert_status(&status, Code::ResourceExhausted, "UPSTREAM_THROTTLED", None);
    }
    if let Some(wait) = status.get_error_details().retry_info().and_then(|info| info.retry_delay) {
        sleep(wait).await;
    }
}

/// Asserts that what the callers got is what the steps say that were used up, no more and no less.
fn agrees(used: &[Fault], ended: &Ended, emulator: &Emulator) {
    let mut failed = BTreeMap::new();
    for (code, reason) in used.iter().filter_map(|fault| fault.outcome) {
        *failed.entry((format!("{code:?}"), reason.to_owned())).or_default() += 1;
    }
    assert_eq!(ended.failed, failed);
    assert_eq!(ended.good.len(), used.iter().filter(|fault| fault.is_answer).count(), "successes");
    let unread = used.iter().filter(|fault| matches!(fault.step, Step::CloseUnread)).count();
    let journal = emulator.journal();
    assert_eq!((journal.len() + unread, emulator.refusals().len()), (used.len(), 0), "requests");
    let asked: BTreeSet<_> = journal.iter().filter_map(|request| request.target.split('/').rev().nth(1)).collect();
    assert!(ended.good.iter().all(|cert_id| asked.contains(cert_id.as_str())), "a success that SCM knows nothing of");
}
