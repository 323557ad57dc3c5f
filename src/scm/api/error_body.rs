//! Error bodies of SCM, the API gateway, IAM and other services of the vendor.
//!
//! A message is searched for one phrase and dropped, because it may echo credentials and personal data.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use zeroize::Zeroizing;

use crate::proto::json::{Object, ReadJson, Reader as _};

/// The keys of an error body in a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    /// The values of `error_code`, `error` and `code` in this order. The outer option says whether the key was there.
    codes: [Option<Option<String>>; 3],
    request_id: Option<String>,
    is_error: bool,
    is_expired: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Nested {
    Object { code: Option<Code> },
    Other(IgnoredAny),
}

impl Nested {
    fn code(self) -> Option<Code> {
        match self {
            Self::Object { code } => code,
            Self::Other(_) => None,
        }
    }
}

/// A code or id. IAM sends numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Code {
    Text(String),
    Number(u64),
    Other(IgnoredAny),
}

impl ReadJson for ErrorBody {
    /// Rejects a second code, because either could be the right one.
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        let (slot, code) = match key {
            "error_code" | "errorCode" => (0, map.next_value::<Option<Code>>()?),
            "error" => {
                let nested = map.next_value::<Option<Nested>>()?;
                self.is_error |= nested.is_some();
                (1, nested.and_then(Nested::code))
            }
            "code" => (2, map.next_value::<Option<Code>>()?),
            "error_msg" | "errorMsg" => {
                if let Some(message) = map.next_value::<Option<Code>>()? {
                    self.read_message(&message.text().unwrap_or_default());
                }
                return Ok(true);
            }
            "request_id" => {
                self.request_id = map.next_value::<Option<Code>>()?.and_then(Code::into_request_id);
                return Ok(true);
            }
            _ => return Ok(false),
        };
        if self.codes[slot].is_some() {
            return Err(A::Error::custom("two error codes"));
        }
        self.is_error |= code.is_some();
        self.codes[slot] = Some(code.and_then(Code::into_upstream_code));
        Ok(true)
    }
}

impl ErrorBody {
    /// Returns the error body of a response. Returns `None` if the response is not an error body.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        str::from_utf8(body).map_or_else(|_| Self::read_other_encoding(body), Self::read)
    }

    /// Returns the error body of a response that is not UTF-8. Only the message can be in another encoding, and the message
    /// does not matter.
    pub(super) fn read_other_encoding(body: &[u8]) -> Option<Self> {
        let texts = [without_double_bytes(body), lossy(body)];
        // `max_by_key` returns the last one if both have a code, or neither.
        texts.iter().filter_map(|text| Self::read(text)).max_by_key(|body| body.code().is_some())
    }

    /// Returns `None` if the text is not an error body. Invalid JSON counts as an error body without a code, because it must
    /// not count as a success.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim_start_matches('\u{feff}');
        if !text.trim_start().starts_with('{') {
            return None;
        }
        if let Ok(body) = serde_json::from_str::<Object<Self>>(text) {
            return Some(body.into_value()).filter(Self::is_error);
        }
        let broken = serde_json::from_str::<Object<BrokenMessage>>(text);
        Some(broken.map(|body| body.into_value().0).unwrap_or_default())
    }

    /// Searches a message.
    fn read_message(&mut self, message: &str) {
        self.is_error = true;
        self.is_expired |= says_expired(message);
    }

    /// Returns whether a key of an error body was there.
    pub(super) fn is_error(&self) -> bool {
        self.is_error
    }

    /// Returns whether SCM says that the date of the signature is too old or too new.
    pub(super) fn is_expired(&self) -> bool {
        self.is_expired
    }

    /// Returns the vendor's code.
    fn code(&self) -> Option<&String> {
        self.codes.iter().flatten().flatten().next()
    }

    /// Returns the vendor's code.
    pub(super) fn into_code(self) -> Option<String> {
        self.codes.into_iter().flatten().flatten().next()
    }

    /// Returns the vendor's id of the request.
    pub(super) fn request_id(&self) -> Option<&String> {
        self.request_id.as_ref()
    }
}

/// An error body whose message is no valid text: it has unpaired surrogates, because it was cut, or control characters.
#[derive(Default)]
struct BrokenMessage(ErrorBody);

impl ReadJson for BrokenMessage {
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        if !["error_msg", "errorMsg"].contains(&key) {
            return self.0.read(key, map);
        }
        let Bytes(message) = map.next_value()?;
        self.0.read_message(&message);
        Ok(true)
    }
}

/// A JSON string, which is not checked to be text.
struct Bytes(String);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        deserializer.deserialize_bytes(BytesVisitor)
    }
}

/// Replaces every character of two bytes, as in GBK and Big5, and other bytes above 127. The second byte can be a backslash,
/// which would end the JSON string at another place. The text is wiped, because it may be a reply with a private key.
fn without_double_bytes(body: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(body.len()));
    let mut bytes = body.iter().peekable();
    while let Some(byte) = bytes.next() {
        if byte.is_ascii() {
            text.push(char::from(*byte));
        } else {
            text.push('?');
            bytes.next_if(|second| **second >= 0x40);
        }
    }
    text
}

/// Replaces what is not UTF-8. The text is wiped, too, and never grows.
fn lossy(body: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(body.len()));
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        text.push_str(if chunk.invalid().is_empty() { "" } else { "?" });
    }
    text
}

impl Code {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(number) => Some(number.to_string()),
            Self::Other(_) => None,
        }
    }

    /// Returns the text if it has the format of a code, because other text may be data.
    fn into_upstream_code(self) -> Option<String> {
        self.text().filter(|code| (3..=36).contains(&code.len()) && is_token(code))
    }

    fn into_request_id(self) -> Option<String> {
        self.text().filter(|id| is_request_id(id))
    }
}

/// Returns whether a message reports a date that is more than 15 minutes off. The echo of the request follows the
/// phrase.
fn says_expired(message: &str) -> bool {
    message.to_ascii_lowercase().contains("signature expired")
}

fn is_token(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

pub(super) fn is_request_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && is_token(text)
}
