//! Server reflection, v1 and v1alpha.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _, prost_types::FileDescriptorProto};
use scm_emulator::{Reply, Step};
use scm_gateway::proto::SaveInfoRequest;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_reflection::pb::{
    v1::{
        ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse,
        server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
    },
    v1alpha,
};

use crate::harness::{Gateway, emulator, sample};

const SERVICE: &str = "huaweicloud.scm.v1.CertificateService";
const FILE: &str = "huaweicloud/scm/v1/certificate_service.proto";

/// The number of `google.api.http`, an extension of this type.
const HTTP: i32 = 72_295_728;
const METHOD_OPTIONS: &str = "google.protobuf.MethodOptions";

fn request(message_request: impl Into<Option<MessageRequest>>) -> ServerReflectionRequest {
    ServerReflectionRequest { host: "scm".to_owned(), message_request: message_request.into() }
}

fn list() -> ServerReflectionRequest {
    request(MessageRequest::ListServices(String::new()))
}

fn extension(containing_type: &str, extension_number: i32) -> MessageRequest {
    MessageRequest::FileContainingExtension(ExtensionRequest {
        containing_type: containing_type.to_owned(),
        extension_number,
    })
}

/// Converts between the versions, whose messages are encoded alike.
fn convert<T: prost::Message + Default>(message: &impl prost::Message) -> T {
    T::decode(message.encode_to_vec().as_slice()).unwrap()
}

/// Returns the responses of one stream of v1, or of v1alpha.
async fn responses(
    gateway: &Gateway,
    alpha: bool,
    requests: Vec<ServerReflectionRequest>,
) -> Vec<Result<ServerReflectionResponse, Status>> {
    let channel = gateway.channel().await;
    if alpha {
        let requests: Vec<v1alpha::ServerReflectionRequest> = requests.iter().map(convert).collect();
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
        let responses = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
        responses.map(|response| response.map(|response| convert(&response))).collect().await
    } else {
        let mut client = ServerReflectionClient::new(channel);
        client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner().collect().await
    }
}

/// Returns a response in short: the names of the files or services, the numbers of the extensions, or the code of the error.
fn shown(response: &MessageResponse) -> String {
    use MessageResponse::{AllExtensionNumbersResponse, ErrorResponse, FileDescriptorResponse, ListServicesResponse};
    match response {
        FileDescriptorResponse(files) => {
            let files = files.file_descriptor_proto.iter();
            let names = files.map(|file| FileDescriptorProto::decode(file.as_slice()).unwrap().name.unwrap());
            names.collect::<Vec<_>>().join(" ")
        }
        AllExtensionNumbersResponse(all) => format!("{} {:?}", all.base_type_name, all.extension_number),
        ListServicesResponse(services) => {
            services.service.iter().map(|service| service.name.as_str()).collect::<Vec<_>>().join(" ")
        }
        ErrorResponse(error) => {
            assert!(!error.error_message.is_empty() && !error.error_message.contains("p1anted"), "{error:?}");
            format!("{:?}", Code::from(error.error_code))
        }
    }
}

#[tokio::test]
async fn every_request_is_answered_and_the_stream_goes_on() {
    use MessageRequest::{AllExtensionNumbersOfType, FileByFilename, FileContainingSymbol};
    let symbol = |name: &str| FileContainingSymbol(name.to_owned());
    let services = "huaweicloud.scm.v1.CertificateService huaweicloud.scm.v1.CsrService \
                    huaweicloud.scm.v1.NotificationService huaweicloud.scm.v1.OrderService huaweicloud.scm.v1.TagService \
                    grpc.health.v1.Health grpc.reflection.v1.ServerReflection grpc.reflection.v1alpha.ServerReflection";
    let table = [
        (request(FileByFilename("p1anted.proto".to_owned())), "NotFound"),
        (request(FileByFilename(FILE.to_owned())), FILE),
        (request(FileByFilename("google/api/http.proto".to_owned())), "google/api/http.proto"),
        (request(symbol("p1anted.Symbol")), "NotFound"),
        (request(symbol("")), "NotFound"),
        (request(symbol("huaweicloud.scm.v1")), "NotFound"),
        (request(symbol(SERVICE)), FILE),
        (request(symbol("huaweicloud.scm.v1.CertificateService.SaveInfo")), FILE),
        (request(symbol("huaweicloud.scm.v1.CertificateInfo")), FILE),
        (request(symbol("huaweicloud.scm.v1.CertificateInfo.domain")), FILE),
        (request(symbol("google.api.HttpRule.pattern")), "google/api/http.proto"),
        (request(symbol("google.api.http")), "google/api/annotations.proto"),
        (request(symbol("google.protobuf.FieldDescriptorProto.Type")), "google/protobuf/descriptor.proto"),
        (request(symbol("google.protobuf.FieldDescriptorProto.TYPE_BOOL")), "google/protobuf/descriptor.proto"),
        (request(symbol("google.rpc.Status")), "google/rpc/status.proto"),
        (request(symbol("google.rpc.ErrorInfo")), "google/rpc/error_details.proto"),
        (request(symbol("google.rpc.BadRequest.FieldViolation")), "google/rpc/error_details.proto"),
        (request(symbol("google.rpc.RetryInfo.retry_delay")), "google/rpc/error_details.proto"),
        (request(symbol("google.protobuf.Duration")), "google/protobuf/duration.proto"),
        (request(FileByFilename("google/protobuf/any.proto".to_owned())), "google/protobuf/any.proto"),
        (request(symbol("grpc.reflection.v1alpha.ServerReflection")), "reflection_v1alpha.proto"),
        (request(extension("p1anted.Type", 1)), "NotFound"),
        (request(extension(METHOD_OPTIONS, 1)), "NotFound"),
        (request(extension(METHOD_OPTIONS, -1)), "NotFound"),
        (request(extension(METHOD_OPTIONS, HTTP)), "google/api/annotations.proto"),
        (request(AllExtensionNumbersOfType("p1anted.Type".to_owned())), "NotFound"),
        (request(AllExtensionNumbersOfType("google.api.HttpRule".to_owned())), "google.api.HttpRule []"),
        (
            request(AllExtensionNumbersOfType(METHOD_OPTIONS.to_owned())),
            "google.protobuf.MethodOptions [72295728, 50701]",
        ),
        (request(None), "InvalidArgument"),
        (list(), services),
    ];
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    for alpha in [false, true] {
        let requests = table.iter().map(|(request, _)| request.clone()).collect();
        let responses = responses(&gateway, alpha, requests).await;
        assert_eq!(responses.len(), table.len());
        for (response, (request, expected)) in responses.into_iter().zip(&table) {
            let response = response.unwrap();
            assert_eq!(&shown(&response.message_response.unwrap()), expected, "{request:?}, v1alpha: {alpha}");
            assert_eq!((response.original_request.as_ref(), response.valid_host.as_str()), (Some(request), "scm"));
        }
    }
}

