//! The pages for operators on the admin port: the status, its schema, the configuration, and who may read them.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use scm_emulator::{Emulator, Options, Reply, SAMPLE_PROJECT, Step};
use scm_gateway::{
    clock::Clock,
    proto::{SaveInfoRequest, WatchCertificateRequest},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::harness::{
    CERT, Gateway, METADATA_ENDPOINT, Refusing, emulator, environment,
    folder::Folder,
    in_flight, metadata_service,
    otlp_sink::Sink,
    pki::{Authority, uri},
    process::binary,
    sample, until,
};

const SCHEMA: &str = include_str!("../../docs/status.schema.json");
const CALLER: &str = "spiffe://example.org/ns/web/sa/p1anted";
const PAGES: [&str; 5] = ["/", "/config", "/docs/runbook.md", "/docs/status.md", "/status"];

/// Returns the schema of a field: what it refers to, if that is elsewhere.
fn resolved(schema: &Value) -> Value {
    let whole = || serde_json::from_str::<Value>(SCHEMA).unwrap();
    match schema["$ref"].as_str().and_then(|target| target.strip_prefix('#')) {
        Some(pointer) => whole().pointer(pointer).unwrap().clone(),
        None => schema.clone(),
    }
}

/// Compares an answer with its schema, and collects the fields that it has.
struct Validator(BTreeSet<String>);

impl Validator {
    /// # Panics
    ///
    /// At a value that the schema does not describe, naming its `path`.
    fn check(&mut self, schema: &Value, value: &Value, path: &str) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        assert!(schema["description"].as_str().is_some_and(|text| text.ends_with('.')), "{path} has no description");
        let schema = resolved(schema);
        let kinds = &schema["type"];
        let is_allowed = kinds == kind || kinds.as_array().is_some_and(|kinds| kinds.contains(&json!(kind)));
        assert!(is_allowed, "{path} is {value}, and the schema expects {kinds}");
        if let Some(words) = schema["enum"].as_array() {
            assert!(words.contains(value), "{path} is {value}, and the schema expects one of {words:?}");
        }
        match value {
            Value::String(text) if schema["format"] == "date-time" => {
                assert!(text.ends_with('Z') && humantime::parse_rfc3339(text).is_ok(), "{path}: {text}");
            }
            Value::Number(number) if schema["minimum"] == 0 => assert!(number.is_u64(), "{path}: {number}"),
            Value::Array(values) => {
                values.iter().for_each(|value| self.check(&schema["items"], value, &format!("{path}[]")));
            }
            Value::Object(fields) => {
                let described = schema["properties"].as_object().unwrap();
                let required: Vec<_> =
                    schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
                assert!(
                    described.keys().all(|name| required.contains(&name.as_str())),
                    "{path}: every field is required"
                );
                assert!(fields.keys().eq(described.keys()), "{path}: {fields:?}");
                for (name, value) in fields {
                    self.0.insert(format!("{path}.{name}"));
                    self.check(&described[name], value, &format!("{path}.{name}"));
                }
            }
            _ => {}
        }
    }
}

/// Returns all fields that a schema describes.
fn described(schema: &Value, path: &str) -> BTreeSet<String> {
    let schema = resolved(schema);
    let fields = schema["properties"].as_object().into_iter().flatten();
    let mut all: BTreeSet<_> = fields
        .flat_map(|(name, field)| {
            let path = format!("{path}.{name}");
            described(field, &path).into_iter().chain([path])
        })
        .collect();
    if let Some(items) = schema.get("items") {
        all.extend(described(items, &format!("{path}[]")));
    }
    all
}

/// Returns the status, which has to match the schema.
async fn status(gateway: &Gateway) -> Value {
    let (code, text) = gateway.admin("/status").await;
    assert_eq!(code, 200);
    let status = serde_json::from_str(&text).unwrap();
    Validator(BTreeSet::new()).check(&serde_json::from_str(SCHEMA).unwrap(), &status, "");
    status
}

async fn project(gateway: &Gateway) -> Value {
    status(gateway).await["projects"][0].take()
}

fn time(value: &Value) -> SystemTime {
    humantime::parse_rfc3339(value.as_str().unwrap_or_else(|| panic!("{value} is no time"))).unwrap()
}

