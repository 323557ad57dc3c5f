//! `WatchCertificate`: the stream of a certificate's states. `build.rs` names this module.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, future::OptionFuture, stream};
use opentelemetry::{
    Context,
    trace::{SpanKind, Status as SpanStatus, TraceContextExt as _, Tracer as _},
};
use tokio::time::sleep_until;

use super::{Gateway, Outbound, Responses};
use crate::{
    clock,
    config::{self, Config},
    error::{Error, Progress, Reason},
    grpc::{
        auth::Caller,
        context::{CallContext, Draining},
        layer::catch_panic::PanicHandler,
        limit::watches::{WatchLimit, WatchPermit},
    },
    ops::{
        status as page,
        telemetry::{Telemetry, attribute, with_span},
    },
    proto::{
        Certificate, ShowCertificateRequest, ShowCertificateResponse, WatchCertificateRequest, WatchCertificateResponse,
    },
    scm::{api::methods::ShowCertificate, client::CallOptions},
    validate,
    watch::{Hub, Key, Limits, Poll, PollCounts, Watch},
};

/// The name of a poll's span.
const SPAN: &str = "watch poll";

/// The polls of a project that may be in flight at the same time, unless half of the permits for calls are fewer.
const MAX_POLLS: usize = 16;

/// What all watches share.
pub(super) struct Watches {
    hub: Hub<Polls>,
    limit: WatchLimit,
    panics: PanicHandler,
}

impl Watches {
    pub(super) fn new(outbound: Arc<Outbound>, config: &Config, telemetry: &Arc<Telemetry>) -> Self {
        let meter = &telemetry.meter;
        let projects: Vec<_> = outbound.upstream.projects().iter().map(|project| project.id.clone()).collect();
        let callers = config.callers.iter().map(|caller| caller.identity.as_str().into()).collect();
        let max_polls = max_polls(&config.server, projects.len());
        let limits = Limits { projects, callers, max_polls };
        let polls = Polls { outbound, telemetry: telemetry.clone() };
        Self {
            hub: Hub::new(polls, config.watch.interval, limits, meter),
            limit: WatchLimit::new(&config.watch, meter),
            panics: PanicHandler::new(meter),
        }
    }

    /// Returns the open watches, for the status page.
    pub(super) fn status(&self) -> page::Watches {
        self.limit.status()
    }

    /// Returns the watched certificates of one project, for the status page.
    pub(super) fn project_status(&self, id: &str) -> page::ProjectWatches {
        let PollCounts { none, succeeded, failed, waiting_polls } = self.hub.counts(id);
        page::ProjectWatches { certificates: page::LastPolls { none, succeeded, failed }, waiting_polls }
    }
}

/// Returns how many polls of one project may be in flight: at least one, and if more, so few that polls leave half of the
/// permits to calls.
fn max_polls(server: &config::Server, projects: usize) -> usize {
    let of_all = server.max_in_flight / 2 / projects.max(1);
    let of_project = server.max_in_flight_per_project / 2;
    of_all.min(of_project).clamp(1, MAX_POLLS)
}

/// Opens the responses of a call, or returns `None` for a dry run. They hold no permit of `max_in_flight`, because they wait
/// most of the time.
pub(super) fn open(
    gateway: &Gateway,
    rpc: &'static str,
    mut message: WatchCertificateRequest,
    call: &Arc<CallContext>,
    draining: Draining,
) -> Result<Option<(Responses<WatchCertificateResponse>, WatchPermit)>, Error> {
    let project = gateway.project(&mut message.project_id);
    let project = gateway.authorize(rpc, call, project, Some(("cert_id", &message.cert_id)))?;
    if call.dry_run().requested()? {
        validate::check(message)?;
        return Ok(None);
    }
    let Watches { hub, limit, panics } = &gateway.0.watches;
    let permit = limit.try_acquire(call.caller())?;
    let checked = validate::check(message)?;
    let key = Key { project_id: project.id.clone(), cert_id: checked.cert_id.as_str().into() };
    let watch = hub.watch(key, call.caller().identity());
    let states = States { watch, call: call.clone(), draining, panics: panics.clone() };
    let responses = stream::unfold(states, |mut states| async move { Some((Ok(states.next().await?), states)) });
    Ok(Some((responses.boxed(), permit)))
}

/// The states that one caller sees.
struct States<P> {
    watch: Watch<P>,
    call: Arc<CallContext>,
    draining: Draining,
    panics: PanicHandler,
}

impl<P> States<P> {
    /// Returns the next response. At the end, the context has the error, if there is one.
    async fn next(&mut self) -> Option<WatchCertificateResponse> {
        let next = AssertUnwindSafe(self.next_state()).catch_unwind().await;
        match next.unwrap_or_else(|_| Some(Err(Error::new(Reason::Panic, Progress::MaybeSent))))? {
            Ok(certificate) => Some(WatchCertificateResponse { certificate: Some(certificate) }),
            Err(error) => {
                if error.reason == Reason::Panic {
                    self.panics.count();
                }
                self.call.set_stream_error(error);
                None
            }
        }
    }

