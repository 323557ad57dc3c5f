//! Part of `build.rs`: reads the REST annotations of each RPC in the proto. Rejects annotations that the gateway cannot
//! honor, so that an unsupported proto fails the build with a message.

use heck::ToUpperCamelCase as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor, Value,
};

/// The field of a response with the vendor's acknowledgement, which must be `success`.
pub(crate) const ACKNOWLEDGEMENT: &str = "request_info";

/// Keywords that Rust does not allow as raw identifiers.
const RESERVED_NAMES: [&str; 4] = ["self", "Self", "super", "crate"];

/// The parts of the package that code is generated for.
pub(crate) struct Api {
    pub(crate) service: ServiceDescriptor,
    pub(crate) messages: Vec<MessageDescriptor>,
    pub(crate) methods: Vec<RestBinding>,
}

/// The annotations of an RPC.
pub(crate) struct RestBinding {
    pub(crate) method: MethodDescriptor,
    /// The HTTP method, upper case.
    pub(crate) verb: String,
    pub(crate) template: String,
    pub(crate) body: Option<String>,
    pub(crate) idempotent: bool,
}

/// Reads the only service of a package, and its messages.
pub(crate) fn read(pool: &DescriptorPool, package: &str) -> Result<Api, String> {
    let mut services = pool.services().filter(|service| service.package_name() == package);
    let (Some(service), None) = (services.next(), services.next()) else {
        return Err(format!("{package}: has to have exactly one service"));
    };
    let messages: Vec<_> = pool.all_messages().filter(|message| message.package_name() == package).collect();
    messages.iter().try_for_each(check_message)?;
    let methods = service.methods().map(|method| RestBinding::read(pool, method)).collect::<Result<Vec<_>, _>>()?;
    match methods.iter().find(|m| messages.iter().any(|message| message.name() == m.method.name())) {
        Some(binding) => Err(format!("{}: the RPC has the same name as a message", binding.rpc())),
        None => Ok(Api { service, messages, methods }),
    }
}

/// Rejects messages without an obvious JSON form.
fn check_message(message: &MessageDescriptor) -> Result<(), String> {
    let name = message.name();
    if name.to_upper_camel_case() != name {
        return Err(format!("{}: prost names it {}: use that", message.full_name(), name.to_upper_camel_case()));
    }
    if message.parent_message().is_some() {
        return Err(format!("{}: nested messages and maps are not supported", message.full_name()));
    }
    message.fields().try_for_each(|field| match unsupported(&field, message.package_name()) {
        Some(problem) => Err(format!("{}: {problem}", field.full_name())),
        None => Ok(()),
    })
}

/// Returns why a field is not supported, or `None` if it is.
fn unsupported(field: &FieldDescriptor, package: &str) -> Option<&'static str> {
    let is_plain_string = field.kind() == Kind::String && is_single(field) && !is_option(field);
    Some(match field.kind() {
        _ if RESERVED_NAMES.contains(&field.name()) => "the name is reserved in Rust: choose another",
        _ if field.json_name() != default_json_name(field.name()) => {
            "json_name is not supported: JSON keys are the names"
        }
        _ if field.is_map() => "maps are not supported",
        _ if field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) => "oneof is not supported",
        _ if field.name() == ACKNOWLEDGEMENT && !is_plain_string => "the vendor's acknowledgement is a plain string",
        Kind::Message(inner) if inner.package_name() != package => "messages of other packages are not supported",
        Kind::String | Kind::Message(_) => return None,
        Kind::Bool | Kind::Int32 | Kind::Sint32 | Kind::Uint32 if is_single(field) => return None,
        Kind::Bool | Kind::Int32 | Kind::Sint32 | Kind::Uint32 => "lists are of strings or messages",
        Kind::Enum(_) => "enums are not supported: use a string and check its values",
        _ => "this type is not supported: use string, bool, int32, uint32 or a message",
    })
}

/// Returns the name that protobuf's JSON form gives a field by default.
fn default_json_name(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |json, word| {
        let (initial, rest) = word.split_at(word.len().min(1));
        json + &initial.to_ascii_uppercase() + rest
    })
}

/// Returns whether the field is not a list.
pub(crate) fn is_single(field: &FieldDescriptor) -> bool {
    field.cardinality() != Cardinality::Repeated
}

