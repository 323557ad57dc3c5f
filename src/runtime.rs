//! The tokio runtimes, one for each of `server.worker_threads`.
//!
//! A connection stays on one runtime, with its calls and their connections to SCM, so that no call moves between cores.
//! In return, a connection cannot use more than one core.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use opentelemetry::{KeyValue, metrics::Meter};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

thread_local! {
    /// The index of this thread's worker.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The workers. The first is the caller's runtime, which also runs everything other than connections. On drop, the
/// others are shut down with their tasks.
pub struct Workers {
    all: Arc<[Worker]>,
    threads: Vec<JoinHandle<()>>,
    shutdown: CancellationToken,
}

/// A runtime that serves connections.
#[derive(Clone)]
struct Worker {
    runtime: Handle,
    /// The connections on this worker.
    connections: Arc<AtomicUsize>,
}

/// The assignment of a connection to a worker, which counts the connection until dropped.
pub struct Assignment {
    /// The runtime to spawn the connection on.
    pub runtime: Handle,
    connections: Arc<AtomicUsize>,
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}

/// Assigns connections to workers. A task on a worker may hold a picker but not the [`Workers`], because their drop
/// waits for the worker's thread.
pub struct WorkerPicker(Arc<[Worker]>);

impl WorkerPicker {
    /// Assigns a connection to the worker with the fewest connections.
    pub fn least_loaded(&self) -> Assignment {
        let others_first = self.0.iter().rev(); // the first worker has other tasks too
        let worker = others_first.min_by_key(|worker| worker.connections.load(Relaxed)).expect("at least one worker");
        worker.connections.fetch_add(1, Relaxed);
        Assignment { runtime: worker.runtime.clone(), connections: worker.connections.clone() }
    }

    /// Returns the number of connections of each worker.
    pub fn connections(&self) -> Vec<usize> {
        self.0.iter().map(|worker| worker.connections.load(Relaxed)).collect()
    }
}

impl Workers {
    /// Returns a single worker, the caller's runtime.
    pub fn current() -> Self {
        Self { all: [Worker::new(Handle::current())].into(), threads: vec![], shutdown: CancellationToken::new() }
    }

    /// Returns `count` workers: the caller's runtime, and the others on their own threads.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut workers = Self::current();
        let mut all = workers.all.to_vec();
        for index in 1..count {
            let runtime = runtime()?;
            all.push(Worker::new(runtime.handle().clone()));
            let shutdown = workers.shutdown.clone();
            let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                CURRENT.set(index);
                runtime.block_on(shutdown.cancelled());
                runtime.shutdown_background(); // does not wait for a DNS lookup
            })?;
            workers.threads.push(thread);
        }
        workers.all = all.into();
        Ok(workers)
    }

    /// Returns the number of workers.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Returns a picker for these workers.
    pub fn picker(&self) -> WorkerPicker {
        WorkerPicker(self.all.clone())
    }

    /// Registers the metrics of the runtimes. They show leaked tasks, and workers that are always busy and delay the
    /// calls of their connections.
    pub fn register_metrics(&self, meter: &Meter) {
        let runtimes: Arc<[_]> = self.all.iter().map(|worker| worker.runtime.metrics()).collect();
        let all = runtimes.clone();
        meter
            .u64_observable_gauge("scm_gateway.runtime.alive_tasks")
            .with_unit("{task}")
            .with_description("Tasks of the runtimes that have not ended")
            .with_callback(move |gauge| {
                gauge.observe(all.iter().map(|runtime| runtime.num_alive_tasks() as u64).sum(), &[]);
            })
            .build();
        meter
            .f64_observable_counter("scm_gateway.runtime.worker.busy_duration")
            .with_unit("s")
            .with_description("Time that each worker was not waiting, in seconds")
            .with_callback(move |counter| {
                for (index, runtime) in runtimes.iter().enumerate() {
                    let busy = runtime.worker_total_busy_duration(0).as_secs_f64();
                    counter.observe(busy, &[KeyValue::new("worker", index as i64)]);
                }
            })
            .build();
    }
}

impl Worker {
    fn new(runtime: Handle) -> Self {
        Self { runtime, connections: Arc::default() }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shutdown.cancel();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // ends with the current poll
        }
    }
}

/// Creates a single-threaded runtime.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// A value for each worker.
pub struct PerWorker<T>(Box<[T]>);

impl<T> PerWorker<T> {
    /// Creates the values of `count` workers.
    pub fn new(count: usize, make: impl FnMut() -> T) -> Self {
        Self(std::iter::repeat_with(make).take(count.max(1)).collect())
    }

    /// Returns the value of the current worker.
    pub fn local(&self) -> &T {
        &self.0[CURRENT.get() % self.0.len()]
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::{PerWorker, Workers};

    #[tokio::test]
    async fn the_least_loaded_worker_is_picked() {
        let workers = Workers::start(3).unwrap();
        assert_eq!(workers.count(), 3);
        let mut next = 0..;
        let values = std::sync::Arc::new(PerWorker::new(3, || next.next().unwrap()));
        let mut picked: Vec<_> = (0..6).map(|_| workers.picker().least_loaded()).collect();
        let value_and_thread = async |worker: &super::Assignment| {
            let values = values.clone();
            worker.runtime.spawn(async move { (*values.local(), thread::current().id()) }).await.unwrap()
        };
        let mut found = Vec::new();
        for worker in &picked {
            found.push(value_and_thread(worker).await);
        }
        assert_eq!(found.iter().map(|(value, _)| *value).collect::<Vec<i32>>(), [2, 1, 0, 2, 1, 0]);
        assert_eq!(found[0], found[3]);
        assert_ne!(found[0].1, found[1].1);
        assert_eq!(found[2].1, thread::current().id(), "the first worker is the caller's runtime");
        picked.swap_remove(1); // a connection of the second worker
        assert_eq!(value_and_thread(&workers.picker().least_loaded()).await, found[1]);
    }

    #[tokio::test]
    async fn dropping_the_workers_drops_their_tasks() {
        let workers = Workers::start(2).unwrap();
        let (held, closed) = mpsc::channel::<()>();
        let picker = workers.picker();
        workers.picker().least_loaded().runtime.spawn(async move {
            std::future::pending::<()>().await;
            drop((held, picker));
        });
        drop(workers);
        assert_eq!(closed.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
