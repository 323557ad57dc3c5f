//! `[server]`: the gRPC listener.

use std::{collections::BTreeSet, time::Duration};

use bytesize::{GIB, KIB, MIB};
use rustix::process::{Resource, getrlimit};

use super::listen::{self, IdentitySource, Listen, XfccElements};
use super::methods;
use super::reader::{Raw, Section, values};
use super::tls::{self, Tls};
use super::{millis, secs};
use crate::{
    clock::Clock,
    proto::{RPCS, Rpc},
};

/// The settings of the gRPC listener.
#[derive(Debug, Clone)]
pub struct Server {
    /// The address for calls; `127.0.0.1:50051` by default.
    pub listen: Listen,
    /// The longest duration of the shutdown after SIGTERM, calls in flight included; 20 s by default, at most an hour.
    pub drain: Duration,
    /// How long calls are accepted after health becomes NOT_SERVING, at most half of `drain`; 2 s by default.
    pub lame_duck: Duration,
    /// TLS; none by default.
    pub tls: Option<Tls>,
    /// The source of the callers' identities.
    pub identity: IdentitySource,
    /// Threads that serve connections; by default as many as the process has cores.
    pub worker_threads: usize,
    /// Calls in flight over all connections; 512 by default. Further calls are rejected.
    pub max_in_flight: usize,
    /// Calls in flight of one identified caller; half of `max_in_flight` by default, all with a single caller.
    pub max_in_flight_per_caller: usize,
    /// Calls in flight to one project; half of `max_in_flight` by default, all with a single project.
    pub max_in_flight_per_project: usize,
    /// The largest request message in bytes; 256 KiB by default.
    pub max_message_size: usize,
    /// The memory that open calls may hold.
    pub memory_quota: MemoryQuota,
    /// The full names of the methods that are served; by default all that need not be granted by name.
    pub methods: BTreeSet<&'static str>,
    /// Whether server reflection is served; true by default.
    pub reflection: bool,
    /// The limits of the connections.
    pub connections: Connections,
}

/// What an idle connection counts in `connection_memory_quota`.
pub const IDLE_CONNECTION: usize = 24 * KIB as usize;

/// The bytes that a call is charged from its first byte until its response is being written, in addition to the bytes
/// of its request: a stream, a task and a response.
pub const CALL_OVERHEAD: usize = 16 * 1024;

/// The memory that open calls may hold: incomplete requests and unread responses.
#[derive(Debug, Clone)]
pub struct MemoryQuota {
    /// Bytes of all calls; 64 MiB by default, or twice the overhead of `max_in_flight` calls if that is more.
    pub total: usize,
    /// Bytes of one identified caller; half of `total` by default, all with a single caller.
    pub per_caller: usize,
}

/// The limits of the connections.
#[derive(Debug, Clone)]
pub struct Connections {
    /// Open connections; 1,000 by default, and at most half of the process's file descriptors. If fewer than an eighth
    /// are free, a new connection evicts the oldest pending handshake.
    pub max: usize,
    /// The memory of all connections; 64 MiB by default, or as much as `max` or the memory quota of calls needs.
    pub memory_quota: usize,
    /// Connections of one caller that is identified by certificate or user; half of `max` by default, all with a single
    /// caller.
    pub max_per_caller: usize,
    /// The age, give or take a tenth, at which a connection is drained; 15 min by default.
    pub max_age: Duration,
    /// The longest duration of a handshake; 10 s by default.
    pub handshake_timeout: Duration,
    /// Concurrent calls on a connection; 100 by default.
    pub max_concurrent_streams: u32,
    /// The largest headers of a call in bytes; 16 KiB by default.
    pub max_header_list_size: u32,
    /// Control and empty frames in 10 s, plus 20 for each HEADERS or DATA frame; 1,000 by default.
    pub max_control_frames: u32,
    /// The initial flow-control window of a stream in bytes; 64 KiB by default.
    pub initial_stream_window_size: u32,
    /// The initial flow-control window of a connection in bytes; 1 MiB by default.
    pub initial_connection_window_size: u32,
    /// The idle time after which a PING is sent; 60 s by default.
    pub keep_alive_interval: Duration,
    /// How long a peer has to acknowledge a PING, and to accept any byte of a response; 20 s by default.
    pub keep_alive_timeout: Duration,
}

