//! The REST side of an RPC: converts a checked message into an [`UnsignedRequest`] and a [`RawReply`] into a reply.
//!
//! [`RestMethod`] holds what differs between RPCs. `build.rs` generates it from the proto's annotations.

use std::{
    any::Any,
    hash::{Hash, Hasher},
    io,
    time::SystemTime,
};

use bytes::Bytes;
use zeroize::Zeroizing;

use super::sign::uri;
use crate::{
    error::Error,
    json::WriteJson,
    proto::json::ReadJson,
    validate::{Check, Checked},
};

pub mod decode;
mod error_body;
pub mod error_codes;
pub mod methods;
mod wire;

/// One RPC's REST side, as the proto's annotations describe it.
pub trait RestMethod: Send + 'static {
    /// The request message.
    type Request: Check + Send + 'static;
    /// The reply message.
    type Reply: ReadJson + Send + 'static;
    /// The full name, `package.Service/Method`.
    const RPC: &'static str;
    /// The parts that do not depend on the message types.
    const METHOD: &'static Method;

    /// Returns the field that names the project.
    fn project_id(request: &mut Self::Request) -> &mut String;

    /// Returns the name and the value of the path variable that names the resource, if there is one.
    fn resource(_request: &Self::Request) -> Option<(&'static str, &str)> {
        None
    }

    /// Writes the path.
    fn path(request: &Self::Request, path: &mut PathBuilder);

    /// Adds the parameters of the query.
    fn query(_request: &Self::Request, _query: &mut QueryBuilder) {}

    /// Returns the JSON body, if the request has one.
    fn body(_request: &Self::Request) -> Option<Vec<u8>> {
        None
    }
}

/// What the outbound stack knows of an RPC. The stack is not generic, so forty RPCs do not mean forty copies of it.
#[derive(Debug, Clone)]
pub struct Method {
    /// The position in the list of all methods.
    pub number: usize,
    /// The HTTP method.
    pub http: http::Method,
    /// The path template, `/v2/{project_id}/…`.
    pub template: &'static str,
    /// HTTP method and path template: the name of an attempt's span.
    pub span: &'static str,
    /// Whether the call may be retried when its outcome is unknown.
    pub idempotent: bool,
    /// Whether the path names a certificate, so that a 404 is about it.
    pub names_certificate: bool,
    /// Whether the request holds a secret of the caller, which is wiped.
    pub secret_request: bool,
    /// The HTTP statuses of a success.
    pub success_statuses: &'static [u16],
    /// Whether a success may have no body.
    pub empty_reply: bool,
    /// Reads a response, received at the given time.
    pub decode: fn(&RawReply, SystemTime) -> Result<Decoded, Error>,
    /// Returns an empty reply, of the type that the RPC's [`RestMethod::Reply`] names.
    pub empty: fn() -> Box<dyn Any + Send>,
}

impl PartialEq for Method {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Method {}

impl Hash for Method {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

/// A REST request without date and signature. It can be signed and sent any number of times.
#[derive(Clone)]
pub struct UnsignedRequest {
    /// The RPC.
    pub method: &'static Method,
    /// The path, percent-encoded.
    pub path: String,
    /// The query in its canonical form, as it is signed and sent; empty if there is none.
    pub query: String,
    /// The body as it is hashed and sent.
    pub body: Bytes,
}

/// A response of SCM before it is decoded.
pub struct RawReply {
    /// The HTTP status.
    pub status: u16,
    /// The response headers.
    pub headers: http::HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// A successful response.
#[derive(Debug)]
pub struct Decoded {
    /// The reply message, of the type that the RPC's [`RestMethod::Reply`] names.
    pub reply: Box<dyn Any + Send>,
    /// The HTTP status.
    pub http_status: u16,
    /// The number of attempts; zero before the call is over.
    pub attempts: u32,
    /// The vendor's id of the request.
    pub request_id: Option<String>,
}

impl Decoded {
    /// Returns the reply message.
    ///
    /// # Panics
    ///
    /// If the response was decoded for another RPC.
    pub fn into_reply<R: 'static>(self) -> R {
        *self.reply.downcast().expect("the decoder of the RPC made this reply")
    }
}

/// Converts a checked message into its REST request.
pub fn translate<M: RestMethod>(request: &Checked<M::Request>) -> UnsignedRequest {
    let mut path = PathBuilder(String::with_capacity(128));
    M::path(request, &mut path);
    let mut query = QueryBuilder(Vec::new());
    M::query(request, &mut query);
    let body = M::body(request).unwrap_or_default();
    let body = if M::METHOD.secret_request { Bytes::from_owner(Zeroizing::new(body)) } else { body.into() };
    UnsignedRequest { method: M::METHOD, path: path.0, query: uri::canonical_query(&query.0), body }
}

/// Builds a path from encoded segments, so that no value can add a segment or a query.
pub struct PathBuilder(String);

impl PathBuilder {
    /// Appends a part of the template.
    pub fn literal(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// Appends one segment that holds a value.
    pub fn variable(&mut self, value: &str) {
        self.0.push('/');
        self.0.push_str(&uri::encode(value));
    }
}

/// Collects the parameters of a query.
pub struct QueryBuilder(Vec<(&'static str, String)>);

impl QueryBuilder {
    /// Adds a parameter.
    pub fn add(&mut self, key: &'static str, value: impl ToString) {
        self.0.push((key, value.to_string()));
    }
}

/// Capacity for an ordinary body; one with a signing request grows.
const BODY_CAPACITY: usize = 1024;

/// Returns the JSON body of a message. The same bytes are hashed and sent.
fn json_body(message: &impl WriteJson) -> Vec<u8> {
    let mut body = Vec::with_capacity(BODY_CAPACITY);
    message.write_json(&mut body);
    body
}

/// Returns the JSON body of a message with a secret. The buffer never grows, because that would leave a copy behind that
/// is not wiped.
pub(super) fn secret_json_body(message: &impl WriteJson) -> Vec<u8> {
    let mut length = Length(0);
    message.write_json(&mut length);
    let mut body = Vec::with_capacity(length.0);
    message.write_json(&mut body);
    body
}

/// Counts the bytes that are written.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        PathBuilder, RestMethod as _,
        methods::{ExportCertificate, ImportCertificate, SaveInfo},
        secret_json_body,
    };

    #[test]
    fn the_json_of_a_secret_has_exactly_its_buffer() {
        let body = secret_json_body(&"-----BEGIN\n\"".repeat(1000));
        assert_eq!(body.len(), body.capacity());
        assert!(body.len() > 10_000);
    }

    #[test]
    fn only_private_keys_make_a_request_secret() {
        assert!(ImportCertificate::METHOD.secret_request);
        assert!(!ExportCertificate::METHOD.secret_request && !SaveInfo::METHOD.secret_request);
    }

    #[test]
    fn a_value_stays_within_its_segment() {
        let mut path = PathBuilder(String::new());
        path.literal("/v2");
        path.variable("a/../b?c#d%2F");
        path.literal("/save");
        assert_eq!(path.0, "/v2/a%2F..%2Fb%3Fc%23d%252F/save");
    }
}
