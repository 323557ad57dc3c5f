//! The runtimes, one for each core. A connection stays on the one that it was given to, with its calls and with what they
//! need of SCM: on the way of a call nothing is handed from core to core. The price: one connection has no more than one
//! core.

use std::{
    cell::Cell,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use opentelemetry::{KeyValue, metrics::Meter};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

thread_local! {
    /// Which worker this thread is.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The runtimes. The first is the one that they were made in, which does everything else beside. Dropped, the others end,
/// with all that still runs on them.
pub struct Workers {
    all: Arc<[Worker]>,
    threads: Vec<JoinHandle<()>>,
    end: CancellationToken,
}

/// One of the runtimes.
#[derive(Clone)]
pub struct Worker {
    /// Where to spawn.
    pub runtime: Handle,
    /// There are as many of these as work was given to it, and one.
    work: Arc<()>,
}

/// Gives out work. What runs on the workers may hold this, but never the workers themselves: none of them can wait for
/// its own end.
pub struct WorkerPicker(Arc<[Worker]>);

impl WorkerPicker {
    /// The worker with the least work. It counts as work for as long as the answer is kept.
    pub fn least_loaded(&self) -> Worker {
        let others_first = self.0.iter().rev(); // the first has more to do
        others_first.min_by_key(|worker| Arc::strong_count(&worker.work)).expect("there is one").clone()
    }
}

impl Workers {
    /// The runtime of the caller alone.
    pub fn current() -> Self {
        Self { all: [Worker::new(Handle::current())].into(), threads: vec![], end: CancellationToken::new() }
    }

    /// The runtime of the caller, and so many more in threads of their own that there are `count`.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut workers = Self::current();
        let mut all = workers.all.to_vec();
        for index in 1..count {
            let runtime = runtime()?;
            all.push(Worker::new(runtime.handle().clone()));
            let end = workers.end.clone();
            let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                CURRENT.set(index);
                runtime.block_on(end.cancelled());
                runtime.shutdown_background(); // a name that is still looked up is not waited for
            })?;
            workers.threads.push(thread);
        }
        workers.all = all.into();
        Ok(workers)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// What gives out work to them.
    pub fn picker(&self) -> WorkerPicker {
        WorkerPicker(self.all.clone())
    }

    /// Shows what the runtimes tell of themselves: a task that never ends is a leak, and a worker that is always busy
    /// keeps its callers waiting whatever the others do.
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
        Self { runtime, work: Arc::new(()) }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end.cancel();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it ends with the poll that it is in
        }
    }
}

/// A runtime for one thread.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Something of which each worker has one of its own.
pub struct PerWorker<T>(Box<[T]>);

impl<T> PerWorker<T> {
    /// For `count` workers.
    pub fn new(count: usize, make: impl FnMut() -> T) -> Self {
        Self(std::iter::repeat_with(make).take(count.max(1)).collect())
    }

    /// That of the worker whose thread this is.
    pub fn local(&self) -> &T {
        &self.0[CURRENT.get() % self.0.len()]
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::{PerWorker, Workers};

    #[tokio::test]
    async fn work_goes_where_there_is_least_of_it_and_each_worker_has_a_thread_and_things_of_its_own() {
        let workers = Workers::start(3).unwrap();
        assert_eq!(workers.count(), 3);
        let mut next = 0..;
        let things = std::sync::Arc::new(PerWorker::new(3, || next.next().unwrap()));
        let mut given: Vec<_> = (0..6).map(|_| workers.picker().least_loaded()).collect();
        let of = async |worker: &super::Worker| {
            let things = things.clone();
            worker.runtime.spawn(async move { (*things.local(), thread::current().id()) }).await.unwrap()
        };
        let mut found = Vec::new();
        for worker in &given {
            found.push(of(worker).await);
        }
        assert_eq!(found.iter().map(|(thing, _)| *thing).collect::<Vec<i32>>(), [2, 1, 0, 2, 1, 0]);
        assert_eq!(found[0], found[3]);
        assert_ne!(found[0].1, found[1].1);
        assert_eq!(found[2].1, thread::current().id(), "the first is the caller's own");
        given.swap_remove(1); // of the second worker's
        assert_eq!(of(&workers.picker().least_loaded()).await, found[1]);
    }

    #[tokio::test]
    async fn dropped_they_end_with_what_runs_on_them() {
        let workers = Workers::start(2).unwrap();
        let (kept, gone) = mpsc::channel::<()>();
        let balancer = workers.picker();
        workers.picker().least_loaded().runtime.spawn(async move {
            std::future::pending::<()>().await;
            drop((kept, balancer));
        });
        drop(workers);
        assert_eq!(gone.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
