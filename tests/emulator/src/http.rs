//! Reads HTTP/1.1 requests without decoding them, and writes responses (RFC 9112).

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::script::Reply;

const MAX_HEAD: usize = 64 * 1024;
const MAX_BODY: usize = 12 * 1024 * 1024;
const MAX_HEADERS: usize = 256;

/// A request as it was received. Nothing is decoded.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    http_1_0: bool,
}

impl Request {
    pub(crate) fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    pub(crate) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Returns all values of a header, without leading and trailing spaces and tabs.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| trim(value))
    }

    /// Returns the header lines, with replacements for bytes that are not UTF-8.
    pub(crate) fn texts(&self) -> Vec<(String, String)> {
        let lines = self.headers.iter();
        lines.map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned())).collect()
    }

    pub(crate) fn is_json(&self) -> bool {
        let value = self.values("content-type").next().unwrap_or_default();
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    }

    pub(crate) fn wants_close(&self) -> bool {
        let closes = self.values("connection").any(|value| value.eq_ignore_ascii_case(b"close"));
        self.http_1_0 || closes
    }

    /// Returns the length of the body that follows, or an error for unsupported framing.
    fn body_length(&self) -> Result<usize, RequestError> {
        if self.values("transfer-encoding").next().is_some() {
            return Err(RequestError::Rejected(411, "a Content-Length is required"));
        }
        let mut lengths = self.values("content-length");
        let Some(length) = lengths.next() else {
            return Ok(0);
        };
        let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        if lengths.next().is_some() || !digits {
            return Err(RequestError::Rejected(400, "Content-Length malformed"));
        }
        let length = std::str::from_utf8(length).ok().and_then(|n| n.parse().ok());
        match length {
            Some(length) if length <= MAX_BODY => Ok(length),
            _ => Err(RequestError::Rejected(413, "the body is too large")),
        }
    }
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Decodes once. A `%` that starts no escape stays unchanged, and `+` is not a space.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let mut byte = *first;
        if let (b'%', [high, low, after @ ..]) = (byte, tail)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            byte = high * 16 + low;
            rest = after;
        }
        decoded.push(byte);
    }
    decoded
}

/// Why no further request can be read from a connection.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The client has disconnected, between requests or during one.
    Disconnected,
    /// The request is answered with this status and text.
    Rejected(u16, &'static str),
}

/// Reads a request head. The body of the returned request is empty.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Result<Request, RequestError> {
    const TOO_LARGE: RequestError = RequestError::Rejected(494, "the headers are too large");
    loop {
        match parse_head(buffer)? {
            Some((_, length)) if length > MAX_HEAD => return Err(TOO_LARGE),
            Some((request, length)) => {
                let _head = buffer.split_to(length);
                return Ok(request);
            }
            None if buffer.len() >= MAX_HEAD => return Err(TOO_LARGE),
            None => fill(stream, buffer).await?,
        }
    }
}

/// Reads the body of a request.
pub(crate) async fn read_body<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    request: &mut Request,
) -> Result<(), RequestError> {
    let length = request.body_length()?;
    let expects_continue = request.values("expect").any(|value| value.eq_ignore_ascii_case(b"100-continue"));
    if expects_continue && buffer.len() < length {
        let sent = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        sent.map_err(|_| RequestError::Disconnected)?;
    }
    while buffer.len() < length {
        fill(stream, buffer).await?;
    }
    request.body = buffer.split_to(length).to_vec();
    Ok(())
}

/// Reads more bytes into the buffer.
pub(crate) async fn fill<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut BytesMut) -> Result<(), RequestError> {
    buffer.reserve(8 * 1024);
    match stream.read_buf(buffer).await {
        Ok(0) | Err(_) => Err(RequestError::Disconnected),
        Ok(_) => Ok(()),
    }
}

/// Parses the head at the start of `bytes` and returns it with its length, or `None` while it is incomplete.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<(Request, usize)>, RequestError> {
    const MALFORMED: RequestError = RequestError::Rejected(400, "the head is malformed");
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut lines);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(RequestError::Rejected(494, "the headers are too many"));
        }
        Err(_) => return Err(MALFORMED),
    };
    let (Some(method), Some(target)) = (head.method, head.path) else {
        return Err(MALFORMED);
    };
    // Only the origin form, because the other forms are for proxies (RFC 9112, 3.2).
    if !target.starts_with('/') {
        return Err(MALFORMED);
    }
    let headers = head.headers.iter();
    let request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.map(|line| (line.name.to_owned(), line.value.to_vec())).collect(),
        body: Vec::new(),
        http_1_0: head.version == Some(0),
    };
    Ok(Some((request, length)))
}

/// Encodes a response. A response to `HEAD` has no content.
pub(crate) fn encode(reply: &Reply, to_head: bool) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status));
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if wants_length(reply) {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if !to_head {
        bytes.extend_from_slice(&reply.body);
    }
    bytes
}

/// Returns whether a response needs a `Content-Length`: its headers do not set the framing, and it can have content.
fn wants_length(reply: &Reply) -> bool {
    let no_content = reply.status == 204 || (100..200).contains(&reply.status);
    let framed = reply.has("content-length") || reply.has("transfer-encoding");
    !(framed || no_content && reply.body.is_empty())
}

/// Returns the usual reason phrase, or an empty one, which RFC 9112 allows.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        302 => "Found",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        494 => "Request Header Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}