/// Generic clients know no message but those that reflection describes.
#[tokio::test]
async fn the_details_of_statuses_are_described() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.script(Step::Reply(Reply::json(429, "{}").header("Retry-After", "7")));
    let throttled = gateway.save(sample()).await.unwrap_err();
    let invalid = gateway.save(SaveInfoRequest { cert_id: "a/b".to_owned(), ..sample() }).await.unwrap_err();
    for alpha in [false, true] {
        let mut pool = DescriptorPool::new();
        let mut wanted = vec![MessageRequest::FileContainingSymbol("google.rpc.Status".to_owned())];
        wanted.push(MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned()));
        let mut found = BTreeMap::new();
        while let Some(next) = wanted.pop() {
            let response = responses(&gateway, alpha, vec![request(next)]).await.remove(0).unwrap().message_response;
            let Some(MessageResponse::FileDescriptorResponse(files)) = response else { panic!("{response:?}") };
            for file in files.file_descriptor_proto {
                let file = FileDescriptorProto::decode(file.as_slice()).unwrap();
                wanted.extend(file.dependency.iter().cloned().map(MessageRequest::FileByFilename));
                found.insert(file.name().to_owned(), file);
            }
        }
        pool.add_file_descriptor_protos(found.into_values()).unwrap();
        for (status, expected) in [
            (&throttled, "google.rpc.RetryInfo google.rpc.ErrorInfo"),
            (&invalid, "google.rpc.ErrorInfo google.rpc.BadRequest"),
        ] {
            let decode = |name: &str, bytes: &[u8]| {
                let message = DynamicMessage::decode(pool.get_message_by_name(name).unwrap(), bytes).unwrap();
                assert_eq!(message.unknown_fields().count(), 0, "{name}");
                message
            };
            decode("google.rpc.Status", status.details());
            let details = tonic_types::pb::Status::decode(status.details()).unwrap().details;
            let names = details.iter().map(|any| {
                let (_, name) = any.type_url.rsplit_once('/').unwrap();
                decode(name, &any.value).descriptor().full_name().to_owned()
            });
            assert_eq!(names.collect::<Vec<_>>().join(" "), expected, "v1alpha: {alpha}");
        }
    }
}

/// Generic clients read the REST binding from the options.
#[tokio::test]
async fn described_files_keep_their_options() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let file = request(MessageRequest::FileByFilename(FILE.to_owned()));
    let response = responses(&gateway, false, vec![file]).await.remove(0).unwrap().message_response;
    let Some(MessageResponse::FileDescriptorResponse(files)) = response else { panic!("{response:?}") };
    let path = b"/v2/{project_id}/scm/cert/{cert_id}/save";
    assert!(files.file_descriptor_proto[0].windows(path.len()).any(|window| window == path));
}

#[tokio::test]
async fn an_oversized_request_ends_the_stream_with_a_status() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let oversized = request(MessageRequest::FileByFilename("x".repeat(5000)));
    for alpha in [false, true] {
        let responses = responses(&gateway, alpha, vec![list(), oversized.clone(), list()]).await;
        assert!(responses[0].is_ok());
        assert_eq!(responses[1].as_ref().unwrap_err().code(), Code::ResourceExhausted);
        assert_eq!(responses.len(), 2);
    }
}

#[tokio::test]
async fn reflection_can_be_disabled() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__REFLECTION", "false")]).await;
    let mut client = ServerReflectionClient::new(gateway.channel().await);
    let status = client.server_reflection_info(tokio_stream::iter([list()])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let request = v1alpha::ServerReflectionRequest::default();
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(gateway.channel().await);
    let status = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}
