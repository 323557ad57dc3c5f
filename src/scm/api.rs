//! The REST side of an RPC: converts a checked message into an [`UnsignedRequest`] and a [`RawReply`] into a reply.
//!
//! [`RestMethod`] holds what differs between RPCs. `build.rs` generates it from the proto's annotations.

use std::{any::Any, time::SystemTime};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::sign::uri;
use crate::{
    error::Error,
    validate::{Check, Checked},
};

pub mod decode;
pub mod error_codes;
pub mod methods;
pub mod wire;

/// One RPC's REST side, as the proto's annotations describe it.
pub trait RestMethod: Send + 'static {
    /// The request message.
    type Request: Check + Send + 'static;
    /// The reply message.
    type Reply: Send + 'static;
    /// The JSON form of the reply: the reply itself, or a type with the vendor's field names.
    type Wire: DeserializeOwned + Into<Self::Reply>;
    /// The full name, `package.Service/Method`.
    const RPC: &'static str;
    /// The parts that do not depend on the message types.
    const METHOD: &'static Method;

    /// Returns the field that names the project.
    fn project_id(request: &mut Self::Request) -> &mut String;
    /// Returns the path variable that names the certificate, if there is one.
    fn cert_id(request: &Self::Request) -> Option<&str>;
    /// Writes the path.
    fn path(request: &Self::Request, path: &mut PathBuilder);
    /// Returns the JSON body, if the request has one.
    fn body(request: &Self::Request) -> Option<Vec<u8>>;
    /// Returns whether the reply has the vendor's acknowledgement.
    fn acknowledged(reply: &Self::Reply) -> bool;
}

/// What the outbound stack knows of an RPC. The stack is not generic, so forty RPCs do not mean forty copies of it.
#[derive(Debug)]
pub struct Method {
    /// The HTTP method.
    pub http: http::Method,
    /// The path template, `/v2/{project_id}/…`.
    pub template: &'static str,
    /// HTTP method and path template: the name of an attempt's span.
    pub span: &'static str,
    /// Whether the call may be retried when its outcome is unknown.
    pub idempotent: bool,
    /// Reads a response, received at the given time.
    pub decode: fn(&RawReply, SystemTime) -> Result<Decoded, Error>,
}

/// A REST request without date and signature. It can be signed and sent any number of times.
#[derive(Clone)]
pub struct UnsignedRequest {
    /// The RPC.
    pub method: &'static Method,
    /// The path, percent-encoded.
    pub path: String,
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
    UnsignedRequest { method: M::METHOD, path: path.0, body: M::body(request).unwrap_or_default().into() }
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

/// Capacity for an ordinary body; one with a signing request grows.
const BODY_CAPACITY: usize = 1024;

/// Returns the JSON body of a message. The same bytes are hashed and sent.
fn json_body(message: &impl Serialize) -> Vec<u8> {
    let mut body = Vec::with_capacity(BODY_CAPACITY);
    serde_json::to_writer(&mut body, message).expect("a message has string keys and no fallible serializer");
    body
}

#[cfg(test)]
mod tests {
    use super::PathBuilder;

    #[test]
    fn a_value_stays_within_its_segment() {
        let mut path = PathBuilder(String::new());
        path.literal("/v2");
        path.variable("a/../b?c#d%2F");
        path.literal("/save");
        assert_eq!(path.0, "/v2/a%2F..%2Fb%3Fc%23d%252F/save");
    }
}
