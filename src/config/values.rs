//! Parsers of plain values: durations, sizes, addresses, paths. Each says what it expects and never what it got.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use toml::Value;

use super::Listen;
use super::raw::Raw;

/// The longest path of a Unix socket: `sun_path` of unix(7) has room for 108 bytes, the last of them zero.
const LONGEST_SOCKET_PATH: usize = 107;

/// `true` or `false`: a TOML boolean, or in a variable the word.
pub(super) fn boolean(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::File(Value::Boolean(value)) => Ok(*value),
        Raw::File(_) => Err(raw.mistaken_for("true or false without quotes")),
        Raw::Variable(text) => text.parse().map_err(|_| "expects true or false".to_owned()),
    }
}

/// Text of any kind.
pub(super) fn text(raw: &Raw) -> Result<String, String> {
    raw.text("text").map(str::to_owned)
}

/// A list of texts: a TOML array, or in a variable its entries with commas between them.
pub(super) fn texts(raw: &Raw) -> Result<Vec<String>, String> {
    const EXPECTS: &str = "a list of texts";
    match raw {
        Raw::File(Value::Array(values)) => {
            let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| format!("expects {EXPECTS}"));
            values.iter().map(text).collect()
        }
        Raw::File(_) => Err(raw.mistaken_for(EXPECTS)),
        Raw::Variable(_) => {
            let entries = raw.text(EXPECTS)?.split(',').map(str::trim);
            Ok(entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
        }
    }
}

/// A duration within bounds, as text with its unit.
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&Raw) -> Result<Duration, String> {
    move |raw| {
        const EXPECTS: &str = "a duration such as \"10s\"";
        let value = humantime::parse_duration(raw.text(EXPECTS)?).ok();
        let shown = humantime::format_duration;
        value
            .filter(|value| bounds.contains(value))
            .ok_or_else(|| format!("expects {EXPECTS}, from {} to {}", shown(*bounds.start()), shown(*bounds.end())))
    }
}

/// A whole number within bounds: a TOML integer, or in a variable its digits.
pub(super) fn integer(bounds: RangeInclusive<u32>) -> impl Fn(&Raw) -> Result<u32, String> {
    move |raw| {
        let value = match raw {
            Raw::File(Value::Integer(value)) => u32::try_from(*value).ok(),
            Raw::File(_) => return Err(raw.mistaken_for("a whole number without quotes")),
            Raw::Variable(text) => text.parse().ok(),
        };
        let expects = || format!("expects a whole number from {} to {}", bounds.start(), bounds.end());
        value.filter(|value| bounds.contains(value)).ok_or_else(expects)
    }
}

/// A size in bytes within bounds, as text with its unit.
pub(super) fn size(bounds: RangeInclusive<u64>) -> impl Fn(&Raw) -> Result<usize, String> {
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

/// An IP address with its port.
pub(super) fn address(raw: &Raw) -> Result<SocketAddr, String> {
    const EXPECTS: &str = "an IP address and port such as \"127.0.0.1:9464\"";
    raw.text(EXPECTS)?.parse().map_err(|_| format!("expects {EXPECTS}"))
}

/// An IP address with its port, or `unix:` and the absolute path of a socket.
pub(super) fn listen(raw: &Raw) -> Result<Listen, String> {
    const EXPECTS: &str = "an IP address and port such as \"127.0.0.1:50051\", or \"unix:/run/scm-gateway.sock\"";
    let text = raw.text(EXPECTS)?;
    let Some(path) = text.strip_prefix("unix:") else {
        return text.parse().map(Listen::Tcp).map_err(|_| format!("expects {EXPECTS}"));
    };
    if !path.starts_with('/') || path.len() > LONGEST_SOCKET_PATH || path.contains('\0') {
        return Err(format!("expects an absolute path of at most {LONGEST_SOCKET_PATH} bytes after \"unix:\""));
    }
    Ok(Listen::Unix(PathBuf::from(path)))
}

/// The path of a file.
pub(super) fn path(raw: &Raw) -> Result<PathBuf, String> {
    let text = raw.text("the path of a file")?;
    if text.is_empty() || text.contains('\0') {
        return Err("expects the path of a file".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// A path as messages show it. Only one that is unmistakably a path: the secret itself, written where the name of its
/// file belongs, looks like a relative one.
pub(super) fn shown(path: &Path) -> String {
    match path.is_absolute() || path.starts_with(".") || path.starts_with("..") {
        true => path.display().to_string(),
        false => "the file named here (a relative path)".to_owned(),
    }
}