/// Returns whether prost represents the field as an `Option`.
pub(crate) fn is_option(field: &FieldDescriptor) -> bool {
    is_single(field) && field.supports_presence()
}

/// Returns the variables of a path template.
pub(crate) fn variables(template: &str) -> Vec<&str> {
    template.split('/').filter_map(variable).collect()
}

/// Returns the name of the variable if the segment is one.
pub(crate) fn variable(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

impl RestBinding {
    fn read(pool: &DescriptorPool, method: MethodDescriptor) -> Result<Self, String> {
        let rpc = method.full_name().to_owned();
        let binding = http_rule(pool, &method).and_then(|rule| {
            let verb = ["get", "put", "post", "delete", "patch"].into_iter().find(|verb| rule.has_field_by_name(verb));
            let verb = verb.ok_or("(google.api.http) names no path")?;
            let body = Some(text(&rule, "body")).filter(|body| !body.is_empty());
            if rule.has_field_by_name("response_body") {
                return Err("response_body is not supported: name the fields in the reply");
            }
            Ok(Self {
                verb: verb.to_uppercase(),
                template: text(&rule, verb),
                body,
                idempotent: idempotent(&method),
                method,
            })
        });
        let binding = binding.map_err(|problem| format!("{rpc}: {problem}"))?;
        match binding.problem() {
            Some(problem) => Err(format!("{rpc}: {problem}")),
            None => Ok(binding),
        }
    }

    /// Returns the full name, `package.Service/Method`.
    pub(crate) fn rpc(&self) -> String {
        format!("{}/{}", self.method.parent_service().full_name(), self.method.name())
    }

    /// Returns why the request cannot be sent as annotated, or `None` if it can. Every field must be in either path or
    /// body.
    fn problem(&self) -> Option<String> {
        let variables = variables(&self.template);
        let input = self.method.input();
        let is = |name: &str, fits: fn(&FieldDescriptor) -> bool| {
            input.get_field_by_name(name).is_some_and(|field| is_single(&field) && fits(&field))
        };
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let literal = |segment: &str| !segment.is_empty() && segment.bytes().all(unreserved);
        if self.method.is_client_streaming() || self.method.is_server_streaming() {
            return Some("streams have no REST side".to_owned());
        }
        let Some(path) = self.template.strip_prefix('/') else {
            return Some("the path begins with a slash".to_owned());
        };
        if let Some(segment) = path.split('/').find(|segment| variable(segment).is_none() && !literal(segment)) {
            return Some(format!("path segment \"{segment}\" is neither {{variable}} nor unreserved characters"));
        }
        if !variables.contains(&"project_id") {
            return Some("the path needs {project_id}, which selects the credentials".to_owned());
        }
        if let Some(variable) = variables.iter().find(|v| !is(v, |f| f.kind() == Kind::String && !is_option(f))) {
            return Some(format!(
                "path variable {{{variable}}} has to name a string field of the request that is not optional"
            ));
        }
        if let Some(body) = self.body.as_deref().filter(|b| !is(b, |f| f.kind().as_message().is_some())) {
            return Some(format!("body \"{body}\" has to name a message field of the request"));
        }
        if let Some(variable) = variables.iter().find(|v| variables.iter().filter(|other| other == v).count() > 1) {
            return Some(format!("path variable {{{variable}}} is there twice"));
        }
        if self.body.is_some() && ["GET", "DELETE"].contains(&self.verb.as_str()) {
            return Some(format!("{} has no body", self.verb));
        }
        input
            .fields()
            .find(|f| !variables.contains(&f.name()) && self.body.as_deref() != Some(f.name()))
            .map(|f| format!("field {} is bound to neither path nor body", f.name()))
    }
}

fn http_rule(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<DynamicMessage, &'static str> {
    const MISSING: &str = "has no option (google.api.http)";
    let extension = pool.get_extension_by_name("google.api.http").ok_or(MISSING)?;
    let options = method.options();
    match options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned()) {
        Some(Value::Message(rule)) => Ok(rule),
        _ => Err(MISSING),
    }
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Returns whether the method is idempotent. By default it is not, so an attempt with an unknown outcome is not
/// retried.
fn idempotent(method: &MethodDescriptor) -> bool {
    method.method_descriptor_proto().options.as_ref().is_some_and(|options| options.idempotency_level.unwrap_or(0) != 0)
}
