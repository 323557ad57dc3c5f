//! Calls any RPC. Messages are known by their descriptors, so that a test of all RPCs needs no code for each.

use std::sync::LazyLock;

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use scm_gateway::{call::codec::DynamicCodec, proto::DESCRIPTOR_SET};
use tonic::{IntoRequest, Response, Status, client::Grpc, transport::Channel};

const PACKAGE: &str = "huaweicloud.scm.v1";

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTOR_SET).unwrap());

/// An RPC, with its annotations.
#[derive(Debug, Clone)]
pub struct Rpc {
    pub method: MethodDescriptor,
    /// The HTTP method, upper case.
    pub verb: String,
    pub template: String,
    pub body: String,
    pub response_body: String,
    pub idempotent: bool,
    pub read_only: bool,
    pub success_statuses: Vec<u16>,
    pub empty_reply: bool,
    pub grant_by_name: bool,
}

/// Returns every RPC, in the order of the proto.
pub fn methods() -> Vec<MethodDescriptor> {
    let services = POOL.services().filter(|service| service.package_name() == PACKAGE);
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// Returns every RPC with a REST side, in the order of the proto.
pub fn rpcs() -> Vec<Rpc> {
    methods().into_iter().filter_map(Rpc::read).collect()
}

/// Returns the names of all RPCs, as the configuration has them.
pub fn names() -> String {
    rpcs().iter().map(|rpc| rpc.name().to_owned()).collect::<Vec<_>>().join(",")
}

/// Returns the RPC of this name.
pub fn rpc(name: &str) -> Rpc {
    rpcs().into_iter().find(|rpc| rpc.name() == name).unwrap_or_else(|| panic!("no RPC {name}"))
}

/// Returns an option that is a message.
fn option(options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    let extension = POOL.get_extension_by_name(name).unwrap();
    let value = options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())?;
    value.as_message().cloned()
}

impl Rpc {
    fn read(method: MethodDescriptor) -> Option<Self> {
        let http = option(&method.options(), "google.api.http")?;
        let rules = option(&method.options(), "huaweicloud.scm.rest.v1.method");
        let text = |name: &str| get(&http, name).as_str().unwrap().to_owned();
        let verb = ["get", "put", "post", "delete", "patch"].into_iter().find(|verb| http.has_field_by_name(verb))?;
        let flag = |name: &str| rules.as_ref().is_some_and(|rules| get(rules, name).as_bool().unwrap());
        let statuses = rules.as_ref().map(|rules| numbers(rules, "success_statuses")).unwrap_or_default();
        let statuses = if statuses.is_empty() { vec![200] } else { statuses };
        let options = method.method_descriptor_proto().options.as_ref();
        let level = options.and_then(|options| options.idempotency_level).unwrap_or_default();
        Some(Self {
            verb: verb.to_uppercase(),
            template: text(verb),
            body: text("body"),
            response_body: text("response_body"),
            idempotent: level != 0,
            read_only: level == 1,
            success_statuses: statuses.into_iter().map(|status| u16::try_from(status).unwrap()).collect(),
            empty_reply: flag("empty_reply"),
            grant_by_name: flag("grant_by_name"),
            method,
        })
    }

    pub fn name(&self) -> &str {
        self.method.name()
    }

    pub fn service(&self) -> String {
        self.method.parent_service().full_name().to_owned()
    }

