//! Reads values of DER (X.690 10).

use x509_parser::asn1_rs::{Any, BitString, Class, Error, FromDer as _, Oid, Tag};
use x509_parser::nom;
use x509_parser::x509::AlgorithmIdentifier;

pub(super) const TRAILING: &str =
    "must end with the encoded content: remove the bytes after it between BEGIN and END, or create it again";
pub(super) const BER: &str =
    "must be in DER, without the indefinite lengths and constructed strings of BER: use another tool";

/// Why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    Damaged,
    Trailing,
    Ber,
}

impl Problem {
    /// Returns the rule. That of damaged bytes says what they should have been.
    pub(super) fn rule(self, damaged: &'static str) -> &'static str {
        match self {
            Self::Damaged => damaged,
            Self::Trailing => TRAILING,
            Self::Ber => BER,
        }
    }
}

/// Reads the value that takes all bytes of a document.
pub(super) fn document(input: &[u8]) -> Result<Any<'_>, Problem> {
    let (rest, value) = next(input)?;
    rest.is_empty().then_some(value).ok_or(Problem::Trailing)
}

/// Reads the only value.
pub(super) fn only(input: &[u8]) -> Result<Any<'_>, Problem> {
    document(input).map_err(|problem| if problem == Problem::Trailing { Problem::Damaged } else { problem })
}

/// Returns the members of a SEQUENCE that has exactly `N`.
pub(super) fn members<'a, const N: usize>(value: &Any<'a>) -> Result<[Any<'a>; N], Problem> {
    list(value, Tag::Sequence)?.try_into().map_err(|_| Problem::Damaged)
}

/// Returns the members of a SEQUENCE or SET.
pub(super) fn list<'a>(value: &Any<'a>, tag: Tag) -> Result<Vec<Any<'a>>, Problem> {
    values(typed(value, tag)?)
}

/// Returns the content of a value of the universal type `tag`. In DER only lists are constructed (X.690 10.2).
pub(super) fn typed<'a>(value: &Any<'a>, tag: Tag) -> Result<&'a [u8], Problem> {
    let is_list = matches!(tag, Tag::Sequence | Tag::Set);
    match value.header.is_constructed() {
        _ if !is(value, tag) => Err(Problem::Damaged),
        is_constructed if is_constructed == is_list => Ok(value.data),
        true => Err(Problem::Ber),
        false => Err(Problem::Damaged),
    }
}

/// Reads all values.
pub(super) fn values(mut input: &[u8]) -> Result<Vec<Any<'_>>, Problem> {
    let mut values = Vec::new();
    while !input.is_empty() {
        let (rest, value) = next(input)?;
        values.push(value);
        input = rest;
    }
    Ok(values)
}

/// Reads the next value. Returns the input after it, and the value.
pub(super) fn next(input: &[u8]) -> Result<(&[u8], Any<'_>), Problem> {
    Any::from_der(input).map_err(|error| match error {
        nom::Err::Error(Error::DerConstraintFailed(_)) => Problem::Ber,
        _ => Problem::Damaged,
    })
}

/// Returns whether a value has a universal type.
pub(super) fn is(value: &Any<'_>, tag: Tag) -> bool {
    value.class() == Class::Universal && value.tag() == tag
}

/// Returns whether a value has a context-specific tag.
pub(super) fn is_context(value: &Any<'_>, tag: Tag) -> bool {
    value.class() == Class::ContextSpecific && value.tag() == tag
}

/// Reads an AlgorithmIdentifier (RFC 5280 4.1.1.2).
pub(super) fn algorithm<'a>(value: &Any<'a>) -> Result<AlgorithmIdentifier<'a>, Problem> {
    match list(value, Tag::Sequence)?.as_slice() {
        [name] => Ok(AlgorithmIdentifier::new(object_identifier(name)?, None)),
        [name, parameters] => Ok(AlgorithmIdentifier::new(object_identifier(name)?, Some(parameters.clone()))),
        _ => Err(Problem::Damaged),
    }
}

pub(super) fn bit_string<'a>(value: &Any<'a>) -> Result<BitString<'a>, Problem> {
    typed(value, Tag::BitString)?;
    BitString::try_from(value.clone()).map_err(|_| Problem::Damaged)
}

pub(super) fn object_identifier<'a>(value: &Any<'a>) -> Result<Oid<'a>, Problem> {
    typed(value, Tag::Oid).map(|content| Oid::new(content.into()))
}

/// Returns the bytes of a positive INTEGER without leading zeros.
pub(super) fn magnitude<'a>(integer: &Any<'a>) -> Option<&'a [u8]> {
    let bytes = typed(integer, Tag::Integer).ok()?;
    let is_negative = bytes.first()? & 0x80 != 0;
    let start = bytes.iter().position(|byte| *byte != 0)?;
    (!is_negative).then_some(&bytes[start..])
}
