//! Parsers of plain values: durations, sizes, addresses, paths.
//!
//! The message of each parser names the expected format and never the value.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use toml::Value;

use super::raw::Raw;

/// Parses `true` or `false`: a TOML boolean, or the word in a variable.
pub(in crate::config) fn boolean(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::File(Value::Boolean(value)) => Ok(*value),
        Raw::File(_) => Err(raw.wrong_type("true or false without quotes")),
        Raw::Variable(text) => text.parse().map_err(|_| "expects true or false".to_owned()),
    }
}

/// Parses any text.
pub(in crate::config) fn text(raw: &Raw) -> Result<String, String> {
    raw.text("text").map(str::to_owned)
}

/// Parses a list of texts: a TOML array, or comma-separated entries in a variable.
pub(in crate::config) fn texts(raw: &Raw) -> Result<Vec<String>, String> {
    const EXPECTS: &str = "a list of texts";
    match raw {
        Raw::File(Value::Array(values)) => {
            let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| format!("expects {EXPECTS}"));
            values.iter().map(text).collect()
        }
        Raw::File(_) => Err(raw.wrong_type(EXPECTS)),
        Raw::Variable(_) => {
            let entries = raw.text(EXPECTS)?.split(',').map(str::trim);
            Ok(entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
        }
    }
}

/// Returns a parser of durations within `bounds`, written as text with a unit.
pub(in crate::config) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&Raw) -> Result<Duration, String> {
    move |raw| {
        const EXPECTS: &str = "a duration such as \"10s\"";
        let value = humantime::parse_duration(raw.text(EXPECTS)?).ok();
        let shown = humantime::format_duration;
        value
            .filter(|value| bounds.contains(value))
            .ok_or_else(|| format!("expects {EXPECTS}, from {} to {}", shown(*bounds.start()), shown(*bounds.end())))
    }
}

/// Returns a parser of whole numbers within `bounds`: a TOML integer, or digits in a variable.
pub(in crate::config) fn integer(bounds: RangeInclusive<u32>) -> impl Fn(&Raw) -> Result<u32, String> {
    move |raw| {
        let value = match raw {
            Raw::File(Value::Integer(value)) => u32::try_from(*value).ok(),
            Raw::File(_) => return Err(raw.wrong_type("a whole number without quotes")),
            Raw::Variable(text) => text.parse().ok(),
        };
        let expects = || format!("expects a whole number from {} to {}", bounds.start(), bounds.end());
        value.filter(|value| bounds.contains(value)).ok_or_else(expects)
    }
}

/// Returns a parser of sizes in bytes within `bounds`, written as text with a unit.
pub(in crate::config) fn size(bounds: RangeInclusive<u64>) -> impl Fn(&Raw) -> Result<usize, String> {
    move |raw| {
        const EXPECTS: &str = "a size such as \"64KiB\"";
        let value = raw.text(EXPECTS)?.parse::<ByteSize>().ok();
        let value = value.filter(|value| bounds.contains(&value.as_u64()));
        let shown = |bytes: &u64| ByteSize(*bytes).display().iec();
        value
            .and_then(|value| usize::try_from(value.as_u64()).ok())
            .ok_or_else(|| format!("expects {EXPECTS}, from {} to {}", shown(bounds.start()), shown(bounds.end())))
    }
}

/// Parses an IP address with its port.
pub(in crate::config) fn address(raw: &Raw) -> Result<SocketAddr, String> {
    const EXPECTS: &str = "an IP address and port such as \"127.0.0.1:9464\"";
    raw.text(EXPECTS)?.parse().map_err(|_| format!("expects {EXPECTS}"))
}

/// Parses the path of a file.
pub(in crate::config) fn path(raw: &Raw) -> Result<PathBuf, String> {
    let text = raw.text("the path of a file")?;
    if text.is_empty() || text.contains('\0') {
        return Err("expects the path of a file".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// Formats a path for messages. A relative path is not shown, because it may be a secret that was set instead of the
/// path of its file.
pub(in crate::config) fn shown(path: &Path) -> String {
    if path.is_absolute() || path.starts_with(".") || path.starts_with("..") {
        path.display().to_string()
    } else {
        "the file named here (a relative path)".to_owned()
    }
}
