//! Dry runs: calls that are authorized and validated, and that send nothing to SCM.

use http::{HeaderMap, HeaderName};
use tonic::{Response, metadata::MetadataValue};

use crate::error::{Error, Violation};

/// The metadata key, of the request and of the response to a dry run.
pub(crate) const KEY: &str = "x-scm-gateway-dry-run";

static HEADER: HeaderName = HeaderName::from_static(KEY);

/// What the metadata of a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// An ordinary call.
    No,
    /// A dry run.
    Yes,
    /// Neither. The caller may want a dry run, so the call must not be made.
    Invalid,
}

impl DryRun {
    /// Reads the metadata. A value that is repeated must not change.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(&HEADER).iter().map(|value| match value.as_bytes() {
            b"true" => Self::Yes,
            b"false" => Self::No,
            _ => Self::Invalid,
        });
        let first = values.next().unwrap_or(Self::No);
        if values.all(|value| value == first) { first } else { Self::Invalid }
    }

    /// Returns whether the call is a dry run.
    pub(super) fn requested(self) -> Result<bool, Error> {
        match self {
            Self::No => Ok(false),
            Self::Yes => Ok(true),
            Self::Invalid => Err(Error::invalid(vec![Violation {
                field: KEY.to_owned(),
                description: "must be true or false, in lower case and with the same value if repeated",
            }])),
        }
    }
}

/// Returns the response to a dry run. Its metadata tells it from that of an ordinary call, whose reply may be empty, too.
pub(super) fn response<R>(reply: R) -> Response<R> {
    let mut response = Response::new(reply);
    response.metadata_mut().insert(KEY, MetadataValue::from_static("true"));
    response
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{DryRun, HEADER};

    #[test]
    fn only_true_and_false_are_valid() {
        let read = |values: &[&[u8]]| {
            let headers = values.iter().map(|value| (HEADER.clone(), value.to_vec().try_into().unwrap()));
            DryRun::of(&headers.collect::<HeaderMap>())
        };
        use DryRun::{Invalid, No, Yes};
        for (values, expected) in [
            (&[][..], No),
            (&["false"], No),
            (&["true"], Yes),
            (&["true", "true"], Yes),
            (&["false", "false"], No),
            (&["true", "false"], Invalid),
            (&["false", "true"], Invalid),
            (&["true", "true", "1"], Invalid),
        ] {
            assert_eq!(read(&values.iter().map(|value| value.as_bytes()).collect::<Vec<_>>()), expected, "{values:?}");
        }
        for value in ["", "1", "0", "True", "TRUE", "yes", "on", "true,true", "true, false", "\"true\"", "\u{ff54}rue"]
        {
            assert_eq!(read(&[value.as_bytes()]), Invalid, "{value}");
        }
        assert_eq!(read(&[b"\xff"]), Invalid);
    }
}
