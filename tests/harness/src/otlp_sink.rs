//! An OTLP collector in the process: takes traces by gRPC or HTTP and keeps them.

#![allow(dead_code, unreachable_pub, reason = "shared: not everybody who has a collector asks it everything")]

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

/// The collector. Clones are the same one.
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
    /// For OTLP/gRPC.
    pub async fn grpc() -> Self {
        let (sink, listener) = Self::bind().await;
        let service = TraceServiceServer::new(sink.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        sink
    }

    /// For OTLP/HTTP, at any path.
    pub async fn http() -> Self {
        let (sink, listener) = Self::bind().await;
        let taking = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = taking.clone();
                let service = service_fn(move |request| take(sink.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        sink
    }

    async fn bind() -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (Self { address: listener.local_addr().unwrap(), received: watch::Sender::default() }, listener)
    }

    /// The spans of a trace, once there are `count` of them.
    pub async fn trace(&self, trace_id: &str, count: usize) -> Vec<Span> {
        let of_trace = |received: &Received| -> Vec<Span> {
            received.spans.iter().filter(|span| hex(&span.trace_id) == trace_id).cloned().collect()
        };
        let mut receiver = self.received.subscribe();
        let received = receiver.wait_for(|received| of_trace(received).len() >= count).await.unwrap();
        of_trace(&received)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.received.borrow().spans.clone()
    }

    /// The `service.name` of what came last.
    pub fn service_name(&self) -> String {
        self.received.borrow().service_name.clone()
    }

    fn keep(&self, request: ExportTraceServiceRequest) {
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
        self.keep(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn take(sink: Sink, request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let traces = request.uri().path() == "/v1/traces";
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if traces {
        sink.keep(ExportTraceServiceRequest::decode(body).unwrap());
    }
    Ok(Response::new(Full::default()))
}

/// Lower-case hex, as ids are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An attribute of a span, as text with its type.
pub fn attribute(span: &Span, name: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => format!("int {number}"),
        other => format!("{other:?}"),
    })
}
