//! Valid requests of every RPC, made from the descriptors and the rules of the fields.

use std::sync::LazyLock;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use rcgen::{CertificateParams, KeyPair};

use crate::{
    CERT,
    rpc::{Rpc, Rules, inner},
};

/// The domain of all samples.
pub const DOMAIN: &str = "www.example.com";

/// Which fields of a request have a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filling {
    /// Those that must have one.
    Required,
    /// All.
    All,
}

/// A key, and its certificate and signing request for [`DOMAIN`], as PEM as it is sent.
pub struct Pems {
    pub certificate: String,
    pub csr: String,
    pub private_key: String,
}

impl Pems {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = || CertificateParams::new(vec![DOMAIN.to_owned()]).unwrap();
        Self {
            certificate: params().self_signed(&key).unwrap().pem().trim_end().to_owned(),
            csr: params().serialize_request(&key).unwrap().pem().unwrap(),
            private_key: key.serialize_pem().trim_end().to_owned(),
        }
    }
}

/// Returns the key of all samples.
pub fn pems() -> &'static Pems {
    &PEMS
}

static PEMS: LazyLock<Pems> = LazyLock::new(Pems::new);

/// The fields whose values have rules beside those of their options, and their values.
static TEXTS: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| {
    vec![
        ("project_id", ""),
        ("cert_id", CERT),
        ("domain", DOMAIN),
        ("domain_name", DOMAIN),
        ("sans", "api.example.com"),
        ("ori_sans", "api.example.com"),
        ("add_sans", "shop.example.com"),
        ("country", "CN"),
        ("company_country", "CN"),
        ("csr", &PEMS.csr),
        ("certificate", &PEMS.certificate),
        ("certificate_chain", &PEMS.certificate),
        ("private_key", &PEMS.private_key),
    ]
});

/// Returns whether a field has rules beside those of its option.
pub fn is_special(field: &FieldDescriptor) -> bool {
    TEXTS.iter().any(|(name, _)| *name == field.name())
}

/// Returns a valid request of an RPC.
pub fn request(rpc: &Rpc, filling: Filling) -> DynamicMessage {
    let mut request = message(&rpc.method.input(), filling);
    for variable in rpc.variables() {
        let field = rpc.method.input().get_field_by_name(variable).unwrap();
        request.set_field(&field, value(&field, filling));
    }
    request
}

/// Returns a valid message.
pub fn message(descriptor: &MessageDescriptor, filling: Filling) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let rules = Rules::of(&field);
        let is_needed = rules.required || rules.gte.is_some() && !field.supports_presence() || !rules.words.is_empty();
        if filling == Filling::All || is_needed && !(field.supports_presence() && inner(&field).is_none()) {
            message.set_field(&field, value(&field, filling));
        }
    }
    message
}

/// Returns a valid value of a field.
pub fn value(field: &FieldDescriptor, filling: Filling) -> Value {
    let rules = Rules::of(field);
    let value = match field.kind() {
        Kind::Message(descriptor) => Value::Message(message(&descriptor, filling)),
        Kind::String => Value::String(text(field, &rules)),
        Kind::Bool => Value::Bool(true),
        _ => number(field, rules.in_.first().copied().or(rules.gte).unwrap_or(1)),
    };
    if field.is_list() { Value::List(vec![value; rules.min_items.unwrap_or(1)]) } else { value }
}

/// Returns a number as a value of a field.
pub fn number(field: &FieldDescriptor, number: i64) -> Value {
    match field.kind() {
        Kind::Int32 => Value::I32(number.try_into().unwrap()),
        Kind::Int64 => Value::I64(number),
        kind => panic!("{kind:?} of {}", field.full_name()),
    }
}

fn text(field: &FieldDescriptor, rules: &Rules) -> String {
    let special = TEXTS.iter().find(|(name, _)| *name == field.name());
    match special {
        Some((_, text)) => (*text).to_owned(),
        None if !rules.words.is_empty() => rules.words[0].clone(),
        None if rules.id => CERT.to_owned(),
        None => "value".chars().take(rules.max_len.unwrap_or(5)).collect(),
    }
}
