//! Sockets, handshakes, and requests that are invalid for every method.

use scm_gateway::proto::SaveInfoRequest;
use tonic::{Code, Request};

use crate::harness::{Gateway, emulator, folder::Folder, framed, sample};

#[tokio::test]
async fn message_over_the_limit_is_resource_exhausted() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let request = SaveInfoRequest { cert_id: "x".repeat(256 * 1024), ..sample() };
    let status = gateway.save(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("max_message_size"), "{status:?}");
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn malformed_timeout_is_rejected_at_once() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let mut request = Request::new(sample());
    request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let status = gateway.client.clone().save_info(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "grpc-timeout is malformed"));
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn unix_socket_serves_calls() {
    let emulator = emulator().await;
    let folder = Folder::new();
    let path = folder.0.path().join("socket");
    // A process that died left its socket behind, which is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listen = format!("unix:{}", path.display());
    let mut gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__LISTEN", &listen)]).await;
    assert_eq!(gateway.addresses.server, listen);
    gateway.save(sample()).await.unwrap();
    gateway.stop();
    gateway.stopped().await;
    assert!(!path.exists(), "the socket is removed with the listener");
}

#[tokio::test]
async fn unix_socket_in_use_is_not_replaced() {
    let emulator = emulator().await;
    let folder = Folder::new();
    let path = folder.0.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let listen = format!("unix:{}", path.display());
    let environment = crate::harness::environment(&emulator.endpoint(), &[("SCM_GATEWAY__SERVER__LISTEN", &listen)]);
    let config = scm_gateway::config::load(None, &environment, &scm_gateway::clock::Clock::system()).unwrap();
    let (started, _addresses) = tokio::sync::oneshot::channel();
    let error = scm_gateway::run(
        config,
        scm_gateway::runtime::Workers::current(),
        scm_gateway::clock::Clock::system(),
        started,
        async {},
    )
    .await
    .unwrap_err();
    assert!(error.to_string().starts_with("server.listen: cannot listen on unix:"), "{error}");
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
}

#[tokio::test]
async fn non_grpc_request_gets_an_http_status() {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    use prost::Message as _;
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let framed = framed(0, &sample().encode_to_vec());
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<bytes::Bytes>>();
    let uri = format!("http://{}/huaweicloud.scm.v1.CertificateService/SaveInfo", gateway.addresses.server);
    for (method, content_type, status) in [
        ("GET", "application/grpc", 405),
        ("PUT", "application/grpc", 405),
        ("POST", "application/json", 415),
        ("POST", "text/plain", 415),
        ("POST", "application/grpc", 200),
    ] {
        let request = http::Request::builder().method(method).uri(&uri).header("content-type", content_type);
        let response = client.request(request.body(Full::from(framed.clone())).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {content_type}");
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(emulator.attempts(), 1, "only the last one was a call");
}

#[tokio::test]
async fn incomplete_http2_handshake_is_closed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__HANDSHAKE_TIMEOUT", "100ms")]).await;
    for start in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut stream = tokio::net::TcpStream::connect(&gateway.addresses.server).await.unwrap();
        stream.write_all(start).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await; // ends, by a close or a reset
    }
    gateway.save(sample()).await.expect("a complete connection stays open");
}

#[tokio::test]
async fn headers_over_the_limit_are_rejected() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let mut request = Request::new(sample());
    request.metadata_mut().insert("x-long", "x".repeat(16 * 1024).parse().unwrap());
    gateway.client.clone().save_info(request).await.unwrap_err();
    assert_eq!(emulator.attempts(), 0);
    gateway.save(sample()).await.unwrap();
}

#[tokio::test]
async fn second_message_of_a_unary_call_is_unimplemented() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let mut grpc = tonic::client::Grpc::new(gateway.channel().await);
    grpc.ready().await.unwrap();
    let path = "/huaweicloud.scm.v1.CertificateService/SaveInfo".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<SaveInfoRequest, scm_gateway::proto::SaveInfoResponse>::default();
    let messages = Request::new(tokio_stream::iter([sample(), sample()]));
    let status = grpc.client_streaming(messages, path, codec).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "a unary call has exactly one message"));
    assert_eq!(emulator.attempts(), 0);
}
