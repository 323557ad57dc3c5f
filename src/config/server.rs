//! `[server]`: the gRPC listener.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::{KIB, MIB};
use rustix::process::{Resource, getrlimit};

use super::callers::{self, IdentitySource};
use super::raw::Raw;
use super::reader::Section;
use super::tls::{self, Tls};
use super::{millis, secs, values};
use crate::clock::Clock;

/// `[server]`: the gRPC listener.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where calls come in; `127.0.0.1:50051` by default.
    pub listen: Listen,
    /// How long the end may take after SIGTERM, calls in flight included; 20 s by default, at most an hour.
    pub drain: Duration,
    /// How long calls are still taken after health has turned, at most half of `drain`; 2 s by default.
    pub lame_duck: Duration,
    /// TLS; none by default.
    pub tls: Option<Tls>,
    /// What callers are told apart by.
    pub identity: IdentitySource,
    /// Threads that serve connections; by default as many as the process has cores.
    pub worker_threads: usize,
    /// Calls in flight at a time, over all connections; 512 by default. Further ones are refused at once.
    pub max_in_flight: usize,
    /// Those of one caller, where callers are told apart; half of `max_in_flight` by default, all with a single caller.
    pub max_in_flight_per_caller: usize,
    /// Those to one project; half of `max_in_flight` by default, all with a single project.
    pub max_in_flight_per_project: usize,
    /// The longest request message, in bytes; 256 KiB by default.
    pub max_message_size: usize,
    /// What calls may hold that are not over.
    pub memory_quota: MemoryQuota,
    /// Whether server reflection is served; it is by default.
    pub reflection: bool,
    /// What the connections may cost.
    pub connections: Connections,
}

/// What a call counts for, in bytes, from its first byte until its answer is on its way, beside the bytes of its request
/// while they come: a stream, a task, an answer.
pub const CALL_OVERHEAD: usize = 16 * 1024;

/// What calls may hold that are not over: requests that have not come whole, answers that nobody reads.
#[derive(Debug, Clone)]
pub struct MemoryQuota {
    /// Bytes, all together; 64 MiB by default, or twice what `max_in_flight` calls count for if that is more.
    pub total: usize,
    /// Those of one caller, where callers are told apart; half of `max` by default, all with a single caller.
    pub per_caller: usize,
}

/// What the connections may cost.
#[derive(Debug, Clone)]
pub struct Connections {
    /// How many at a time; 1,000 by default, and at most half of what file descriptors the process may have. When fewer than
    /// an eighth are free, the oldest that has not begun gives way to a new one.
    pub max: usize,
    /// Those of one caller, where they are told apart by certificate or user; half of `max` by default, all with a single
    /// caller.
    pub max_per_caller: usize,
    /// After how long, a tenth more or less, one is told to end; 15 min by default.
    pub max_age: Duration,
    /// How long it may take to begin; 10 s by default.
    pub handshake_timeout: Duration,
    /// Calls at a time on it; 100 by default.
    pub max_concurrent_streams: u32,
    /// The longest headers of a call, in bytes; 16 KiB by default.
    pub max_header_list_size: u32,
    /// Frames that bring no call further, beyond 20 for each that does and per 10 s; 1,000 by default.
    pub max_control_frames: u32,
    /// Bytes of a message that may be on their way, per call and per connection; 64 KiB and 1 MiB by default.
    pub initial_stream_window_size: u32,
    /// The same of a connection.
    pub initial_connection_window_size: u32,
    /// After how long without a frame the peer is asked whether it is there; and how long it has to answer, and to take
    /// anything of what it is sent; 60 s and 20 s by default.
    pub keep_alive_interval: Duration,
    /// How long a peer has to acknowledge a PING, and to accept any byte of a response; 20 s by default.
    pub keep_alive_timeout: Duration,
}

/// An address for gRPC calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Whether it can be reached from this machine alone.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How many there are to share what the process can do.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShareCounts {
    /// The listed callers; none stands for any number of them.
    pub(super) callers: usize,
    /// The listed projects; none stands for the vendor's one.
    pub(super) projects: usize,
}

