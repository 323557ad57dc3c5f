//! The status as a page for people: HTML without scripts, images or anything from elsewhere.
//!
//! Each function names all fields of its part of the model, so that a new field does not compile until the page shows it.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Calls, Connections, Exports, Listeners, Spans, Status, Telemetry, Time, Tls, Watches};

mod project;

/// The style sheet.
pub const STYLE: &str = include_str!("page.css");

/// How a value is shown.
#[derive(Clone, Copy)]
enum Mood {
    Plain,
    Good,
    /// The state ends by itself.
    Wait,
    Bad,
}

impl Mood {
    fn class(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("good"),
            Self::Wait => Some("wait"),
            Self::Bad => Some("bad"),
        }
    }
}

/// Returns the page.
pub fn html(status: &Status) -> String {
    let Status {
        version,
        now,
        started_at,
        uptime_seconds,
        ready: _, // there is a reason otherwise
        not_ready_reason,
        listeners,
        calls,
        connections,
        watches,
        projects,
        telemetry,
    } = status;
    let Watches { open, max } = watches;
    let workers = connections.per_worker.len();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "scm-gateway" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "scm-gateway" }
                    span { (version) }
                    @match not_ready_reason {
                        None => (shown(Mood::Good, "ready")),
                        Some(reason) => (shown(Mood::Bad, &format!("not ready: {reason}"))),
                    }
                    span { "at " (*now) }
                }
                nav {
                    a href="/" { "reload" }
                    a href="/status" { "status as JSON" }
                    a href="/config" { "configuration" }
                    a href="/metrics" { "metrics" }
                    a href="/docs/status.md" { "what the fields mean" }
                    a href="/docs/runbook.md" { "runbook" }
                }
                main {
                    section {
                        h2 { "Process" }
                        dl {
                            dt { "started" }
                            dd { (started_at) }
                            dt { "uptime" }
                            dd { (span(*uptime_seconds)) }
                            (self::listeners(listeners, *now))
                            dt { "workers" }
                            dd { (workers) }
                        }
                    }
                    (self::connections(connections))
                    section {
                        h2 { "Calls and watches" }
                        dl {
                            dt { "calls in flight" }
                            dd { (self::calls(calls)) }
                            dt { "open watches" }
                            dd { (open) " of " (max) }
                        }
                    }
                    (self::telemetry(telemetry))
                    @for project in projects { (project::html(project, *now)) }
                }
            }
        }
    };
    markup.into_string()
}

fn shown(mood: Mood, text: &str) -> Markup {
    html! { span class=[mood.class()] { (text) } }
}

fn listeners(listeners: &Listeners, now: Time) -> Markup {
    let Listeners { grpc, admin, tls } = listeners;
    html! {
        dt { "gRPC" }
        dd { (grpc) }
        dt { "admin" }
        dd { (admin) }
        dt { "TLS" }
        dd { @if tls.is_some() { "on" } @else { "off" } }
        @if let Some(Tls { reload_failing, certificate_expires_at, client_ca_expires_at }) = tls {
            (reload(*reload_failing))
            (expiry("certificate expires", *certificate_expires_at, now))
            (expiry("client CA expires", *client_ca_expires_at, now))
        }
    }
}

fn connections(connections: &Connections) -> Markup {
    let Connections { open, max, max_per_caller, unlisted, max_unlisted, per_worker, memory_bytes, memory_quota_bytes } =
        connections;
    let mebibytes = |bytes: usize| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
    let per_worker: Vec<_> = per_worker.iter().map(ToString::to_string).collect();
    html! {
        section {
            h2 { "Connections" }
            dl {
                dt { "open" }
                dd { (share(*open, *max)) }
                dt { "per worker" }
                dd { (per_worker.join(", ")) }
                dt { "of unlisted callers" }
                dd { (share(*unlisted, *max_unlisted)) }
                dt { "limit per caller" }
                dd { (max_per_caller) }
                dt { "memory" }
                dd { (mebibytes(*memory_bytes)) " of " (mebibytes(*memory_quota_bytes)) }
            }
        }
    }
}

fn telemetry(telemetry: &Telemetry) -> Markup {
    let Telemetry { spans, metric_exports, log_lines_dropped } = telemetry;
    let Spans { ended, exported, failed, lost: spans_lost } = spans;
    let Exports { exported: metrics_exported, failed: exports_failed } = metric_exports;
    let lost = |count: &u64| {
        let mood = if *count > 0 { Mood::Bad } else { Mood::Plain };
        shown(mood, &count.to_string())
    };
    html! {
        section {
            h2 { "Telemetry" }
            dl {
                dt { "spans ended" }
                dd { (ended) }
                dt { "spans exported" }
                dd { (exported) }
                dt { "spans failed" }
                dd { (lost(failed)) }
                dt { "spans lost" }
                dd { (lost(spans_lost)) }
                dt { "metrics exported" }
                dd { (metrics_exported) }
                dt { "exports failed" }
                dd { (lost(exports_failed)) }
                dt { "log lines lost" }
                dd { (lost(log_lines_dropped)) }
            }
        }
    }
}

fn calls(calls: &Calls) -> Markup {
    let Calls { in_flight, max } = calls;
    share(*in_flight, *max)
}

/// Shows how much of a limit is in use.
fn share(used: usize, max: usize) -> Markup {
    let mood = if used >= max { Mood::Bad } else { Mood::Plain };
    shown(mood, &format!("{used} of {max}"))
}

/// Shows that changed files cannot be used. Shows nothing otherwise.
fn reload(is_failing: bool) -> Markup {
    html! {
        @if is_failing {
            dt { "reload" }
            dd { (shown(Mood::Bad, "failing")) }
        }
    }
}

fn expiry(name: &str, at: Option<Time>, now: Time) -> Markup {
    html! {
        @if let Some(at) = at {
            dt { (name) }
            dd { (shown(if at <= now { Mood::Bad } else { Mood::Plain }, &relative(at, now))) }
        }
    }
}

/// Shows a time after a text. Shows nothing without a time.
fn at(text: &str, time: Option<Time>, now: Time) -> Markup {
    html! { @if let Some(time) = time { (text) " " time datetime=(time.to_string()) title=(time) { (relative(time, now)) } } }
}

/// Returns the distance of a time from now.
fn relative(time: Time, now: Time) -> String {
    match time.0.duration_since(now.0) {
        Ok(ahead) => format!("in {}", span(ahead.as_secs())),
        Err(before) => format!("{} ago", span(before.duration().as_secs())),
    }
}

/// Returns a duration in its two largest units.
fn span(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

impl maud::Render for Time {
    fn render(&self) -> Markup {
        html! { (humantime::format_rfc3339_seconds(self.0).to_string().replace('T', " ").replace('Z', " UTC")) }
    }
}
