//! Part of `build.rs`: reads what the proto says of each RPC's REST side, and refuses with a sentence what cannot be
//! sent as annotated, so that a proto edit never half-works.

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor, Value,
};

/// A field of this name in a reply is the vendor's acknowledgement and has to be `success`.
pub(crate) const ACKNOWLEDGEMENT: &str = "request_info";

/// Names that Rust keeps to itself even as raw identifiers.
const RUSTS_OWN: [&str; 4] = ["self", "Self", "super", "crate"];

/// The package as far as it is printed.
pub(crate) struct Api {
    pub(crate) service: ServiceDescriptor,
    pub(crate) messages: Vec<MessageDescriptor>,
    pub(crate) methods: Vec<RestBinding>,
}

/// What the annotations of one RPC say.
pub(crate) struct RestBinding {
    pub(crate) method: MethodDescriptor,
    /// The HTTP method, upper case.
    pub(crate) verb: String,
    pub(crate) template: String,
    pub(crate) body: Option<String>,
    pub(crate) idempotent: bool,
}

/// Reads the one service of a package and its messages.
pub(crate) fn read(pool: &DescriptorPool, package: &str) -> Result<Api, String> {
    let mut services = pool.services().filter(|service| service.package_name() == package);
    let (Some(service), None) = (services.next(), services.next()) else {
        return Err(format!("{package}: has to have exactly one service"));
    };
    let messages: Vec<_> = pool.all_messages().filter(|message| message.package_name() == package).collect();
    messages.iter().try_for_each(plain)?;
    let methods = service.methods().map(|method| RestBinding::read(pool, method)).collect::<Result<Vec<_>, _>>()?;
    match methods.iter().find(|m| messages.iter().any(|message| message.name() == m.method.name())) {
        Some(binding) => Err(format!("{}: a message has this name too", binding.rpc())),
        None => Ok(Api { service, messages, methods }),
    }
}

/// Refuses what has no JSON that everybody would expect.
fn plain(message: &MessageDescriptor) -> Result<(), String> {
    if message.parent_message().is_some() {
        return Err(format!("{}: nested messages and maps are not supported", message.full_name()));
    }
    message.fields().try_for_each(|field| match not_plain(&field, message.package_name()) {
        Some(why) => Err(format!("{}: {why}", field.full_name())),
        None => Ok(()),
    })
}

fn not_plain(field: &FieldDescriptor, package: &str) -> Option<&'static str> {
    let string = field.kind() == Kind::String;
    Some(match field.kind() {
        _ if RUSTS_OWN.contains(&field.name()) => "Rust has this name for itself: choose another",
        _ if field.is_map() => "maps are not supported",
        _ if field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) => "oneof is not supported",
        _ if field.name() == ACKNOWLEDGEMENT && !(string && is_single(field) && !is_option(field)) => {
            "the vendor's acknowledgement is a plain string"
        }
        Kind::Message(inner) if inner.package_name() != package => "messages of other packages are not supported",
        Kind::String | Kind::Message(_) => return None,
        Kind::Bool | Kind::Int32 | Kind::Sint32 | Kind::Uint32 if is_single(field) => return None,
        Kind::Bool | Kind::Int32 | Kind::Sint32 | Kind::Uint32 => "lists are of strings or messages",
        Kind::Enum(_) => "enums are not supported: use a string and check its values",
        _ => "this type is not supported: use string, bool, int32, uint32 or a message",
    })
}

/// Whether the field is no list.
pub(crate) fn is_single(field: &FieldDescriptor) -> bool {
    field.cardinality() != Cardinality::Repeated
}

/// Whether prost holds the field as an `Option`.
pub(crate) fn is_option(field: &FieldDescriptor) -> bool {
    is_single(field) && field.supports_presence()
}

/// The names in braces of a path template.
pub(crate) fn variables(template: &str) -> Vec<&str> {
    template.split('/').filter_map(variable).collect()
}

/// The name in braces, if the segment is one.
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
            match rule.has_field_by_name("response_body") {
                true => Err("response_body is not supported: name the fields in the reply"),
                false => Ok(Self {
                    verb: verb.to_uppercase(),
                    template: text(&rule, verb),
                    body,
                    idempotent: idempotent(&method),
                    method,
                }),
            }
        });
        let binding = binding.map_err(|why| format!("{rpc}: {why}"))?;
        match binding.fault() {
            Some(why) => Err(format!("{rpc}: {why}")),
            None => Ok(binding),
        }
    }

    /// The full name, `package.Service/Method`.
    pub(crate) fn rpc(&self) -> String {
        format!("{}/{}", self.method.parent_service().full_name(), self.method.name())
    }

    /// Why the request cannot be sent as annotated, if so. Every field has exactly one place to go.
    fn fault(&self) -> Option<String> {
        let (variables, input) = (variables(&self.template), self.method.input());
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
            return Some("the path needs {project_id}: the project decides whose key signs".to_owned());
        }
        if let Some(variable) = variables.iter().find(|v| !is(v, |f| f.kind() == Kind::String && !is_option(f))) {
            return Some(format!("path variable {{{variable}}} is no plain string field of the request"));
        }
        if let Some(body) = self.body.as_deref().filter(|b| !is(b, |f| f.kind().as_message().is_some())) {
            return Some(format!("body \"{body}\" has to name a message field of the request"));
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

/// Unset means that an attempt whose outcome is unknown may not be repeated.
fn idempotent(method: &MethodDescriptor) -> bool {
    method.method_descriptor_proto().options.as_ref().is_some_and(|options| options.idempotency_level.unwrap_or(0) != 0)
}