/// The numbers of callers and projects, which the defaults of shared limits depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShareCounts {
    /// The listed callers; zero means any number.
    pub(super) callers: usize,
    /// The listed projects; zero means the one from the vendor's variables or profile.
    pub(super) projects: usize,
}

impl Server {
    /// Returns the full names of the services with a method that is served.
    pub fn services(&self) -> impl Iterator<Item = &'static str> {
        RPCS.iter().filter(|rpc| self.methods.contains(rpc.name)).map(Rpc::service)
    }
}

/// Reads the address for calls.
pub(super) fn listen(section: &mut Section<'_>) -> Listen {
    section.take("listen", "127.0.0.1:50051", listen::parse)
}

/// Reads the section.
pub(super) fn read(section: &mut Section<'_>, counts: ShareCounts, clock: &Clock) -> Server {
    let listen = listen(section);
    let plaintext = section.take("plaintext", "false", values::boolean);
    let trust_xfcc = section.take("trust_xfcc", "false", values::boolean);
    let xfcc_elements = section.take("xfcc_elements", "one", listen::xfcc_elements);
    if !trust_xfcc && xfcc_elements == XfccElements::Last {
        section.warning("xfcc_elements", "has no effect without trust_xfcc = true");
    }
    let tls = section.section("tls", |section| tls::section(section, clock));
    reject_open_listener(section, &listen, plaintext || tls.any, trust_xfcc);
    if trust_xfcc && tls.client_ca {
        section.problem("trust_xfcc", "and tls.client_ca_file are two ways to tell callers apart; set one of them");
    }
    let max_in_flight = section.take("max_in_flight", "512", values::integer(1..=100_000)) as usize;
    let drain = section.take("drain", "20s", values::duration(secs(0)..=secs(3600)));
    let lame_duck = lame_duck(section, drain);
    let worker_threads = section.take("worker_threads", &cores().to_string(), values::integer(1..=1024)) as usize;
    let is_alone = counts.callers == 1;
    let max_in_flight_per_caller = limit_of_one(section, "max_in_flight_per_caller", max_in_flight, is_alone);
    let is_alone = counts.projects <= 1;
    let max_in_flight_per_project = limit_of_one(section, "max_in_flight_per_project", max_in_flight, is_alone);
    let max_message_size = section.take("max_message_size", "256KiB", values::size(KIB..=16 * MIB));
    let memory_quota = memory_quota(section, max_in_flight, counts);
    Server {
        identity: IdentitySource::of(&listen, trust_xfcc.then_some(xfcc_elements), tls.client_ca),
        listen,
        tls: tls.tls,
        drain,
        lame_duck,
        worker_threads,
        max_in_flight,
        max_in_flight_per_caller,
        max_in_flight_per_project,
        max_message_size,
        methods: section.take_or("methods", &Raw::File(vec![methods::ALL].into()), methods::parse),
        reflection: section.take("reflection", "true", values::boolean),
        connections: connections(section, memory_quota.total, counts),
        memory_quota,
    }
}

/// Rejects a listener that other machines can reach without TLS, because calls would be in plain text, or with a
/// sidecar's header, because anybody could write it.
fn reject_open_listener(section: &mut Section<'_>, listen: &Listen, allows_remote: bool, trust_xfcc: bool) {
    if listen.is_local() {
        return;
    }
    if !allows_remote {
        section.problem(
            "listen",
            "would take calls in plain text from other machines; set server.tls, listen on a loopback address or a \
             Unix socket, or set server.plaintext = true behind a mesh sidecar that encrypts",
        );
    }
    if trust_xfcc {
        section.problem(
            "trust_xfcc",
            "is for a sidecar on this machine; listen on a loopback address or a Unix socket: every client that can connect \
             to another address can write the header",
        );
    }
}

/// Reads the limit of one caller or project, at most `total`.
fn limit_of_one(section: &mut Section<'_>, key: &'static str, total: usize, is_alone: bool) -> usize {
    let parse = values::integer(1..=1_000_000);
    let as_number = |raw: &Raw| parse(raw).map(|number| number as usize);
    limit_of_one_in(section, key, total, is_alone, as_number, |number| number.to_string())
}

/// Reads the limit of one caller or project in the unit of `parse` and `text`, at most `total`.
fn limit_of_one_in(
    section: &mut Section<'_>,
    key: &'static str,
    total: usize,
    is_alone: bool,
    parse: impl Fn(&Raw) -> Result<usize, String>,
    text: fn(usize) -> String,
) -> usize {
    let default = if is_alone { total } else { total.div_ceil(2) };
    let limit = section.take(key, &text(default), parse);
    if limit > total {
        section.warning(key, &format!("is more than all may have together; it will be {}", text(total)));
    }
    limit.min(total)
}

