//! What answers without end cost: the real binary's peak of memory, as the system counts it. Over TLS, as SCM is reached:
//! a flood of interim answers in plain text keeps hyper busy for some 50 MB on end.

use scm_emulator::{Emulator, Options, Step, Tls};
use tonic::Code;

use super::{SUCCESS, head, raw};
use crate::harness::{client, folder::Folder, process::Process, sample, seen};

#[tokio::test]
async fn answers_without_end_cost_at_most_32_mib() {
    let tls = Tls::generate();
    let folder = Folder::new();
    let ca = folder.file("ca.pem", &tls.ca_pem());
    let emulator = Emulator::start(Options { tls: Some(tls), ..Options::default() }).await.unwrap();
    let variables = [("SCM_GATEWAY__UPSTREAM__TIMEOUT", "2s"), ("SCM_GATEWAY__UPSTREAM__CA_FILE", ca.as_str())];
    let process = Process::start(&emulator.endpoint(), &variables).await;
    let mut client = client(&process.address).await;
    for _ in 0..20 {
        client.save_info(sample()).await.unwrap();
    }
    let idle = process.peak_memory();

    let (blanks, chunked) = (vec![b' '; 64 * 1024], "Transfer-Encoding: chunked");
    let chunk = [b"10000\r\n", blanks.as_slice(), b"\r\n"].concat();
    let endless = |head: &str, chunk: Vec<u8>| Step::Endless { head: head.into(), chunk };
    let (internal, large, malformed) = (Code::Internal, "UPSTREAM_TOO_LARGE", "UPSTREAM_MALFORMED");
    for (what, step, code, reason) in [
        ("length", endless(&head("Content-Length: 104857600"), blanks.clone()), internal, large),
        ("no length", endless(&head("X: y"), blanks), internal, large),
        ("chunks", endless(&head(chunked), chunk), internal, large),
        ("chunk extension", endless(&(head(chunked) + "1;"), vec![b'x'; 4096]), internal, malformed),
        ("trailers", endless(&(head(chunked) + "0\r\n"), b"X: y\r\n".repeat(1000)), internal, malformed),
        ("header", endless("HTTP/1.1 200 OK\r\nX: ", vec![b'x'; 4096]), internal, malformed),
        ("headers", raw(head(&("X: y\r\n".repeat(10_000) + "Content-Length: 26")) + SUCCESS), internal, malformed),
        (
            "interim answers",
            endless("", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000)),
            Code::DeadlineExceeded,
            "DEADLINE",
        ),
    ] {
        for _ in 0..2 {
            emulator.script(step.clone());
            let status = client.save_info(sample()).await.unwrap_err();
            let seen = seen(&status);
            assert_eq!((seen.code, seen.reason.as_str()), (code, reason), "{what}");
            client.save_info(sample()).await.unwrap();
        }
        let grown = process.peak_memory().saturating_sub(idle);
        assert!(grown <= 32 * 1024, "{grown} KiB more after: {what}");
    }
}
