//! The REST side of an RPC: a checked message becomes an [`UnsignedRequest`], a [`RawReply`] becomes a reply.
//!
//! What differs from RPC to RPC is in [`RestMethod`], which `build.rs` prints from the proto's annotations.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::{
    sign::uri,
    validate::{Check, Checked},
};

pub mod codes;
pub mod decode;
pub mod json;
pub mod spelling;

/// What the proto says of one RPC's REST side.
pub trait RestMethod: Send + 'static {
    /// The request message.
    type Request: Check + Send + 'static;
    /// The reply message, read from the JSON of a success.
    type Reply: DeserializeOwned + Send + 'static;
    /// The full name, `package.Service/Method`.
    const RPC: &'static str;
    /// The HTTP method.
    const HTTP: http::Method;
    /// The path template, `/v2/{project_id}/…`.
    const TEMPLATE: &'static str;
    /// HTTP method and path template: the name of an attempt's span.
    const SPAN: &'static str;
    /// Whether the call may be repeated when it is not known if it was carried out.
    const IDEMPOTENT: bool;

    /// The field that names the project.
    fn project_id(request: &mut Self::Request) -> &mut String;
    /// The path variable that names the certificate, if there is one.
    fn cert_id(request: &Self::Request) -> Option<&str>;
    /// Writes the path.
    fn path(request: &Self::Request, path: &mut PathBuilder);
    /// The JSON body, if the request has one.
    fn body(request: &Self::Request) -> Option<Vec<u8>>;
    /// Whether the reply says what the vendor says of a success.
    fn acknowledged(reply: &Self::Reply) -> bool;
}

/// A REST request that lacks only date and signature. It can be signed and sent as often as need be.
#[derive(Clone)]
pub struct UnsignedRequest {
    /// The HTTP method.
    pub method: http::Method,
    /// The path, encoded as it goes out.
    pub path: String,
    /// The body as it is hashed and sent.
    pub body: Bytes,
}

/// What came back, before anybody has judged it.
pub struct RawReply {
    /// The HTTP status.
    pub status: u16,
    /// The response headers.
    pub headers: http::HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Brings a checked message into its REST form.
pub fn translate<M: RestMethod>(request: &Checked<M::Request>) -> UnsignedRequest {
    let mut path = PathBuilder(String::with_capacity(128));
    M::path(request, &mut path);
    UnsignedRequest { method: M::HTTP, path: path.0, body: M::body(request).unwrap_or_default().into() }
}

/// Builds a path out of encoded segments: no value can add a segment or a query.
pub struct PathBuilder(String);

impl PathBuilder {
    /// Adds a part of the template.
    pub fn literal(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// Adds one segment that holds a value.
    pub fn variable(&mut self, value: &str) {
        self.0.push('/');
        self.0.push_str(&uri::encode(value));
    }
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
