//! The section of one project on the status page. States have the names of the JSON.

use maud::{Markup, html};
use serde::Serialize;

use super::{Mood, at, reload, shown, span};
use crate::ops::status::{
    Circuit, CircuitState, Circuits, ClockSkew, Cooldown, CooldownState, Credentials, CredentialsVersion, Exchange,
    ExchangeOutcome, LastError, LastPolls, Project, ProjectWatches, Time, Trust,
};

/// Returns the section of a project.
pub(super) fn html(project: &Project, now: Time) -> Markup {
    let Project { id, region, endpoint, credentials, circuits, cooldown, clock, last_error, calls, watches } = project;
    let Circuits { upstream, credentials: credentials_circuit } = circuits;
    let ClockSkew { skew_seconds, correction_seconds } = clock;
    html! {
        section.project {
            h2 { "Project " (id) }
            div {
                div {
                    h3 { "SCM" }
                    dl {
                        dt { "region" }
                        dd { (region.as_deref().unwrap_or("as the endpoint says")) }
                        dt { "endpoint" }
                        dd { (endpoint) }
                        dt { "circuit" }
                        dd { (circuit(upstream, now)) }
                        dt { "cooldown" }
                        dd { (self::cooldown(cooldown, now)) }
                        dt { "last error" }
                        dd {
                            @match last_error {
                                None => "none",
                                Some(LastError { reason, at }) => { (reason) (super::at(",", Some(*at), now)) }
                            }
                        }
                        dt { "clock of SCM" }
                        dd { (skew_seconds) " s ahead, signatures corrected by " (correction_seconds) " s" }
                    }
                }
                (self::credentials(credentials, credentials_circuit, now))
                div {
                    h3 { "Load" }
                    dl {
                        dt { "calls in flight" }
                        dd { (super::calls(calls)) }
                        (self::watches(watches))
                    }
                }
            }
        }
    }
}

fn cooldown(cooldown: &Cooldown, now: Time) -> Markup {
    let Cooldown { state, until } = cooldown;
    let mood = if *state == CooldownState::None { Mood::Plain } else { Mood::Wait };
    html! { (shown(mood, &name(state))) (due(*state == CooldownState::ProbeDue)) (at(", until", *until, now)) }
}

fn watches(watches: &ProjectWatches) -> Markup {
    let ProjectWatches { certificates: LastPolls { none, succeeded, failed }, waiting_polls } = watches;
    html! {
        dt { "watched" }
        dd { (none + succeeded + failed) " certificates" }
        dt { "last poll" }
        dd { (succeeded) " succeeded, " (failed) " failed, " (none) " without a result" }
        dt { "waiting polls" }
        dd { (waiting_polls) }
    }
}

fn credentials(credentials: &Credentials, circuit: &Circuit, now: Time) -> Markup {
    let Credentials { source, reload_failing, exchange, in_use, pending } = credentials;
    let mood = if in_use.is_none() && pending.is_none() { Mood::Bad } else { Mood::Plain };
    html! {
        div {
            h3 { "Credentials" }
            dl {
                dt { "source" }
                dd { (source) }
                (reload(*reload_failing))
                (self::exchange(exchange.as_ref(), now))
                dt { "circuit" }
                dd { (self::circuit(circuit, now)) }
                dt { "in use" }
                dd { (version(in_use.as_ref(), mood, now)) }
                dt { "pending" }
                dd { (version(pending.as_ref(), Mood::Plain, now)) }
            }
        }
    }
}

/// Shows the last exchange for temporary credentials. Shows nothing for permanent ones.
fn exchange(exchange: Option<&Exchange>, now: Time) -> Markup {
    let Some(Exchange { last_at, last_outcome, next_at }) = exchange else { return html! {} };
    let mood = match last_outcome {
        None => Mood::Plain,
        Some(outcome) if outcome.is_failure() => Mood::Bad,
        Some(_) => Mood::Good,
    };
    html! {
        dt { "last exchange" }
        dd {
            (shown(mood, last_outcome.map_or("none", ExchangeOutcome::name)))
            (at(",", *last_at, now)) (at(", next", *next_at, now))
        }
    }
}

/// Shows one version of credentials, or in this mood that there is none.
fn version(version: Option<&CredentialsVersion>, without: Mood, now: Time) -> Markup {
    let Some(version) = version else { return shown(without, "none") };
    let CredentialsVersion { loaded_at, age_seconds, expires_at, trust, suspended_until, last_rejected_at } = version;
    let mood = match trust {
        Trust::Unverified => Mood::Plain,
        Trust::Verified => Mood::Good,
        Trust::Suspect | Trust::ProbeDue | Trust::Probing => Mood::Wait,
        Trust::Suspended => Mood::Bad,
    };
    html! {
        (shown(mood, &name(trust))) (due(*trust == Trust::ProbeDue)) (at(", until", *suspended_until, now))
        ", loaded " time datetime=(loaded_at.to_string()) title=(loaded_at) { (span(*age_seconds)) " ago" }
        (at(", expires", *expires_at, now))
        (at(", last rejected", *last_rejected_at, now))
    }
}

fn circuit(circuit: &Circuit, now: Time) -> Markup {
    let Circuit { state, since, until } = circuit;
    let mood = match state {
        CircuitState::Closed => Mood::Good,
        CircuitState::ProbeDue | CircuitState::HalfOpen => Mood::Wait,
        CircuitState::Open => Mood::Bad,
    };
    html! {
        (shown(mood, &name(state))) (due(*state == CircuitState::ProbeDue))
        (at(", opened", *since, now)) (at(", next probe", *until, now))
    }
}

/// Says what a due probe is.
fn due(is_due: bool) -> Markup {
    html! { @if is_due { ", the next call is the probe" } }
}

/// Returns the name of a state in the JSON.
fn name(state: &impl Serialize) -> String {
    let value = serde_json::to_value(state).expect("a state is a text");
    value.as_str().unwrap_or_default().to_owned()
}
