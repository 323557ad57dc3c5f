//! The interleavings of a certificate's task and its watchers, explored by shuttle: nobody misses a wake-up.

use std::sync::Arc;

use shuttle::{check_dfs, future::block_on, thread};

use super::{super::channel::Channel, status};

#[test]
fn interleavings_of_a_change_and_a_watcher_lose_no_state() {
    check_dfs(
        || {
            let channel = Arc::<Channel>::default();
            let task = {
                let channel = channel.clone();
                thread::spawn(move || {
                    channel.update(&status("CHECKING").unwrap());
                    channel.close(Ok(()));
                })
            };
            let certificate = block_on(channel.wait(|latest| latest.since(0)));
            assert_eq!(certificate.status, "CHECKING");
            block_on(channel.wait(|latest| latest.end())).unwrap();
            task.join().unwrap();
        },
        None,
    );
}

#[test]
fn interleavings_of_watchers_that_leave_wake_the_task() {
    check_dfs(
        || {
            let channel = Arc::<Channel>::default();
            let watchers = [(); 2].map(|()| {
                channel.add_watcher();
                let channel = channel.clone();
                thread::spawn(move || channel.remove_watcher())
            });
            block_on(channel.unwatched());
            assert!(channel.is_unwatched());
            watchers.into_iter().for_each(|watcher| watcher.join().unwrap());
        },
        None,
    );
}