/// Returns the seconds from now until a time of the status.
fn seconds_until(value: &Value) -> f64 {
    let now = SystemTime::now();
    time(value).duration_since(now).map_or_else(|past| -past.duration().as_secs_f64(), |ahead| ahead.as_secs_f64())
}

/// Returns whether two times are the same. Those of the monotonic clock are converted at each request, by the clocks then.
fn is_same_time(one: &Value, other: &Value) -> bool {
    (seconds_until(one) - seconds_until(other)).abs() < 0.1
}

#[tokio::test]
async fn every_documented_field_occurs() {
    let emulator = emulator().await;
    let folder = Folder::new();
    let authority = Authority::new();
    let files = authority.variables(&folder, None);
    let files: Vec<_> = files.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let mut validator = Validator(BTreeSet::new());
    let gateway = Gateway::with(&emulator, &files).await;
    let with_tls: Value = serde_json::from_str(&gateway.admin("/status").await.1).unwrap();
    assert!(seconds_until(&with_tls["listeners"]["tls"]["certificate_expires_at"]) > 0.0);
    validator.check(&schema, &with_tls, "");
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__ATTEMPTS", "1")]).await;
    gateway.save(sample()).await.unwrap();
    emulator.script(Step::Close);
    gateway.save(sample()).await.unwrap_err();
    validator.check(&schema, &serde_json::from_str(&gateway.admin("/status").await.1).unwrap(), "");
    let service = metadata_service(&emulator.issuer()).await;
    service.always(Step::Close);
    let variables = [(METADATA_ENDPOINT, &*service.endpoint())];
    let without_credentials = Gateway::without_access_key(&emulator, &variables).await;
    validator.check(&schema, &serde_json::from_str(&without_credentials.admin("/status").await.1).unwrap(), "");
    assert_eq!(validator.0, described(&schema, ""));
}

