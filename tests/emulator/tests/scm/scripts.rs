//! Scripted steps by an id in the path, and by the name of an operation.

use serde_json::json;

use crate::client::{ManualClock, start};
use crate::life::ID;
use crate::operations::{CSR_ID, invoke};
use scm_emulator::{Emulator, Options, Reply, SAMPLE_PROJECT, Step};

#[tokio::test]
async fn a_step_is_for_an_id_or_an_operation() {
    let emulator = start().await;
    let step = |status| Step::Reply(Reply::json(status, "{}"));
    emulator.seed_csr(CSR_ID, "shop.example.com");
    for (key, name, arguments) in [
        (ID, "ShowCertificate", json!({"certificate_id": ID})),
        (ID, "ListTagsByCertificate", json!({"resource_id": ID})),
        (ID, "ReadInfo", json!({"cert_id": ID})),
        (CSR_ID, "ShowCsr", json!({"id": CSR_ID})),
        ("ListCsr", "ListCsr", json!({})),
        ("ListAllTags", "ListAllTags", json!({})),
        ("ListProductTypes", "ListProductTypes", json!({})),
        ("EnableNotification", "EnableNotification", json!({"items": []})),
    ] {
        emulator.script_for(key, step(503));
        assert_eq!(invoke(&emulator, "ListCertificates", json!({})).await.status, 200, "{name}");
        assert_eq!(invoke(&emulator, name, arguments.clone()).await.status, 503, "{name}");
        assert_ne!(invoke(&emulator, name, arguments).await.status, 503, "{name}");
    }
    // The step of an id goes before that of the operation.
    emulator.script_for("ShowCertificate", step(502));
    emulator.script_for(ID, step(503));
    for status in [503, 502, 200] {
        assert_eq!(invoke(&emulator, "ShowCertificate", json!({"certificate_id": ID})).await.status, status);
    }
    emulator.script_for(SAMPLE_PROJECT, step(503));
    assert_eq!(invoke(&emulator, "ListProductTypes", json!({})).await.status, 200);
    assert!(emulator.take_unused(SAMPLE_PROJECT).is_some());
}

#[tokio::test]
async fn the_options_have_steps_of_operations() {
    let steps = vec![("ListCsr".to_owned(), Step::Reply(Reply::new(429)))];
    let emulator = Emulator::start(Options { steps, ..ManualClock::default().options() }).await.unwrap();
    for _ in 0..2 {
        assert_eq!(invoke(&emulator, "ListCsr", json!({})).await.status, 429);
    }
    assert_eq!(emulator.journal().len(), 2);
}
