//! Peak memory of the binary during endless responses. Over TLS, like SCM: a flood of interim responses in plain text
//! keeps hyper busy for about 50 MB without a pause.

use scm_emulator::{Emulator, Options, Step, Tls};
use tonic::Code;

use super::{SUCCESS, head, raw};
use crate::harness::{client, folder::Folder, process::Process, sample, seen};

#[tokio::test]
async fn endless_responses_cost_at_most_32_mib() {
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

    let spaces = vec![b' '; 64 * 1024];
    let chunked = "Transfer-Encoding: chunked";
    let chunk = [b"10000\r\n", spaces.as_slice(), b"\r\n"].concat();
    let endless = |head: &str, chunk: Vec<u8>| Step::Endless { head: head.into(), chunk };
    let internal = Code::Internal;
    let large = "UPSTREAM_TOO_LARGE";
    let malformed = "UPSTREAM_MALFORMED";
    for (case, step, code, reason) in [
        ("length", endless(&head("Content-Length: 104857600"), spaces.clone()), internal, large),
        ("no length", endless(&head("X: y"), spaces), internal, large),
        ("chunks", endless(&head(chunked), chunk), internal, large),
        ("chunk extension", endless(&(head(chunked) + "1;"), vec![b'x'; 4096]), internal, malformed),
        ("trailers", endless(&(head(chunked) + "0\r\n"), b"X: y\r\n".repeat(1000)), internal, malformed),
        ("header", endless("HTTP/1.1 200 OK\r\nX: ", vec![b'x'; 4096]), internal, malformed),
        ("headers", raw(head(&("X: y\r\n".repeat(10_000) + "Content-Length: 26")) + SUCCESS), internal, malformed),
        (
            "interim responses",
            endless("", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000)),
            Code::DeadlineExceeded,
            "DEADLINE",
        ),
    ] {
        for _ in 0..2 {
            emulator.script(step.clone());
            let status = client.save_info(sample()).await.unwrap_err();
            let seen = seen(&status);
            assert_eq!((seen.code, seen.reason.as_str()), (code, reason), "{case}");
            client.save_info(sample()).await.unwrap();
        }
        let grown = process.peak_memory().saturating_sub(idle);
        assert!(grown <= 32 * 1024, "{grown} KiB more after: {case}");
    }
}
