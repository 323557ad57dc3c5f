//! An OTLP collector in this process. It receives traces over gRPC or HTTP and stores them.

#![allow(dead_code, unreachable_pub, reason = "shared: not every user of the collector needs all methods")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::Read as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use prost::Message as _;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tonic::{codec::CompressionEncoding, transport::Server};

/// The collector. Clones share their spans.
#[derive(Clone)]
pub struct Sink {
    pub address: SocketAddr,
    endpoint: String,
    protocol: &'static str,
    received: watch::Sender<Received>,
    held: watch::Sender<bool>,
    rejects: Arc<AtomicBool>,
}

#[derive(Default)]
pub struct Received {
    pub spans: Vec<Span>,
    /// The headers of each request.
    pub headers: Vec<HeaderMap>,
    /// The resource attributes of the last export.
    pub resource: BTreeMap<String, String>,
}

impl Sink {
    /// Starts a collector of OTLP/gRPC.
    pub async fn grpc() -> Self {
        Self::start(true, None).await
    }

    /// Starts a collector of OTLP/HTTP. Requests to any path succeed.
    pub async fn http() -> Self {
        Self::start(false, None).await
    }

    /// Starts a collector of OTLP/gRPC or OTLP/HTTP, with TLS if it has a configuration.
    pub async fn start(grpc: bool, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sink = Self {
            address,
            endpoint: format!("http://{address}"),
            protocol: if grpc { "grpc" } else { "http/protobuf" },
            received: watch::Sender::default(),
            held: watch::Sender::default(),
            rejects: Arc::default(),
        };
        let receiver = sink.clone();
        let acceptor = tls.map(|mut config| {
            config.alpn_protocols = vec![if grpc { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
            TlsAcceptor::from(Arc::new(config))
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sink, acceptor) = (receiver.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => sink.serve(grpc, stream).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                sink.serve(grpc, stream).await;
                            }
                        }
                    }
                });
            }
        });
        sink
    }

    /// Returns the variables of a gateway that exports its traces here, without TLS.
    pub fn variables(&self) -> [(&str, &str); 3] {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", self.protocol),
            ("OTEL_METRICS_EXPORTER", "none"),
        ]
    }

    async fn serve<S>(self, grpc: bool, stream: S)
    where
        S: AsyncRead + AsyncWrite + tonic::transport::server::Connected + Unpin + Send + 'static,
    {
        if grpc {
            let service = TraceServiceServer::new(self).accept_compressed(CompressionEncoding::Gzip);
            let one = tokio_stream::once(Ok::<_, Infallible>(stream)).chain(tokio_stream::pending());
            let _ = Server::builder().add_service(service).serve_with_incoming(one).await;
        } else {
            let service = service_fn(move |request| receive(self.clone(), request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    }

    /// Answers the next export over HTTP with 503 and does not store it.
    pub fn reject_next(&self) {
        self.rejects.store(true, Relaxed);
    }

    /// Holds the responses to all requests.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Sends the responses that are held.
    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Waits until there were at least `count` requests, and returns their headers.
    pub async fn requests(&self, count: usize) -> Vec<HeaderMap> {
        let mut receiver = self.received.subscribe();
        receiver.wait_for(|received| received.headers.len() >= count).await.unwrap().headers.clone()
    }

    /// Returns the resource attributes of the last export.
    pub fn resource(&self) -> BTreeMap<String, String> {
        self.received.borrow().resource.clone()
    }

    /// Waits until a trace has at least `count` spans, and returns them.
    pub async fn trace(&self, trace_id: &str, count: usize) -> Vec<Span> {
        let of_trace = |received: &Received| -> Vec<Span> {
            received.spans.iter().filter(|span| hex(&span.trace_id) == trace_id).cloned().collect()
        };
        let mut receiver = self.received.subscribe();
        let received = receiver.wait_for(|received| of_trace(received).len() >= count).await.unwrap();
        of_trace(&received)
    }

    /// Returns all spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        self.received.borrow().spans.clone()
    }

    /// Returns the `service.name` of the last export.
    pub fn service_name(&self) -> String {
        self.resource()["service.name"].clone()
    }

    /// Stores an export, and waits while responses are held.
    async fn store(&self, headers: HeaderMap, request: ExportTraceServiceRequest) {
        self.received.send_modify(|received| {
            received.headers.push(headers);
            for resource_spans in request.resource_spans {
                let attributes = resource_spans.resource.unwrap_or_default().attributes;
                let text =
                    |value: Value| if let Value::StringValue(text) = value { text } else { format!("{value:?}") };
                received.resource =
                    attributes.into_iter().filter_map(|a| Some((a.key, text(a.value?.value?)))).collect();
                received.spans.extend(resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        });
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
    }
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let (metadata, _, request) = request.into_parts();
        self.store(metadata.into_headers(), request).await;
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn receive(sink: Sink, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_traces = request.uri().path() == "/v1/traces";
    let (parts, body) = request.into_parts();
    let mut body = body.collect().await.unwrap().to_bytes();
    if parts.headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        let mut decoded = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut decoded).unwrap();
        body = decoded.into();
    }
    if is_traces && sink.rejects.swap(false, Relaxed) {
        return Ok(Response::builder().status(503).body(Full::default()).unwrap());
    }
    if is_traces {
        sink.store(parts.headers, ExportTraceServiceRequest::decode(body).unwrap()).await;
    }
    Ok(Response::new(Full::default()))
}

/// Encodes an id in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns an attribute of a span as text. Integers are prefixed with `int`.
pub fn attribute(span: &Span, name: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => format!("int {number}"),
        other => format!("{other:?}"),
    })
}
