//! More connections than there are file descriptors for: the real binary, with few of them.

use std::time::Duration;

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::harness::{client, emulator, process::Process, sample};

const DESCRIPTORS: u32 = 64;

/// How long the processor's time is taken for, and how much of it may be used: a loop that spins uses all of it.
const WATCHED: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_millis(400);

/// Processor time of a process so far (proc(5), `utime` and `stime`, of which Linux shows 100 to a second).
fn processor_time(process: &Process) -> Duration {
    let stat = std::fs::read_to_string(process.proc("stat")).unwrap();
    let (_, behind_the_name) = stat.rsplit_once(") ").unwrap();
    let ticks = behind_the_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>();
    Duration::from_millis(10 * ticks)
}

/// Waits until no further connection is taken.
async fn full(process: &Process) {
    let mut before = 0;
    while before != process.descriptors() {
        before = process.descriptors();
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn out_of_descriptors_it_does_not_spin_serves_who_is_there_and_takes_others_when_it_can() {
    let emulator = emulator().await;
    let mut process = Process::with_descriptors(DESCRIPTORS, &emulator.endpoint(), &[]).await;
    process.read_log();
    let mut early = client(&process.address).await;
    early.save_info(sample()).await.unwrap();
    let alone = process.descriptors();
    let mut crowd = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        crowd.push(TcpStream::connect(&process.address).await.unwrap());
    }
    full(&process).await;
    assert!(process.descriptors() > DESCRIPTORS as usize / 3, "it took what it could");

    let before = processor_time(&process);
    sleep(WATCHED).await;
    let used = processor_time(&process) - before;

    assert!(used < IDLE, "{used:?} of {WATCHED:?}");
    early.save_info(sample()).await.expect("who is there is served");
    drop(crowd);
    let late = async {
        // Until then one more may be one too many.
        while process.descriptors() > alone {
            sleep(Duration::from_millis(20)).await;
        }
        client(&process.address).await.save_info(sample()).await
    };
    timeout(Duration::from_secs(60), late).await.expect("others are taken again").unwrap();
    assert_eq!(emulator.attempts(), 3);
}