    /// Returns the variables of the path.
    pub fn variables(&self) -> Vec<&str> {
        self.template.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).collect()
    }

    /// Returns whether a 404 is about a certificate.
    pub fn names_certificate(&self) -> bool {
        self.variables().contains(&"cert_id")
    }

    /// Returns the fields of the JSON object of a reply.
    pub fn reply_object(&self) -> MessageDescriptor {
        let reply = self.method.output();
        match reply.get_field_by_name(&self.response_body) {
            Some(field) => field.kind().as_message().unwrap().clone(),
            None => reply,
        }
    }

    /// Returns the smallest successful response: a status and a body.
    pub fn success(&self) -> (u16, String) {
        let acknowledgement = |field: FieldDescriptor| {
            Rules::of(&field).acknowledgement.map(|word| format!(r#"{{"{}":"{word}"}}"#, field.name()))
        };
        let body = self.method.output().fields().find_map(acknowledgement).unwrap_or_else(|| "{}".to_owned());
        (self.success_statuses[0], body)
    }
}

/// Returns the value of a field.
pub fn get(message: &DynamicMessage, name: &str) -> Value {
    message.get_field_by_name(name).unwrap_or_else(|| panic!("no field {name}")).into_owned()
}

fn numbers(message: &DynamicMessage, name: &str) -> Vec<i64> {
    let value = get(message, name);
    let number = |value: &Value| value.as_i64().or_else(|| value.as_u64().map(|number| number.try_into().unwrap()));
    value.as_list().unwrap().iter().map(|value| number(value).or(value.as_u32().map(i64::from)).unwrap()).collect()
}

/// The rules of a field, as its option has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    pub required: bool,
    pub min_len: Option<usize>,
    pub max_len: Option<usize>,
    pub max_bytes: Option<usize>,
    pub in_: Vec<i64>,
    pub gte: Option<i64>,
    pub lte: Option<i64>,
    pub min_items: Option<usize>,
    pub max_items: Option<usize>,
    pub words: Vec<String>,
    pub joined_by: Option<String>,
    pub routing_only: bool,
    pub acknowledgement: Option<String>,
    pub multiline: bool,
    pub id: bool,
    pub send_empty: bool,
    pub not_blank: bool,
    pub is_nonempty: Option<String>,
    pub json_aliases: Vec<String>,
}

impl Rules {
    pub fn of(field: &FieldDescriptor) -> Self {
        let Some(rules) = option(&field.options(), "huaweicloud.scm.rest.v1.field") else { return Self::default() };
        let value = |name: &str| rules.has_field_by_name(name).then(|| get(&rules, name));
        let flag = |name: &str| value(name).is_some_and(|value| value.as_bool().unwrap());
        let length = |name: &str| value(name).map(|value| usize::try_from(value.as_u64().unwrap()).unwrap());
        let number = |name: &str| value(name).map(|value| value.as_i64().unwrap());
        let text = |name: &str| value(name).map(|value| value.as_str().unwrap().to_owned());
        let texts = |name: &str| {
            get(&rules, name).as_list().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        Self {
            required: flag("required"),
            min_len: length("min_len"),
            max_len: length("max_len"),
            max_bytes: length("max_bytes"),
            in_: numbers(&rules, "in"),
            gte: number("gte"),
            lte: number("lte"),
            min_items: length("min_items"),
            max_items: length("max_items"),
            words: texts("words"),
            joined_by: text("joined_by"),
            routing_only: flag("routing_only"),
            acknowledgement: text("acknowledgement"),
            multiline: flag("multiline"),
            id: flag("id"),
            send_empty: flag("send_empty"),
            not_blank: flag("not_blank"),
            is_nonempty: text("is_nonempty"),
            json_aliases: texts("json_aliases"),
        }
    }
}

/// Returns whether a field is marked as a secret.
pub fn is_secret(field: &FieldDescriptor) -> bool {
    field.options().get_field_by_name("debug_redact").is_some_and(|value| value.as_bool().unwrap())
}

/// Returns the key of a field in JSON: its `json_name` if the proto sets one, otherwise its name.
pub fn json_key(field: &FieldDescriptor) -> String {
    let mut words = field.name().split('_');
    let mut default = words.next().unwrap().to_owned();
    for word in words {
        default.push_str(&word[..1].to_uppercase());
        default.push_str(&word[1..]);
    }
    if field.json_name() == default { field.name().to_owned() } else { field.json_name().to_owned() }
}

/// Returns the message of a field.
pub fn inner(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

/// Calls an RPC.
pub async fn call(
    channel: Channel,
    rpc: &Rpc,
    request: impl IntoRequest<DynamicMessage>,
) -> Result<Response<DynamicMessage>, Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = format!("/{}/{}", rpc.service(), rpc.name()).parse().unwrap();
    client.unary(request.into_request(), path, DynamicCodec(rpc.method.output())).await
}

/// Calls any RPC as one that streams its responses, which is the same on the wire. Returns them with the metadata before
/// them.
pub async fn responses(
    channel: Channel,
    method: &MethodDescriptor,
    request: impl IntoRequest<DynamicMessage>,
) -> Result<Response<Vec<DynamicMessage>>, Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name()).parse().unwrap();
    let response = client.server_streaming(request.into_request(), path, DynamicCodec(method.output())).await?;
    let (metadata, mut stream, extensions) = response.into_parts();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(Response::from_parts(metadata, messages, extensions))
}