fn memory_quota(section: &mut Section<'_>, max_in_flight: usize, counts: ShareCounts) -> MemoryQuota {
    let bytes = values::size(MIB..=4096 * MIB);
    let default = (64 * MIB as usize).max(max_in_flight * 2 * CALL_OVERHEAD);
    let total = section.take("memory_quota", &in_mib(default), &bytes);
    let calls = total / CALL_OVERHEAD;
    if calls < max_in_flight {
        section.warning("memory_quota", &format!("is enough for {calls} calls, fewer than max_in_flight"));
    }
    let is_alone = counts.callers == 1;
    MemoryQuota {
        total,
        per_caller: limit_of_one_in(section, "memory_quota_per_caller", total, is_alone, bytes, in_mib),
    }
}

/// Formats a size as in a configuration, rounded up to MiB.
fn in_mib(bytes: usize) -> String {
    format!("{}MiB", bytes.div_ceil(MIB as usize))
}

fn lame_duck(section: &mut Section<'_>, drain: Duration) -> Duration {
    let max = drain / 2;
    let lame_duck = section.take("lame_duck", "2s", values::duration(secs(0)..=secs(60)));
    if lame_duck > max && section.origin("lame_duck").is_some() {
        section.warning(
            "lame_duck",
            &format!("is more than half of drain; it will be {}", humantime::format_duration(max)),
        );
    }
    lame_duck.min(max)
}

fn connections(section: &mut Section<'_>, memory_quota: usize, counts: ShareCounts) -> Connections {
    let configured = section.take("max_connections", "1000", values::integer(1..=1_000_000)) as usize;
    let available = half_of_file_descriptors();
    if configured > available && section.origin("max_connections").is_some() {
        let message = format!("is more than half of the file descriptors; it will be {available}");
        section.warning("max_connections", &message);
    }
    let max = configured.min(available);
    Connections {
        max,
        max_per_caller: limit_of_one(section, "max_connections_per_caller", max, counts.callers == 1),
        memory_quota: connection_memory_quota(section, max, memory_quota),
        max_age: section.take("max_connection_age", "15m", values::duration(secs(1)..=secs(86_400))),
        handshake_timeout: section.take("handshake_timeout", "10s", values::duration(millis(10)..=secs(60))),
        max_concurrent_streams: section.take("max_concurrent_streams", "100", values::integer(1..=10_000)),
        max_header_list_size: section.take("max_header_list_size", "16KiB", values::size(KIB..=MIB)) as u32,
        max_control_frames: section.take("max_control_frames", "1000", values::integer(100..=1_000_000)),
        initial_stream_window_size: section.take("initial_stream_window_size", "64KiB", values::size(KIB..=16 * MIB))
            as u32,
        initial_connection_window_size: section.take(
            "initial_connection_window_size",
            "1MiB",
            values::size(64 * KIB..=64 * MIB),
        ) as u32,
        keep_alive_interval: section.take("keep_alive_interval", "60s", values::duration(secs(1)..=secs(7200))),
        keep_alive_timeout: section.take("keep_alive_timeout", "20s", values::duration(secs(1)..=secs(300))),
    }
}

fn connection_memory_quota(section: &mut Section<'_>, max_connections: usize, memory_quota: usize) -> usize {
    let default = in_mib(default_connection_memory(max_connections, memory_quota));
    let quota = section.take("connection_memory_quota", &default, values::size(MIB..=64 * GIB));
    if quota < max_connections.saturating_mul(IDLE_CONNECTION) {
        section.warning("connection_memory_quota", "is not enough for max_connections, so idle ones will be closed");
    }
    quota
}

/// Returns the default of `connection_memory_quota`: enough for the buffers of all connections, and for unread responses.
pub(super) fn default_connection_memory(max_connections: usize, memory_quota: usize) -> usize {
    max_connections.saturating_mul(64 * KIB as usize).max(memory_quota).max(64 * MIB as usize)
}

/// Returns the cores that the process may use, within its affinity and CPU quota.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns half of the limit on file descriptors. The other half is for connections to SCM and for files.
fn half_of_file_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit / 2).ok()).unwrap_or(usize::MAX).max(1)
}
