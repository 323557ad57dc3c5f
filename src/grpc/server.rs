//! Serves connections until shutdown, then drains them.

use std::{io, pin::pin, sync::Arc, time::Duration};

use tokio::time::{sleep, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::{Connections, LINGER, listener::Listener},
    stack::RpcService,
};
use crate::clock;

/// The pause after a failed accept, so that the loop does not spin while file descriptors are exhausted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long before the end of the drain the remaining calls are aborted, at most.
const ABORT_MARGIN: Duration = Duration::from_millis(500);

/// The gRPC server.
pub struct Server<T> {
    /// Where connections come from.
    pub listener: Listener,
    /// The open connections.
    pub connections: Arc<Connections<T>>,
    /// The calls in flight.
    pub calls: TaskTracker,
    /// Aborts the calls in flight when it is cancelled.
    pub abort: CancellationToken,
}

impl<T: RpcService> Server<T> {
    /// Serves until `shutdown` completes, then drains for at most `drain`: no new connections, GOAWAY on the others, and
    /// calls in flight finish. Shortly before the end of the drain the remaining calls are aborted.
    pub async fn serve(self, shutdown: impl Future<Output = ()>, drain: Duration) {
        self.accept(shutdown).await;
        let Self { listener, connections, calls, abort } = self;
        drop(listener);
        let end = clock::monotonic() + drain;
        let abort_at = end - (drain / 4).min(ABORT_MARGIN);
        calls.close();
        let idle = async {
            // A call that was sent before GOAWAY may arrive when all others are done.
            loop {
                calls.wait().await;
                sleep(LINGER).await;
                if calls.is_empty() {
                    return;
                }
            }
        };
        let deadline = async {
            sleep_until(abort_at).await;
            abort.cancel();
            sleep_until(end).await;
        };
        tokio::select! {
            () = connections.drain() => return,
            () = idle => {}
            () = deadline => {}
        }
        connections.close();
        tracing::info!("closed the connections that did not close by themselves");
    }

    async fn accept(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok(stream) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("accepting connections again");
                    }
                    self.connections.open(stream);
                }
                // The client closed the connection before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot accept connections");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