#[tokio::test]
async fn process_and_load_are_shown() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let before = status(&gateway).await;
    assert_eq!((&before["ready"], &before["not_ready_reason"]), (&json!(true), &Value::Null));
    assert_eq!(before["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(before["listeners"]["grpc"], gateway.addresses.server);
    assert_eq!(before["listeners"]["admin"], gateway.addresses.admin.to_string());
    assert_eq!(before["listeners"]["tls"], Value::Null);
    assert_eq!(before["connections"]["open"], 0);
    let uptime = time(&before["now"]).duration_since(time(&before["started_at"])).unwrap();
    assert!(uptime.as_secs().abs_diff(before["uptime_seconds"].as_u64().unwrap()) <= 1, "{before}");
    assert!(seconds_until(&before["now"]).abs() < 30.0, "{before}");

    let gate = Arc::new(Notify::new());
    let call = in_flight(&emulator, Step::HangThenServe(gate.clone()), gateway.client.clone()).await;
    let during = status(&gateway).await;
    assert_eq!((&during["calls"]["in_flight"], &during["projects"][0]["calls"]["in_flight"]), (&json!(1), &json!(1)));
    assert_eq!((&during["connections"]["open"], &during["connections"]["per_worker"]), (&json!(1), &json!([1])));
    assert!(during["connections"]["memory_bytes"].as_u64().unwrap() > 0, "{during}");
    gate.notify_one();
    call.await.unwrap().unwrap();
    let after = status(&gateway).await;
    assert_eq!((&after["calls"]["in_flight"], &after["projects"][0]["calls"]["in_flight"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn drain_is_shown_with_its_reason() {
    let emulator = emulator().await;
    let mut gateway = Gateway::of(&emulator).await;
    let gate = Arc::new(Notify::new());
    let call = in_flight(&emulator, Step::HangThenServe(gate.clone()), gateway.client.clone()).await;
    gateway.stop();
    until("the drain", || async { status(&gateway).await["not_ready_reason"] == "draining" }).await;
    assert_eq!(status(&gateway).await["calls"]["in_flight"], 1);
    assert!(gateway.admin("/").await.1.contains("not ready: draining"));
    gate.notify_one();
    call.await.unwrap().unwrap();
    gateway.stopped().await;
}

#[tokio::test]
async fn circuit_is_shown_until_a_probe_closes_it() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__UPSTREAM__ATTEMPTS", "1"), ("SCM_GATEWAY__UPSTREAM__CIRCUIT_BACKOFF", "2s")];
    let gateway = Gateway::with(&emulator, &variables).await;
    let closed = json!({"state": "closed", "since": null, "until": null});
    let before = project(&gateway).await;
    assert_eq!((&before["circuits"]["upstream"], &before["last_error"]), (&closed, &Value::Null));
    emulator.scripts((0..7).map(|_| Step::Reply(Reply::new(503))));
    for _ in 0..7 {
        gateway.save(sample()).await.unwrap_err();
    }
    let open = project(&gateway).await;
    let circuit = &open["circuits"]["upstream"];
    assert_eq!(circuit["state"], "open", "{open}");
    assert!(seconds_until(&circuit["until"]) < 2.5 && time(&circuit["since"]) <= time(&circuit["until"]), "{open}");
    assert_eq!(open["circuits"]["credentials"], closed);
    assert_eq!(open["last_error"]["reason"], "UPSTREAM_UNAVAILABLE");
    gateway.save(sample()).await.unwrap_err(); // CIRCUIT_OPEN does not hide the cause
    let (error, first) = (&project(&gateway).await["last_error"], &open["last_error"]);
    assert!(error["reason"] == first["reason"] && is_same_time(&error["at"], &first["at"]), "{error} {first}");

    let metric = async || gateway.metric::<u64>(r#"scm_gateway_circuit_open{circuit="upstream""#).await;
    assert_eq!(metric().await, 1);
    until("the end of the backoff", || async {
        project(&gateway).await["circuits"]["upstream"]["state"] == "probe_due"
    })
    .await;
    let due = project(&gateway).await;
    let expected = json!({"state": "probe_due", "since": circuit["since"], "until": null});
    assert_eq!((&due["circuits"]["upstream"], metric().await), (&expected, 0), "no call is rejected");
    assert!(gateway.admin("/").await.1.contains(">probe_due</span>, the next call is the probe"));
    let gate = Arc::new(Notify::new());
    let probe = in_flight(&emulator, Step::HangThenServe(gate.clone()), gateway.client.clone()).await;
    let half_open = project(&gateway).await;
    assert_eq!(half_open["circuits"]["upstream"]["state"], "half_open");
    assert!(
        is_same_time(&half_open["circuits"]["upstream"]["since"], &circuit["since"]),
        "when it opened: {half_open}"
    );
    assert!((0.0..2.5).contains(&seconds_until(&half_open["circuits"]["upstream"]["until"])), "{half_open}");
    assert_eq!(metric().await, 1, "other calls are rejected");
    gate.notify_one();
    probe.await.unwrap().unwrap();
    assert_eq!(project(&gateway).await["circuits"]["upstream"], closed);
}

#[tokio::test]
async fn errors_of_the_caller_are_not_shown() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.script(Step::Reply(Reply::json(400, r#"{"error_code":"SCM.0010","error_msg":"x"}"#)));
    gateway.save(sample()).await.unwrap_err();
    gateway.save(SaveInfoRequest { cert_id: String::new(), ..sample() }).await.unwrap_err();
    assert_eq!(project(&gateway).await["last_error"], Value::Null);
}

/// Makes a call that its caller cancels after this time.
async fn cancel(gateway: &Gateway, after: Duration) {
    tokio::time::timeout(after, gateway.untimed_client().save_info(sample())).await.unwrap_err();
}

#[tokio::test]
async fn rejection_is_shown_though_its_caller_has_gone() {
    let options = Options { service_time: Duration::from_millis(600), ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let gateway = Gateway::with(&emulator, &[("HUAWEICLOUD_SDK_SK", "wrong")]).await;
    for trust in ["suspect", "suspended"] {
        cancel(&gateway, Duration::from_millis(200)).await;
        until(trust, || async {
            let shown = project(&gateway).await;
            let pending = &shown["credentials"]["pending"];
            let is_later = shown["last_error"]["at"].as_str() >= pending["last_rejected_at"].as_str();
            pending["trust"] == trust && shown["last_error"]["reason"] == "UPSTREAM_CREDENTIALS" && is_later
        })
        .await;
    }
    assert_eq!(emulator.attempts(), 2);
}

#[tokio::test]
async fn hang_is_shown_though_no_caller_waits_for_its_end() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    gateway.save(sample()).await.unwrap();
    emulator.scripts((0..7).map(|_| Step::Hang));
    futures_util::future::join_all((0..7).map(|_| cancel(&gateway, Duration::from_millis(500)))).await;
    until("the circuit to open", || async { project(&gateway).await["circuits"]["upstream"]["state"] == "open" }).await;
    assert_eq!(project(&gateway).await["last_error"]["reason"], "DEADLINE");
}

#[tokio::test]
async fn short_deadline_of_a_caller_is_not_shown() {
    let options = Options { service_time: Duration::from_millis(600), ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let gateway = Gateway::of(&emulator).await;
    for in_use in ["unverified credentials", "verified credentials"] {
        let mut request = tonic::Request::new(sample());
        request.set_timeout(Duration::from_millis(200));
        let status = gateway.untimed_client().save_info(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{in_use}");
        until(in_use, || async { project(&gateway).await["credentials"]["in_use"]["trust"] == "verified" }).await;
        assert_eq!(project(&gateway).await["last_error"], Value::Null, "{in_use}");
    }
    assert_eq!(emulator.attempts(), 2);
}

#[tokio::test]
async fn cooldown_is_shown_until_its_probe() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.script(Step::Reply(Reply::new(429).header("Retry-After", "2")));
    gateway.save(sample()).await.unwrap_err();
    let cooling = project(&gateway).await;
    assert_eq!(cooling["cooldown"]["state"], "active");
    assert!((0.0..=2.0).contains(&seconds_until(&cooling["cooldown"]["until"])), "{cooling}");
    assert_eq!(cooling["last_error"]["reason"], "UPSTREAM_THROTTLED");
    until("the end of the cooldown", || async { project(&gateway).await["cooldown"]["state"] == "probe_due" }).await;
    gateway.save(sample()).await.unwrap();
    assert_eq!(project(&gateway).await["cooldown"], json!({"state": "none", "until": null}));
}

#[tokio::test]
async fn accepted_and_rejected_credentials_are_shown() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let unused = project(&gateway).await;
    assert_eq!(
        (&unused["credentials"]["source"], &unused["credentials"]["in_use"]),
        (&json!("environment"), &Value::Null)
    );
    assert_eq!(unused["credentials"]["pending"]["trust"], "unverified");
    assert_eq!(unused["credentials"]["reload_failing"], false);
    assert!(gateway.admin("/").await.1.contains(">unverified<"), "the page names states as the JSON does");
    gateway.save(sample()).await.unwrap();
    let used = project(&gateway).await;
    assert_eq!(
        (&used["credentials"]["in_use"]["trust"], &used["credentials"]["pending"]),
        (&json!("verified"), &Value::Null)
    );
    assert_eq!(used["credentials"]["in_use"]["last_rejected_at"], Value::Null);

    let gateway = Gateway::with(&emulator, &[("HUAWEICLOUD_SDK_SK", "wrong")]).await;
    gateway.save(sample()).await.unwrap_err();
    let suspect = project(&gateway).await;
    assert_eq!(suspect["credentials"]["pending"]["trust"], "suspect");
    assert_eq!(suspect["circuits"]["credentials"]["state"], "closed");
    gateway.save(sample()).await.unwrap_err();
    let status = status(&gateway).await;
    let suspended = &status["projects"][0];
    let pending = &suspended["credentials"]["pending"];
    assert_eq!(pending["trust"], "suspended", "{suspended}");
    assert!((290.0..=300.0).contains(&seconds_until(&pending["suspended_until"])), "{suspended}");
    assert!((-10.0..=0.0).contains(&seconds_until(&pending["last_rejected_at"])), "{suspended}");
    let circuit = &suspended["circuits"]["credentials"];
    assert_eq!((&circuit["state"], &circuit["until"]), (&json!("open"), &pending["suspended_until"]));
    assert_eq!(circuit["since"], pending["last_rejected_at"]);
    assert_eq!(suspended["circuits"]["upstream"]["state"], "closed");
    assert_eq!(suspended["last_error"]["reason"], "UPSTREAM_CREDENTIALS");
    assert_eq!((&status["ready"], &status["not_ready_reason"]), (&json!(false), &json!("no usable credentials")));
}

/// Starts a gateway whose only source of credentials is the metadata service.
#[tokio::test]
async fn age_and_expiry_of_temporary_credentials_are_shown() {
    let emulator = emulator().await;
    let service = metadata_service(&emulator.issuer()).await;
    service.set_validity(Some(Duration::from_secs(3600)));
    service.always(Step::Close);
    let variables = [(METADATA_ENDPOINT, &*service.endpoint())];
    let gateway = Gateway::without_access_key(&emulator, &variables).await;
    until("the failure", || async { project(&gateway).await["credentials"]["reload_failing"] == true }).await;
    let none = project(&gateway).await;
    let exchange = &none["credentials"]["exchange"];
    assert_eq!(exchange["last_outcome"], "failed");
    assert!((-30.0..=0.0).contains(&seconds_until(&exchange["last_at"])), "{none}");
    let expected = json!({
        "source": "ecs_agency",
        "reload_failing": true,
        "exchange": exchange,
        "in_use": null,
        "pending": null,
    });
    assert_eq!(none["credentials"], expected);
    let page = gateway.admin("/").await.1;
    for shown in ["<span class=\"bad\">failing</span>", "<span class=\"bad\">none</span>"] {
        assert!(page.contains(shown), "{shown} in {page}");
    }
    assert_eq!(none["circuits"]["credentials"]["state"], "closed");
    const AGE: &str = "scm_gateway_credentials_age_seconds{";
    assert!(!gateway.admin("/metrics").await.1.contains(AGE), "no series without credentials");
    service.always(Step::Serve);
    gateway.save(sample()).await.unwrap();
    let loaded = project(&gateway).await;
    assert_eq!(loaded["credentials"]["reload_failing"], false);
    let exchange = &loaded["credentials"]["exchange"];
    assert_eq!(exchange["last_outcome"], "issued");
    assert!((2200.0..=2600.0).contains(&seconds_until(&exchange["next_at"])), "two thirds of the life: {loaded}");
    let in_use = &loaded["credentials"]["in_use"];
    assert!((3500.0..=3600.0).contains(&seconds_until(&in_use["expires_at"])), "{loaded}");
    assert!((-30.0..=0.0).contains(&seconds_until(&in_use["loaded_at"])), "{loaded}");
    assert!(in_use["age_seconds"].as_u64().unwrap() <= 30, "{loaded}");
    assert!((0.0..=30.0).contains(&gateway.metric::<f64>(AGE).await));
}

#[tokio::test]
async fn watches_are_shown_by_their_last_poll() {
    let show = json!({"id": CERT, "status": "PAID"}).to_string();
    let steps = vec![(CERT.to_owned(), Step::Reply(Reply::json(200, &show)))];
    let emulator = Emulator::start(Options { steps, ..Options::default() }).await.unwrap();
    let gateway = Gateway::of(&emulator).await;
    let request = WatchCertificateRequest { project_id: String::new(), cert_id: CERT.into() };
    let mut watches = Vec::new();
    for _ in 0..2 {
        let mut watch = gateway.client.clone().watch_certificate(request.clone()).await.unwrap().into_inner();
        watch.message().await.unwrap().unwrap();
        watches.push(watch);
    }
    let poll = |none, succeeded, failed| json!({"none": none, "succeeded": succeeded, "failed": failed});
    let certificates = async || project(&gateway).await["watches"]["certificates"].take();
    until("the first poll", || async { certificates().await == poll(0, 1, 0) }).await;
    let shown = status(&gateway).await;
    assert_eq!(shown["watches"], json!({"open": 2, "max": 1000}));
    assert_eq!(shown["projects"][0]["watches"]["waiting_polls"], 0);
    drop(watches);
    until("the end of the watches", || async { certificates().await == poll(0, 0, 0) }).await;
}

#[tokio::test]
async fn clock_skew_and_its_correction_are_shown() {
    let emulator = emulator().await;
    let behind = Clock::from_fn(|| SystemTime::now() - Duration::from_secs(1200));
    let gateway = Gateway::start(environment(&emulator.endpoint(), &[]), behind).await;
    gateway.save(sample()).await.unwrap();
    let clock = project(&gateway).await["clock"].take();
    for field in ["skew_seconds", "correction_seconds"] {
        assert!((1198..=1202).contains(&clock[field].as_i64().unwrap()), "{clock}");
    }
}

#[tokio::test]
async fn config_is_what_check_prints() {
    let emulator = emulator().await;
    let variables = [
        ("SCM_GATEWAY__CALLERS__0__IDENTITY", CALLER),
        ("SCM_GATEWAY__CALLERS__0__METHODS", "read"),
        ("SCM_GATEWAY__CALLERS__0__PROJECTS", SAMPLE_PROJECT),
        ("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"),
    ];
    let environment = environment(&emulator.endpoint(), &variables);
    let check = binary(&[]).envs(&environment).arg("--check").output().await.unwrap();
    let printed = String::from_utf8(check.stdout).unwrap();
    let gateway = Gateway::start(environment, Clock::system()).await;
    let (code, listing) = gateway.admin("/config").await;
    assert_eq!((code, listing.clone() + "configuration OK\n"), (200, printed));
    assert!(listing.contains(CALLER) && listing.contains("[REDACTED]"), "{listing}");
    for page in ["/", "/status"] {
        assert!(!gateway.admin(page).await.1.contains(CALLER), "{page} names a caller");
    }
}

/// Returns the status and the headers of a page that is requested under this host.
async fn request(gateway: &Gateway, path: &str, host: &str) -> (u16, reqwest::header::HeaderMap) {
    let url = format!("http://{}{path}", gateway.addresses.admin);
    let response = reqwest::Client::new().get(url).header("host", host).send().await.unwrap();
    (response.status().as_u16(), response.headers().clone())
}

#[tokio::test]
async fn browsers_may_not_embed_cache_or_rebind_the_pages() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    for path in PAGES {
        let (code, headers) = request(&gateway, path, "localhost:9464").await;
        assert_eq!(code, 200, "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(headers[name], value, "{name} of {path}");
        }
        assert!(!headers.contains_key("access-control-allow-origin"));
        assert_eq!(request(&gateway, path, "attacker.example:9464").await.0, 421, "{path}");
    }
}

#[tokio::test]
async fn metrics_on_loopback_are_only_for_local_hosts() {
    const PROBES: [&str; 2] = ["/livez", "/readyz"];
    let emulator = emulator().await;
    for (listen, of_name) in [("127.0.0.1:0", 421), ("[::1]:0", 421), ("0.0.0.0:0", 200)] {
        let variables = [("SCM_GATEWAY__ADMIN__LISTEN", listen), ("SCM_GATEWAY__ADMIN__PAGES", "false")];
        let gateway = Gateway::with(&emulator, &variables).await;
        for host in ["localhost:9464", "127.0.0.1:9464", "[::1]:9464"] {
            let (code, headers) = request(&gateway, "/metrics", host).await;
            assert_eq!(code, 200, "{listen} {host}");
            for (name, value) in [
                ("vary", "accept"),
                ("x-content-type-options", "nosniff"),
                ("cross-origin-resource-policy", "same-origin"),
            ] {
                assert_eq!(headers[name], value, "{name}");
            }
        }
        assert_eq!(request(&gateway, "/metrics", "gateway.monitoring.svc:9464").await.0, of_name, "{listen}");
        for path in PROBES {
            assert_eq!(request(&gateway, path, "gateway.monitoring.svc:9464").await.0, 200, "{listen} {path}");
        }
    }
}

#[tokio::test]
async fn pages_are_on_by_default_on_loopback_only() {
    let emulator = emulator().await;
    for (listen, pages, served) in [
        ("127.0.0.1:0", None, true),
        ("127.0.0.1:0", Some("false"), false),
        ("0.0.0.0:0", None, false),
        ("[::ffff:127.0.0.1]:0", None, true),
        ("0.0.0.0:0", Some("true"), true),
    ] {
        let pages = pages.map(|value| ("SCM_GATEWAY__ADMIN__PAGES", value));
        let variables: Vec<_> = [("SCM_GATEWAY__ADMIN__LISTEN", listen)].into_iter().chain(pages).collect();
        let gateway = Gateway::with(&emulator, &variables).await;
        for path in PAGES {
            assert_eq!(gateway.admin(path).await.0, if served { 200 } else { 404 }, "{variables:?} {path}");
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(gateway.admin(path).await.0, 200, "{variables:?} {path}");
        }
        let expected = if served { PAGES.join(" ") } else { "(admin.pages is off)".to_owned() };
        assert_eq!(gateway.admin("/other").await, (404, format!("/livez /readyz /metrics {expected}\n")));
    }
}

#[tokio::test]
async fn page_needs_nothing_from_elsewhere() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let page = reqwest::get(format!("http://{}/", gateway.addresses.admin)).await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let page = page.text().await.unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("prefers-color-scheme: dark"), "{page}");
    let links: Vec<_> = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(links, ["/", "/status", "/config", "/metrics", "/docs/status.md", "/docs/runbook.md"]);
    for text in ["<script", "src=", "@import", "url("] {
        assert!(!page.contains(text), "{text} in {page}");
    }
}

#[tokio::test]
async fn limits_of_connections_and_the_client_ca_are_shown() {
    let emulator = emulator().await;
    let (authority, folder) = (Authority::new(), Folder::new());
    let files = authority.variables(&folder, Some(&authority.pem));
    let variables = [
        ("SCM_GATEWAY__CALLERS__0__IDENTITY", CALLER),
        ("SCM_GATEWAY__CALLERS__0__METHODS", "read"),
        ("SCM_GATEWAY__CALLERS__0__PROJECTS", "*"),
        ("SCM_GATEWAY__SERVER__MAX_CONNECTIONS", "80"),
        ("SCM_GATEWAY__SERVER__MAX_CONNECTIONS_PER_CALLER", "33"),
        ("SCM_GATEWAY__SERVER__CONNECTION_MEMORY_QUOTA", "7MiB"),
        ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "12"),
        ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT_PER_PROJECT", "11"),
        ("SCM_GATEWAY__WATCH__MAX", "9"),
    ];
    let files = files.iter().map(|(name, value)| (*name, value.as_str()));
    let gateway = Gateway::with(&emulator, &files.chain(variables).collect::<Vec<_>>()).await;
    let address = &gateway.addresses.server;
    let mut channels = Vec::new();
    for name in [CALLER, "spiffe://example.org/x", "spiffe://example.org/y"] {
        let issued = authority.client(vec![uri(name)]);
        channels.push(authority.connect(address, Some(&issued)).await.unwrap());
    }
    until("three connections", || async { status(&gateway).await["connections"]["open"] == 3 }).await;
    let shown = status(&gateway).await;
    let connections = &shown["connections"];
    for (field, value) in
        [("max", 80), ("max_per_caller", 33), ("unlisted", 2), ("max_unlisted", 10), ("memory_quota_bytes", 7 << 20)]
    {
        assert_eq!(connections[field], value, "{field} of {connections}");
    }
    assert_eq!((&shown["calls"]["max"], &shown["projects"][0]["calls"]["max"]), (&json!(12), &json!(11)));
    assert_eq!(shown["watches"]["max"], 9);
    let tls = &shown["listeners"]["tls"];
    assert!(seconds_until(&tls["client_ca_expires_at"]) > 0.0, "{tls}");
}

#[tokio::test]
async fn exports_are_shown_as_the_metrics_count_them() {
    let emulator = emulator().await;
    let sink = Sink::http().await;
    let working = format!("http://{}", sink.address);
    let refusing = Refusing::new();
    let closed = refusing.endpoint();
    for (traces, metrics, spans, exports) in
        [(&working, &closed, "exported", "failed"), (&closed, &working, "failed", "exported")]
    {
        let variables = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{traces}/v1/traces")),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", format!("{metrics}/v1/metrics")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "10".to_owned()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "100".to_owned()),
        ];
        let variables = variables.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>();
        let gateway = Gateway::with(&emulator, &variables).await;
        gateway.save(sample()).await.unwrap();
        // The span of the call and of its attempt.
        let is_shown = |telemetry: &Value| {
            telemetry["spans"][spans] == 2 && telemetry["metric_exports"][exports].as_u64().unwrap() > 0
        };
        until("the exports", || async { is_shown(&status(&gateway).await["telemetry"]) }).await;
        let shown = status(&gateway).await["telemetry"].take();
        assert_eq!((&shown["spans"]["ended"], &shown["spans"]["lost"]), (&json!(2), &json!(0)), "{shown}");
        for state in ["exported", "failed"] {
            let expected = if state == spans { 2 } else { 0 };
            assert_eq!(shown["spans"][state], expected, "{state} in {shown}");
            assert_eq!(shown["metric_exports"][state] != 0, state == exports, "{state} in {shown}");
            let count: u64 = gateway.metric(&format!("scm_gateway_telemetry_spans_total{{state=\"{state}\"")).await;
            assert_eq!(count, expected, "{state}");
        }
        assert_eq!(shown["log_lines_dropped"], 0);
    }
}