/// Reads the section.
pub(super) fn read(section: &mut Section<'_>, counts: ShareCounts, clock: &Clock) -> Server {
    let listen = section.take("listen", "127.0.0.1:50051", values::listen);
    let plaintext = section.take("plaintext", "false", values::boolean);
    let trust_xfcc = section.take("trust_xfcc", "false", values::boolean);
    let tls = section.section("tls", |section| tls::section(section, clock));
    refuse_open_listener(section, &listen, plaintext || tls.any, trust_xfcc);
    if trust_xfcc && tls.client_ca {
        section.problem("trust_xfcc", "and tls.client_ca_file are two ways to tell callers apart; set one of them");
    }
    let max_in_flight = section.take("max_in_flight", "512", values::integer(1..=100_000)) as usize;
    let drain = section.take("drain", "20s", values::duration(secs(0)..=secs(3600)));
    Server {
        identity: callers::source(&listen, trust_xfcc, tls.client_ca),
        listen,
        tls: tls.tls,
        drain,
        lame_duck: lame_duck(section, drain),
        worker_threads: section.take("worker_threads", &cores().to_string(), values::integer(1..=1024)) as usize,
        max_in_flight,
        max_in_flight_per_caller: share(section, "max_in_flight_per_caller", max_in_flight, counts.callers == 1),
        max_in_flight_per_project: share(section, "max_in_flight_per_project", max_in_flight, counts.projects <= 1),
        max_message_size: section.take("max_message_size", "256KiB", values::size(KIB..=16 * MIB)),
        memory_quota: memory_quota(section, max_in_flight, counts),
        reflection: section.take("reflection", "true", values::boolean),
        connections: connections(section, counts),
    }
}

/// Calls and what they hold travel in plain text on this machine only, and anybody elsewhere could write a sidecar's
/// header.
fn refuse_open_listener(section: &mut Section<'_>, listen: &Listen, may_be_open: bool, trust_xfcc: bool) {
    if listen.is_local() {
        return;
    }
    if !may_be_open {
        section.problem(
            "listen",
            "would take calls in plain text from other machines; set server.tls, listen on a loopback address or a \
             Unix socket, or set server.plaintext = true behind a mesh sidecar that encrypts",
        );
    }
    if trust_xfcc {
        section.problem(
            "trust_xfcc",
            "is for a sidecar on this machine; listen on a loopback address or a Unix socket: whoever reaches another \
             address can write the header",
        );
    }
}

/// What one of several may have of `all`.
fn share(section: &mut Section<'_>, key: &'static str, all: usize, is_alone: bool) -> usize {
    let parse = values::integer(1..=1_000_000);
    share_of(section, key, all, is_alone, |raw| parse(raw).map(|share| share as usize), |number| number.to_string())
}

/// What one of several may have of `all`, which is read and written so.
fn share_of(
    section: &mut Section<'_>,
    key: &'static str,
    all: usize,
    is_alone: bool,
    parse: impl Fn(&Raw) -> Result<usize, String>,
    text: fn(usize) -> String,
) -> usize {
    let default = if is_alone { all } else { all.div_ceil(2) };
    let share = section.take(key, &text(default), parse);
    if share > all {
        section.warning(key, &format!("is more than all may have together; it will be {}", text(all)));
    }
    share.min(all)
}

fn memory_quota(section: &mut Section<'_>, max_in_flight: usize, counts: ShareCounts) -> MemoryQuota {
    let bytes = values::size(MIB..=4096 * MIB);
    let default = (64 * MIB as usize).max(max_in_flight * 2 * CALL_OVERHEAD);
    let max = section.take("memory_quota", &in_mib(default), &bytes);
    let calls = max / CALL_OVERHEAD;
    if calls < max_in_flight {
        section.warning("memory_quota", &format!("has room for {calls} calls, fewer than max_in_flight"));
    }
    let is_alone = counts.callers == 1;
    MemoryQuota { total: max, per_caller: share_of(section, "memory_quota_per_caller", max, is_alone, bytes, in_mib) }
}

/// As a configuration would say it, rounded up.
fn in_mib(bytes: usize) -> String {
    format!("{}MiB", bytes.div_ceil(MIB as usize))
}

fn lame_duck(section: &mut Section<'_>, drain: Duration) -> Duration {
    let most = drain / 2;
    let lame_duck = section.take("lame_duck", "2s", values::duration(secs(0)..=secs(60)));
    if lame_duck > most && section.origin("lame_duck").is_some() {
        section.warning(
            "lame_duck",
            &format!("is more than half of drain; it will be {}", humantime::format_duration(most)),
        );
    }
    lame_duck.min(most)
}

fn connections(section: &mut Section<'_>, counts: ShareCounts) -> Connections {
    let max = section.take("max_connections", "1000", values::integer(1..=1_000_000)) as usize;
    let most = half_of_file_descriptors();
    if max > most && section.origin("max_connections").is_some() {
        section.warning("max_connections", &format!("is more than half of the file descriptors; it will be {most}"));
    }
    let max = max.min(most);
    Connections {
        max,
        max_per_caller: share(section, "max_connections_per_caller", max, counts.callers == 1),
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

/// Those that the process may use, be they bound by affinity or by a quota.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The other half is for connections to SCM and for files.
fn half_of_file_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit / 2).ok()).unwrap_or(usize::MAX).max(1)
}
