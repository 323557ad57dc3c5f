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
    for name in values::texts(raw)? {
        let granted = RPCS.iter().filter(|rpc| match name.as_str() {
            ALL => !rpc.granted_by_name,
            READ => rpc.read_only && !rpc.granted_by_name,
            name => rpc.short_name() == name,
        });
        let granted: Vec<_> = granted.map(|rpc| rpc.name).collect();
        if granted.is_empty() {
            return Err(expected());
        }
        methods.extend(granted);
    }
    if methods.is_empty() { Err(expected()) } else { Ok(methods) }
}

fn expected() -> String {
    let names = |by_name: bool| {
        let rpcs = RPCS.iter().filter(|rpc| rpc.granted_by_name == by_name);
        rpcs.map(Rpc::short_name).collect::<Vec<_>>().join(", ")
    };
    format!(
        "expects a list of methods and of the words \"read\" (all that only read) and \"*\" (all except those that have to be \
         granted by name). The methods: {}. By name only: {}",
        names(false),
        names(true)
    )
}

/// Returns a list of methods for people: their names in the order of the proto.
pub(super) fn shown(methods: &BTreeSet<&'static str>) -> String {
    let names = RPCS.iter().filter(|rpc| methods.contains(rpc.name)).map(Rpc::short_name);
    names.collect::<Vec<_>>().join(", ")
}
