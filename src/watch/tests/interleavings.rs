//! The interleavings of a certificate's task and a watcher, explored by shuttle: no wake-up is missed.

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
