//! An OTLP collector in this process. It receives traces over gRPC or HTTP and stores them.

#![allow(dead_code, unreachable_pub, reason = "shared: not every user of the collector needs all methods")]

use std::{convert::Infallible, net::SocketAddr};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
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
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// The collector. Clones share their spans.
#[derive(Clone)]
pub struct Sink {
    pub address: SocketAddr,
    received: watch::Sender<Received>,
}

#[derive(Default)]
pub struct Received {
    pub spans: Vec<Span>,
    pub service_name: String,
}

impl Sink {
    /// Starts a collector of OTLP/gRPC.
    pub async fn grpc() -> Self {
        let (sink, listener) = Self::bind().await;
        let service = TraceServiceServer::new(sink.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        sink
    }

    /// Starts a collector of OTLP/HTTP. Requests to any path succeed.
    pub async fn http() -> Self {
        let (sink, listener) = Self::bind().await;
        let receiver = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = receiver.clone();
                let service = service_fn(move |request| receive(sink.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        sink
    }

    async fn bind() -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (Self { address: listener.local_addr().unwrap(), received: watch::Sender::default() }, listener)
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
        self.received.borrow().service_name.clone()
    }

    fn store(&self, request: ExportTraceServiceRequest) {
        self.received.send_modify(|received| {
            for resource_spans in request.resource_spans {
                let attributes = resource_spans.resource.unwrap_or_default().attributes;
                let name = attributes.into_iter().find(|a| a.key == "service.name").and_then(|a| a.value?.value);
                if let Some(Value::StringValue(name)) = name {
                    received.service_name = name;
                }
                received.spans.extend(resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        });
    }
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.store(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn receive(sink: Sink, request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let is_traces = request.uri().path() == "/v1/traces";
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if is_traces {
        sink.store(ExportTraceServiceRequest::decode(body).unwrap());
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
