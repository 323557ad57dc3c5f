//! Finds the operation of a request.

use std::sync::LazyLock;

use super::operations::{OPERATIONS, Operation, Segment};
use crate::http::Request;
use crate::scm;

/// The result of a search.
pub(crate) enum Found<'a> {
    /// The operation, and the values of its path variables as they were sent.
    Operation(&'static Operation, Vec<(&'static str, &'a str)>),
    /// The path exists with these methods only.
    OtherMethods(Vec<&'static str>),
    Nothing,
}

/// The operations that the emulator answers, with their paths. Of several that match, the first one has the fewest
/// variables, so that `/v3/scm/tags` is no variable's value.
static ROUTES: LazyLock<Vec<(&Operation, Vec<Segment<'_>>)>> = LazyLock::new(|| {
    let offered = OPERATIONS.iter().filter(|operation| scm::offers(&operation.name));
    let mut routes: Vec<_> = offered.map(|operation| (operation, operation.segments().collect())).collect();
    routes.sort_by_key(|(operation, _)| operation.path_params.len());
    routes
});

/// Finds the operation with the request's method and path.
pub(crate) fn find(request: &Request) -> Found<'_> {
    let path: Vec<&str> = request.path().split('/').skip(1).collect();
    let mut methods = Vec::new();
    for (operation, segments) in ROUTES.iter() {
        match variables(segments, &path) {
            Some(variables) if operation.http_method == request.method => {
                return Found::Operation(operation, variables);
            }
            Some(_) => methods.push(operation.http_method.as_str()),
            None => {}
        }
    }
    if methods.is_empty() { Found::Nothing } else { Found::OtherMethods(methods) }
}

/// Returns the values of the path variables, or `None` if the path is another one.
fn variables<'a>(segments: &[Segment<'static>], path: &[&'a str]) -> Option<Vec<(&'static str, &'a str)>> {
    if segments.len() != path.len() {
        return None;
    }
    let mut variables = Vec::new();
    for (segment, sent) in segments.iter().zip(path) {
        match segment {
            Segment::Literal(expected) if expected == sent => {}
            Segment::Variable(name) if !sent.is_empty() => variables.push((*name, *sent)),
            _ => return None,
        }
    }
    Some(variables)
}
