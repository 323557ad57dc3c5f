//! Lists of methods: what an instance serves, and what a caller may call.

use std::collections::BTreeSet;

use super::reader::{Raw, values};
use crate::proto::{RPCS, Rpc};

/// The word for all methods that need not be granted by name.
pub(super) const ALL: &str = "*";

/// The word for the methods of [`ALL`] that only read.
const READ: &str = "read";

/// Parses a list of names and words. Returns the full names of the methods.
pub(super) fn parse(raw: &Raw) -> Result<BTreeSet<&'static str>, String> {
    let mut methods = BTreeSet::new();
    let names = values::texts(raw)?;
    for (index, name) in names.iter().enumerate() {
        let granted = RPCS.iter().filter(|rpc| match name.as_str() {
            ALL => !rpc.granted_by_name,
            READ => rpc.read_only && !rpc.granted_by_name,
            name => rpc.short_name() == name,
        });
        let granted: Vec<_> = granted.map(|rpc| rpc.name).collect();
        if granted.is_empty() {
            return Err(unknown(index, name));
        }
        methods.extend(granted);
    }
    if methods.is_empty() {
        return Err(format!("is empty: {EXPECTED}"));
    }
    Ok(methods)
}

const EXPECTED: &str = "list names of RPCs, \"read\" for all that only read, or \"*\" for all except those by name only; in a \
                        variable, separated by commas";

/// Returns the problem of an entry. A name that differs only in case is what was meant.
fn unknown(index: usize, name: &str) -> String {
    let words = [ALL, READ].into_iter().chain(RPCS.iter().map(Rpc::short_name));
    let meant = words.into_iter().find(|word| word.eq_ignore_ascii_case(name.trim()));
    match meant {
        Some(meant) => format!("entry {index} is unknown: write it {meant:?}"),
        None => format!("entry {index} is unknown: {EXPECTED} (docs/api.md has the names)"),
    }
}

/// Returns a list of methods for people: their names in the order of the proto.
pub(super) fn shown(methods: &BTreeSet<&'static str>) -> String {
    let names = RPCS.iter().filter(|rpc| methods.contains(rpc.name)).map(Rpc::short_name);
    names.collect::<Vec<_>>().join(", ")
}
