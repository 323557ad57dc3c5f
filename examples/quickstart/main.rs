//! Runs the gateway in front of an emulated SCM, takes a certificate from its application until it is issued, and shows
//! each call.
//!
//! `cargo run --example quickstart` then ends. With `-- --serve` the gateway keeps running for further calls.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "an example that prints, and panics on errors"
)]

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use scm_emulator::{Emulator, Options, SAMPLE_ACCESS_KEY, SAMPLE_PROJECT, SAMPLE_SECRET_KEY};
use scm_gateway::{
    app::run, clock::Clock, config, grpc::service::certificate_service_client::CertificateServiceClient,
    runtime::Workers,
};
use tokio::sync::oneshot;
use tonic::transport::Channel;

use scm_harness::otlp_sink::Sink;

mod output;
mod story;

use story::{ISSUED, PAID, Story};

#[tokio::main]
async fn main() {
    let serve = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--serve" => true,
        _ => {
            println!("usage: cargo run --example quickstart [-- --serve]");
            std::process::exit(2);
        }
    };
    let observer: scm_emulator::Observer = Arc::new(move |answered| {
        if serve {
            println!(
                "request to SCM: {} {} -> {:?}",
                answered.method,
                answered.path,
                answered.status.unwrap_or_default()
            );
        }
    });
    let review_step = if serve { Duration::from_secs(5) } else { Duration::from_millis(150) };
    let options = Options { issued: vec![ISSUED.to_owned()], review_step, ..Options::default() };
    let emulator = Emulator::start(options.clone()).await.unwrap();
    let sink = Sink::grpc().await;
    println!("SCM (emulated) listens on {}", emulator.endpoint());
    show(&emulator, &sink).await;
    if serve {
        let emulator = Emulator::start(Options { observer: Some(observer), ..options }).await.unwrap();
        serve_calls(&emulator, sink.address).await;
    } else {
        println!("\nNext: `cargo run --example quickstart -- --serve` keeps running and shows how to call it.");
    }
}

/// Makes the calls of the story and shows each.
async fn show(emulator: &Emulator, sink: &Sink) {
    let (started, addresses) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let gateway =
        tokio::spawn(run(configuration(emulator, sink.address), Workers::current(), Clock::system(), started, async {
            let _ = stopped.await;
        }));
    let address = addresses.await.unwrap().server;
    println!("the gateway listens on {address}");
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let client = CertificateServiceClient::new(channel);
    let mut story = Story { client, emulator, steps: Vec::new() };
    story.tell().await;
    let steps = story.steps;
    stop.send(()).unwrap(); // the shutdown exports the remaining spans
    gateway.await.unwrap().unwrap();
    for (index, step) in steps.iter().enumerate() {
        let spans = sink.trace(&step.trace_id, step.spans).await;
        output::print(index + 1, step, spans);
    }
}

/// Returns the configuration for the emulator and the collector.
fn configuration(emulator: &Emulator, collector: SocketAddr) -> config::Config {
    let environment = BTreeMap::from(
        [
            ("HUAWEICLOUD_SDK_AK", SAMPLE_ACCESS_KEY.to_owned()),
            ("HUAWEICLOUD_SDK_SK", SAMPLE_SECRET_KEY.to_owned()),
            ("HUAWEICLOUD_SDK_PROJECT_ID", SAMPLE_PROJECT.to_owned()),
            ("SCM_GATEWAY__SERVER__LISTEN", "127.0.0.1:0".to_owned()),
            ("SCM_GATEWAY__SERVER__LAME_DUCK", "0s".to_owned()),
            ("SCM_GATEWAY__ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
            ("SCM_GATEWAY__UPSTREAM__ENDPOINT", emulator.endpoint()),
            ("SCM_GATEWAY__WATCH__INTERVAL", "100ms".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
            ("OTEL_METRICS_EXPORTER", "none".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    config::load(None, &environment, &Clock::system()).unwrap()
}

/// Serves calls until Ctrl-C.
async fn serve_calls(emulator: &Emulator, collector: SocketAddr) {
    let (started, addresses) = oneshot::channel();
    let gateway =
        tokio::spawn(run(configuration(emulator, collector), Workers::current(), Clock::system(), started, async {
            let _ = tokio::signal::ctrl_c().await;
        }));
    let addresses = addresses.await.unwrap();
    let address = &addresses.server;
    println!("\n━━━ The gateway serves calls on {address} (admin on http://{}) until Ctrl-C.", addresses.admin);
    println!(
        r#"
Call it from another terminal, with npm:

  npx --yes @bufbuild/buf@1.75.0 curl --protocol grpc --http2-prior-knowledge \
    -d '{{"cert_id": "{PAID}", "info": {{"domain": "www.xzz.com", "country": "CN",
         "applicant_name": "Tom", "applicant_phone": "13212345678", "applicant_email": "9997342346@qq.com",
         "agree_privacy_protection": true}}}}' \
    http://{address}/huaweicloud.scm.v1.CertificateService/SaveInfo

  npx --yes @bufbuild/buf@1.75.0 curl --protocol grpc --http2-prior-knowledge \
    -d '{{"cert_id": "{PAID}"}}' \
    http://{address}/huaweicloud.scm.v1.CertificateService/ReadInfo

or with grpcurl:

  grpcurl -plaintext -d '{{"cert_id": "{PAID}"}}' {address} huaweicloud.scm.v1.CertificateService/ReadInfo

and read its metrics:

  curl http://{admin}/metrics
"#,
        admin = addresses.admin
    );
    gateway.await.unwrap().unwrap();
}
