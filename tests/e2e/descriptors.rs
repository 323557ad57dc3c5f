//! More connections than file descriptors: the binary with a low limit.

use std::time::Duration;

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::harness::{client, emulator, process::Process, sample};

const DESCRIPTORS: u32 = 64;

/// How long CPU time is measured. A busy loop would use all of it.
const MEASURED: Duration = Duration::from_secs(2);

/// The most CPU time that the gateway may use in that time.
const MAX_USED: Duration = Duration::from_millis(400);

/// Waits until no further connection is accepted.
async fn wait_until_full(process: &Process) {
    let mut before = 0;
    while before != process.accepted_connections() {
        before = process.accepted_connections();
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn out_of_descriptors_does_not_spin_and_recovers() {
    let emulator = emulator().await;
    let mut process = Process::with_descriptors(DESCRIPTORS, &emulator.endpoint(), &[]).await;
    process.read_log();
    let mut early = client(&process.address).await;
    early.save_info(sample()).await.unwrap();
    let baseline = process.accepted_connections();
    let mut crowd = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        crowd.push(TcpStream::connect(&process.address).await.unwrap());
    }
    wait_until_full(&process).await;
    assert!(process.accepted_connections() > DESCRIPTORS as usize / 3, "connections were accepted up to the limit");

    let before = process.cpu_time();
    sleep(MEASURED).await;
    let used = process.cpu_time() - before;

    assert!(used < MAX_USED, "{used:?} of {MEASURED:?}");
    early.save_info(sample()).await.expect("an open connection is served");
    drop(crowd);
    let recovered = async {
        // Until the others are closed, one more connection may exceed the limit.
        while process.accepted_connections() > baseline {
            sleep(Duration::from_millis(20)).await;
        }
        client(&process.address).await.save_info(sample()).await
    };
    timeout(Duration::from_secs(60), recovered).await.expect("new connections are accepted again").unwrap();
    assert_eq!(emulator.attempts(), 3);
}
