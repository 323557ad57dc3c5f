//! Tests of the connection memory quota: which connections are evicted, and what is returned.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use tokio::time::advance;
use tokio_util::sync::CancellationToken;

use super::{
    Account, ConnectionMemory, Eviction, IDLE_CONNECTION, STREAM, UNREAD_BODY,
    account::{LONG, RETAINED},
};

const MIB: usize = 1024 * 1024;

fn memory() -> ConnectionMemory {
    ConnectionMemory::new(8 * MIB, &SdkMeterProvider::default().meter("test"))
}

fn open(memory: &ConnectionMemory) -> Arc<Account> {
    memory.open(CancellationToken::new(), CancellationToken::new())
}

/// Opens a connection whose peer has read `sent` bytes and leaves `unsent` bytes unread.
fn stalled(memory: &ConnectionMemory, sent: usize, unsent: usize) -> Arc<Account> {
    let account = open(memory);
    account.open_stream(true);
    account.record_sent(sent);
    account.add_unsent(unsent);
    account.record_flushed();
    account
}

fn idle(memory: &ConnectionMemory, bytes: usize) -> Arc<Account> {
    let account = open(memory);
    account.charge(bytes);
    account
}

fn evictions<const N: usize>(accounts: [&Arc<Account>; N]) -> [Option<Eviction>; N] {
    accounts.map(|account| account.eviction())
}

#[tokio::test(start_paused = true)]
async fn long_stalled_connections_are_evicted_first() {
    let memory = memory();
    let first = stalled(&memory, 0, 3 * MIB);
    let idle = idle(&memory, 3 * MIB);
    let reader = stalled(&memory, 0, 3 * MIB / 2);
    advance(Duration::from_secs(4)).await;
    reader.record_sent(1);
    advance(Duration::from_secs(2)).await;
    let trigger = open(&memory);
    trigger.charge(MIB);
    assert_eq!(evictions([&first, &idle, &reader, &trigger]), [Some(Eviction::Stalled), None, None, None]);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_evicted_before_slow_readers() {
    let memory = memory();
    let small = idle(&memory, 1024);
    let idle = idle(&memory, 2 * MIB);
    let reader = stalled(&memory, 0, 5 * MIB);
    let trigger = open(&memory);
    trigger.charge(MIB);
    assert_eq!(evictions([&small, &idle, &reader, &trigger]), [None, Some(Eviction::Idle), None, None]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_only_a_health_watch_is_idle() {
    let memory = memory();
    let watching = idle(&memory, 4 * MIB);
    watching.open_stream(false);
    let watch = watching.builtin_stream();
    let calling = idle(&memory, 3 * MIB);
    calling.open_stream(false);
    let trigger = open(&memory);
    trigger.charge(2 * MIB);
    assert_eq!(evictions([&watching, &calling, &trigger]), [Some(Eviction::Idle), None, None]);
    drop(watch);
    assert_eq!(watching.builtin_streams.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_only_watches_of_certificates_drains_after_all_others() {
    let memory = memory();
    let watching = idle(&memory, 3 * MIB);
    watching.open_stream(false);
    let watch = watching.watch();
    let idle = idle(&memory, 3 * MIB);
    let reader = stalled(&memory, 0, MIB);
    let trigger = open(&memory);
    trigger.open_stream(false);
    trigger.charge(2 * MIB);
    assert_eq!(evictions([&watching, &idle, &reader, &trigger]), [None, Some(Eviction::Idle), None, None]);
    trigger.charge(3 * MIB);
    assert_eq!(evictions([&watching, &reader, &trigger]), [None; 3]);
    assert!(watching.draining.is_cancelled() && !watching.closing.is_cancelled(), "its watches get a status");
    advance(LONG).await;
    trigger.charge(1);
    assert_eq!(watching.eviction(), Some(Eviction::Stalled), "it did not close in time");
    drop(watch);
    assert_eq!(watching.watches.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn the_peer_that_has_read_least_is_evicted_first() {
    let memory = memory();
    let reader = stalled(&memory, 16_384, 4 * MIB);
    let nothing = stalled(&memory, 100, 2 * MIB);
    let trigger = stalled(&memory, 8_192, 2 * MIB);
    assert_eq!(evictions([&reader, &nothing, &trigger]), [None, Some(Eviction::Stalled), None]);
    assert!(nothing.closing.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn slow_readers_stay_while_other_calls_hold_the_memory() {
    let memory = memory();
    let reader = stalled(&memory, 0, 3 * MIB);
    let calls = open(&memory);
    calls.open_stream(true);
    calls.charge(6 * MIB);
    assert_eq!(evictions([&reader, &calls]), [None, None]);
    advance(Duration::from_secs(5)).await;
    calls.charge(1);
    assert_eq!(evictions([&reader, &calls]), [Some(Eviction::Stalled), None], "not slow, but stalled");
}

#[tokio::test(start_paused = true)]
async fn closed_connections_return_their_memory() {
    let memory = memory();
    let account = open(&memory);
    account.open_stream(true);
    account.open_stream(true);
    account.close_stream();
    account.open_stream(false);
    account.charge(UNREAD_BODY);
    account.add_unsent(MIB);
    assert_eq!(memory.0.used_by_open(), IDLE_CONNECTION + 2 * (RETAINED + STREAM) + UNREAD_BODY + MIB);
    account.remove_unsent(MIB);
    account.release(UNREAD_BODY);
    assert_eq!(memory.0.used_by_open(), IDLE_CONNECTION + 2 * (RETAINED + STREAM));
    account.close(Eviction::Stalled);
    assert_eq!(memory.0.used_by_open(), 0, "its connection is about to close");
    drop(account);
    assert_eq!((memory.0.used_by_open(), memory.0.lock().len()), (0, 0));
}
