//! The status as a page for people: HTML without scripts, images or anything from elsewhere.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    Calls, Circuit, CircuitState, Connections, CooldownState, Credentials, CredentialsVersion, Listeners, Project,
    Status, Telemetry, Time, Trust,
};

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
    let Status { version, now, not_ready_reason, projects, watches, .. } = status;
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
                    span { "docs/status.md explains each field" }
                }
                main {
                    (process(status))
                    (connections(&status.connections))
                    section {
                        h2 { "Calls and watches" }
                        dl {
                            dt { "calls in flight" }
                            dd { (calls(&status.calls)) }
                            dt { "open watches" }
                            dd { (watches.open) " of " (watches.max) }
                        }
                    }
                    (telemetry(&status.telemetry))
                    @for project in projects { (self::project(project, *now)) }
                }
            }
        }
    };
    markup.into_string()
}

fn shown(mood: Mood, text: &str) -> Markup {
    html! { span class=[mood.class()] { (text) } }
}

fn process(status: &Status) -> Markup {
    let Listeners { grpc, admin, tls } = &status.listeners;
    html! {
        section {
            h2 { "Process" }
            dl {
                dt { "started" }
                dd { (status.started_at) }
                dt { "uptime" }
                dd { (span(status.uptime_seconds)) }
                dt { "gRPC" }
                dd { (grpc) }
                dt { "admin" }
                dd { (admin) }
                dt { "TLS" }
                dd { @if tls.is_some() { "on" } @else { "off" } }
                @if let Some(tls) = tls {
                    (expiry("certificate expires", tls.certificate_expires_at, status.now))
                    (expiry("client CA expires", tls.client_ca_expires_at, status.now))
                }
                dt { "workers" }
                dd { (status.connections.per_worker.len()) }
            }
        }
    }
}

fn connections(connections: &Connections) -> Markup {
    let mebibytes = |bytes: usize| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
    let per_worker: Vec<_> = connections.per_worker.iter().map(ToString::to_string).collect();
    html! {
        section {
            h2 { "Connections" }
            dl {
                dt { "open" }
                dd { (share(connections.open, connections.max)) }
                dt { "per worker" }
                dd { (per_worker.join(", ")) }
                dt { "of unlisted callers" }
                dd { (share(connections.unlisted, connections.max_unlisted)) }
                dt { "limit per caller" }
                dd { (connections.max_per_caller) }
                dt { "memory" }
                dd { (mebibytes(connections.memory_bytes)) " of " (mebibytes(connections.memory_quota_bytes)) }
            }
        }
    }
}

fn telemetry(telemetry: &Telemetry) -> Markup {
    let lost = |count: u64| {
        let mood = if count > 0 { Mood::Bad } else { Mood::Plain };
        shown(mood, &count.to_string())
    };
    html! {
        section {
            h2 { "Telemetry" }
            dl {
                dt { "spans ended" }
                dd { (telemetry.spans.ended) }
                dt { "spans exported" }
                dd { (telemetry.spans.exported) }
                dt { "spans failed" }
                dd { (lost(telemetry.spans.failed)) }
                dt { "metrics exported" }
                dd { (telemetry.metric_exports.exported) }
                dt { "exports failed" }
                dd { (lost(telemetry.metric_exports.failed)) }
                dt { "log lines lost" }
                dd { (lost(telemetry.log_lines_dropped)) }
            }
        }
    }
}

fn project(project: &Project, now: Time) -> Markup {
    let Project { id, endpoint, circuits, cooldown, clock, last_error, watches, .. } = project;
    html! {
        section.project {
            h2 { "Project " (id) }
            div {
                div {
                    h3 { "SCM" }
                    dl {
                        dt { "endpoint" }
                        dd { (endpoint) }
                        dt { "circuit" }
                        dd { (circuit(&circuits.upstream, now)) }
                        dt { "cooldown" }
                        dd {
                            @match cooldown.state {
                                CooldownState::None => "none",
                                CooldownState::Active => (shown(Mood::Wait, "after a 429")),
                                CooldownState::Probing => (shown(Mood::Wait, "ended, the next call probes")),
                            }
                            (at(", ends", cooldown.until, now))
                        }
                        dt { "last error" }
                        dd {
                            @match last_error {
                                None => "none",
                                Some(error) => { (error.reason) (at(",", Some(error.at), now)) }
                            }
                        }
                        dt { "clock of SCM" }
                        dd { (clock.skew_seconds) " s ahead, signatures corrected by " (clock.correction_seconds) " s" }
                    }
                }
                (credentials(&project.credentials, &circuits.credentials, now))
                div {
                    h3 { "Load" }
                    dl {
                        dt { "calls in flight" }
                        dd { (calls(&project.calls)) }
                        dt { "watched" }
                        dd {
                            (watches.certificates.none + watches.certificates.succeeded + watches.certificates.failed)
                            " certificates"
                        }
                        dt { "last poll" }
                        dd {
                            (watches.certificates.succeeded) " succeeded, "
                            (watches.certificates.failed) " failed, "
                            (watches.certificates.none) " without a result"
                        }
                        dt { "waiting polls" }
                        dd { (watches.waiting_polls) }
                    }
                }
            }
        }
    }
}

fn credentials(credentials: &Credentials, circuit: &Circuit, now: Time) -> Markup {
    let Credentials { source, in_use, pending } = credentials;
    html! {
        div {
            h3 { "Credentials" }
            dl {
                dt { "source" }
                dd { (source) }
                dt { "circuit" }
                dd { (self::circuit(circuit, now)) }
                dt { "accepted" }
                dd { (version(in_use.as_ref(), now)) }
                dt { "pending" }
                dd { (version(pending.as_ref(), now)) }
            }
        }
    }
}

fn version(version: Option<&CredentialsVersion>, now: Time) -> Markup {
    let Some(version) = version else { return html! { "none" } };
    let (mood, trust) = match version.trust {
        Trust::Verified => (Mood::Good, "verified"),
        Trust::Unverified => (Mood::Plain, "not used yet"),
        Trust::Suspect => (Mood::Wait, "suspect"),
        Trust::Suspended => (Mood::Bad, "suspended"),
        Trust::Probing => (Mood::Wait, "probing"),
    };
    html! {
        (shown(mood, trust)) (at(", suspension ends", version.suspended_until, now))
        ", loaded " (span(version.age_seconds)) " ago"
        (at(", expires", version.expires_at, now))
        (at(", last rejected", version.last_rejected_at, now))
    }
}

fn circuit(circuit: &Circuit, now: Time) -> Markup {
    let (mood, state) = match circuit.state {
        CircuitState::Closed => (Mood::Good, "closed"),
        CircuitState::Open => (Mood::Bad, "open"),
        CircuitState::HalfOpen => (Mood::Wait, "half-open"),
    };
    html! { (shown(mood, state)) (at(", opened", circuit.since, now)) (at(", next probe", circuit.until, now)) }
}

fn calls(calls: &Calls) -> Markup {
    share(calls.in_flight, calls.max)
}

/// Shows how much of a limit is in use.
fn share(used: usize, max: usize) -> Markup {
    let mood = if used >= max { Mood::Bad } else { Mood::Plain };
    shown(mood, &format!("{used} of {max}"))
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
