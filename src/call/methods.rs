//! The methods of the gateway, by their descriptors.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MethodDescriptor};

use crate::proto;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTOR_SET).expect("the descriptor set is a constant"));

/// How similar a name must be to be suggested (Jaro-Winkler), as clap requires of arguments.
const MIN_SIMILARITY: f64 = 0.7;

/// The most names that are suggested.
const MAX_SIMILAR: usize = 3;

/// Returns all methods, in the order of the protos.
fn all() -> impl Iterator<Item = MethodDescriptor> {
    POOL.services().flat_map(|service| service.methods().collect::<Vec<_>>())
}

/// Returns the full names of all methods, as `package.Service/Method`.
pub(super) fn names() -> Vec<String> {
    all().map(|method| format!("{}/{}", method.parent_service().full_name(), method.name())).collect()
}

/// Returns the method with this name. The package, or package and service, can be omitted.
pub(super) fn find(name: &str) -> Result<MethodDescriptor, String> {
    let suffix = format!(".{}", name.trim_start_matches('/').replace('/', "."));
    let mut found = all().filter(|method| format!(".{}", method.full_name()).ends_with(&suffix));
    let Some(method) = found.next() else {
        let short = name.rsplit(['/', '.']).next().unwrap_or(name);
        let methods: Vec<_> = all().collect();
        let similar = similar(short, methods.iter().map(MethodDescriptor::name));
        return Err(if similar.is_empty() {
            "unknown method; `scm-gateway call --list` lists all".to_owned()
        } else {
            format!("unknown method; similar ones are {}", similar.join(", "))
        });
    };
    match found.next() {
        None => Ok(method),
        Some(_) => Err("more than one service has this method; name it as Service/Method".to_owned()),
    }
}

/// Returns the names that are similar to `name`, the most similar first.
pub(super) fn similar<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let name = name.to_lowercase();
    let mut rated: Vec<_> = names
        .map(|candidate| (strsim::jaro_winkler(&name, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .collect();
    rated.sort_by(|(left, _), (right, _)| right.total_cmp(left));
    rated.into_iter().map(|(_, candidate)| candidate).take(MAX_SIMILAR).collect()
}