    async fn next_state(&mut self) -> Option<Result<Certificate, Error>> {
        let deadline = self.call.caller_deadline().map(|deadline| Box::pin(sleep_until(deadline)));
        tokio::select! {
            biased; // a state that is known goes out before the end
            next = self.watch.next_state() => next,
            () = self.draining.0.cancelled() => Some(Err(Error::new(Reason::ShuttingDown, Progress::NotSent))),
            Some(()) = OptionFuture::from(deadline) => Some(Err(Error::new(Reason::Deadline, Progress::NotSent))),
        }
    }
}

/// Polls certificates by ShowCertificate, with permits of the gateway itself and not of a caller.
struct Polls {
    outbound: Arc<Outbound>,
    telemetry: Arc<Telemetry>,
}

impl Poll for Polls {
    async fn poll(&self, key: &Key) -> Result<Certificate, Error> {
        let Outbound { upstream, .. } = &*self.outbound;
        let project = upstream.projects().get(&key.project_id).expect("only configured projects are watched");
        let tracer = &self.telemetry.tracer;
        let root = Context::new();
        let span = tracer.span_builder(SPAN).with_kind(SpanKind::Internal).start_with_context(tracer, &root);
        let trace = with_span(&root, span);
        let request =
            ShowCertificateRequest { project_id: key.project_id.to_string(), cert_id: key.cert_id.to_string() };
        let options = CallOptions { deadline: clock::monotonic() + upstream.timeout(), parent: &trace };
        let reply = self.outbound.call::<ShowCertificate>(request, project, &Caller::default(), &options).await;
        let certificate = reply.and_then(|reply| {
            let attempts = reply.attempts;
            let certificate = reply.into_reply::<ShowCertificateResponse>().certificate.unwrap_or_default();
            // Every certificate has a status. Without this, a half-working SCM would seem to have changed it.
            if certificate.status.is_empty() {
                let cause = Some("certificate without a status");
                return Err(Error { cause, attempts, ..Error::new(Reason::UpstreamError, Progress::Answered) });
            }
            Ok(certificate)
        });
        if let Err(error) = &certificate {
            let reason = error.reason.name();
            trace.span().set_attribute(opentelemetry::KeyValue::new(attribute::SCM_REASON, reason));
            trace.span().set_status(SpanStatus::error(""));
        }
        certificate
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, future::pending, sync::Arc, time::Duration};

    use opentelemetry::{Context, metrics::MeterProvider as _};
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use tokio_util::sync::CancellationToken;

    use super::{CallContext, Caller, Draining, Limits, PanicHandler, States};
    use crate::{
        clock,
        error::{Error, Reason},
        grpc::dry_run::DryRun,
        proto::Certificate,
        watch::{Hub, Key, Poll},
    };

    /// A poll that hangs or panics.
    enum Defective {
        Hangs,
        Panics,
    }

    impl Poll for Defective {
        async fn poll(&self, _: &Key) -> Result<Certificate, Error> {
            match self {
                Self::Hangs => pending().await,
                Self::Panics => panic!("marker"),
            }
        }
    }

    /// Reads a watch to its end. Returns why it has ended, and how many panics were counted.
    async fn end_of(poll: Defective, timeout: Option<Duration>, draining: CancellationToken) -> (Option<Reason>, f64) {
        let registry = prometheus::Registry::new();
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
        let meters = SdkMeterProvider::builder().with_reader(reader).build();
        let meter = meters.meter("test");
        let interval = Duration::from_secs(30);
        let call = Arc::new(CallContext::new(clock::monotonic(), Context::new(), Caller::default(), DryRun::No));
        timeout.into_iter().for_each(|timeout| call.set_timeout(timeout));
        let limits = Limits { projects: vec!["p".into()], callers: BTreeSet::new(), max_polls: 1 };
        let hub = Hub::new(poll, interval, limits, &meter);
        let mut states = States {
            watch: hub.watch(Key { project_id: "p".into(), cert_id: "c".into() }, None),
            call: call.clone(),
            draining: Draining(draining),
            panics: PanicHandler::new(&meter),
        };
        assert!(states.next().await.is_none());
        let metrics = registry.gather();
        let panics = metrics.iter().find(|family| family.name() == "scm_gateway_panics_total").unwrap();
        (call.stream_error().map(|error| error.reason), panics.get_metric()[0].get_counter().get_value())
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_at_the_callers_deadline() {
        let started = clock::monotonic();
        let end = end_of(Defective::Hangs, Some(Duration::from_secs(3600)), CancellationToken::new()).await;
        assert_eq!(end, (Some(Reason::Deadline), 0.0));
        assert!((3599..=3600).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_when_its_connection_drains() {
        let draining = CancellationToken::new();
        let cancel = draining.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            cancel.cancel();
        });
        assert_eq!(end_of(Defective::Hangs, None, draining).await, (Some(Reason::ShuttingDown), 0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_a_poll_ends_the_watch_and_is_counted() {
        assert_eq!(end_of(Defective::Panics, None, CancellationToken::new()).await, (Some(Reason::Panic), 1.0));
    }
}
