//! Server reflection, v1 and v1alpha.
//!
//! tonic-reflection's server ends the stream at the first unknown symbol. The reflection protocol wants an error response,
//! after which the stream goes on.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt as _};
use http::Uri;
use prost::Message as _;
use prost_reflect::{DescriptorPool, FileDescriptor, prost_types::FileDescriptorSet};
use tonic::{Code, Request, Response, Status, Streaming, body::Body, server::NamedService};
use tonic_reflection::pb::{
    v1::{
        self, ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
        ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
        server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
        server_reflection_server::{SERVICE_NAME, ServerReflection},
    },
    v1alpha,
};
use tower::Service;

use crate::{grpc::layer::message_size, proto};

/// The services, and what they import.
const DESCRIPTOR_SETS: [&[u8]; 4] = [
    proto::DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    v1::FILE_DESCRIPTOR_SET,
    v1alpha::FILE_DESCRIPTOR_SET,
];

/// Built at the first request, because most instances never get one, and it takes 5 ms and a megabyte.
static INDEX: LazyLock<Index> = LazyLock::new(Index::new);

/// The reflection service.
#[derive(Clone)]
pub(super) struct Reflection;

#[tonic::async_trait]
impl ServerReflection for Reflection {
    type ServerReflectionInfoStream =
        Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send + 'static>>;

    /// Answers one request at a time. The next one is read when its response can be written, so nothing queues up.
    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let responses = requests.into_inner().map(|request| match request {
            Ok(request) => Ok(INDEX.respond(request)),
            Err(status) => Err(message_size::correct_status(status)),
        });
        Ok(Response::new(responses.boxed()))
    }
}

/// All files, and the file of each symbol.
struct Index {
    pool: DescriptorPool,
    symbols: HashMap<String, FileDescriptor>,
}

impl Index {
    fn new() -> Self {
        let mut pool = DescriptorPool::new();
        for set in DESCRIPTOR_SETS {
            pool.decode_file_descriptor_set(set).expect("the descriptor sets are constants");
        }
        pool.add_file_descriptor_set(status_details()).expect("the descriptor set is a constant");
        let symbols = symbols(&pool);
        Self { pool, symbols }
    }

    fn respond(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let response = match &request.message_request {
            Some(requested) => self.look_up(requested),
            None => error(Code::InvalidArgument, "the request has no message_request"),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(response),
        }
    }

    fn look_up(&self, requested: &MessageRequest) -> MessageResponse {
        match requested {
            MessageRequest::FileByFilename(name) => {
                file(self.pool.get_file_by_name(name).as_ref(), "there is no such file")
            }
            MessageRequest::FileContainingSymbol(name) => file(self.symbols.get(name), "there is no such symbol"),
            MessageRequest::FileContainingExtension(extension) => {
                let extended = self.pool.get_message_by_name(&extension.containing_type);
                let number = u32::try_from(extension.extension_number).ok();
                let found = extended.zip(number).and_then(|(extended, number)| extended.get_extension(number));
                file(found.map(|found| found.parent_file()).as_ref(), "there is no such extension")
            }
            MessageRequest::AllExtensionNumbersOfType(name) => match self.pool.get_message_by_name(name) {
                Some(message) => MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number: message.extensions().map(|extension| extension.number() as i32).collect(),
                }),
                None => error(Code::NotFound, "there is no such message type"),
            },
            MessageRequest::ListServices(_) => MessageResponse::ListServicesResponse(ListServiceResponse {
                service: self
                    .pool
                    .services()
                    .map(|service| ServiceResponse { name: service.full_name().into() })
                    .collect(),
            }),
        }
    }
}

/// Returns `google.rpc.Status` and the messages of its details, in files with the names that clients know. tonic-types leaves
/// the directory out.
fn status_details() -> FileDescriptorSet {
    let mut set =
        FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET).expect("the descriptor set is a constant");
    for file in &mut set.file {
        file.name = file.name.take().map(|name| if name.contains('/') { name } else { format!("google/rpc/{name}") });
    }
    set
}

/// Returns the file of every full name.
fn symbols(pool: &DescriptorPool) -> HashMap<String, FileDescriptor> {
    let mut symbols = HashMap::new();
    let mut add = |name: &str, file| {
        symbols.insert(name.to_owned(), file);
    };
    for message in pool.all_messages() {
        add(message.full_name(), message.parent_file());
        message.fields().for_each(|field| add(field.full_name(), field.parent_file()));
        message.oneofs().for_each(|oneof| add(oneof.full_name(), oneof.parent_file()));
    }
    for enumeration in pool.all_enums() {
        add(enumeration.full_name(), enumeration.parent_file());
        enumeration.values().for_each(|value| add(value.full_name(), value.parent_file()));
    }
    for service in pool.services() {
        add(service.full_name(), service.parent_file());
        service.methods().for_each(|method| add(method.full_name(), method.parent_file()));
    }
    for extension in pool.all_extensions() {
        add(extension.full_name(), extension.parent_file());
    }
    symbols
}

fn file(found: Option<&FileDescriptor>, otherwise: &str) -> MessageResponse {
    match found {
        Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
            file_descriptor_proto: vec![file.encode_to_vec()],
        }),
        None => error(Code::NotFound, otherwise),
    }
}

fn error(code: Code, message: &str) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse { error_code: code.into(), error_message: message.to_owned() })
}

/// Serves v1alpha, whose messages are encoded like those of v1, with the service of v1.
#[derive(Clone)]
pub(super) struct V1Alpha<S>(pub(super) S);

impl<S> NamedService for V1Alpha<S> {
    const NAME: &'static str = v1alpha::server_reflection_server::SERVICE_NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for V1Alpha<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> S::Future {
        let (_, method) = request.uri().path().rsplit_once('/').unwrap_or_default();
        if let Ok(uri) = Uri::try_from(format!("/{SERVICE_NAME}/{method}")) {
            *request.uri_mut() = uri;
        }
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tonic::{Request, Status, Streaming, codec::Codec as _};
    use tonic_prost::ProstCodec;

    use super::{Reflection, ServerReflection as _, ServerReflectionRequest, ServerReflectionResponse};

    #[tokio::test]
    async fn a_request_is_read_when_its_response_is() {
        let read = Arc::new(AtomicUsize::new(0));
        let counter = read.clone();
        let frames = stream::repeat_with(move || {
            counter.fetch_add(1, Relaxed);
            Ok::<_, Status>(Frame::data(Bytes::from_static(&[0; 5]))) // an empty message
        });
        let decoder = ProstCodec::<ServerReflectionResponse, ServerReflectionRequest>::default().decoder();
        let requests = Streaming::new_request(decoder, StreamBody::new(frames), None, None);
        let mut responses = Reflection.server_reflection_info(Request::new(requests)).await.unwrap().into_inner();
        for number in 0..3 {
            assert_eq!(read.load(Relaxed), number);
            responses.next().await.unwrap().unwrap();
        }
    }
}
