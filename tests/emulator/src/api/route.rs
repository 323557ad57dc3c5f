//! Finds the operation of a request.

use super::operations::{OPERATIONS, Operation, Segment};
use crate::http::Request;
use crate::scm;

/// The result of a search.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// The operation, and the values of its path variables as they were sent.
    Operation(&'static Operation, Vec<(&'static str, &'a str)>),
    /// The path exists with these methods only.
    OtherMethods(Vec<&'static str>),
    Nothing,
}

/// Finds the operation with the request's method and path. Of several the one with the most literals counts, so that
/// `/v3/scm/tags` is no variable's value.
pub(crate) fn find(request: &Request) -> Found<'_> {
    let path: Vec<&str> = request.path().split('/').skip(1).collect();
    let offered = OPERATIONS.iter().filter(|operation| scm::offers(&operation.name));
    let mut matching: Vec<_> =
        offered.filter_map(|operation| Some((operation, variables(operation, &path)?))).collect();
    matching.sort_by_key(|(_, variables)| variables.len());
    let methods = matching.iter().map(|(operation, _)| operation.http_method.as_str()).collect();
    match matching.into_iter().find(|(operation, _)| operation.http_method == request.method) {
        Some((operation, variables)) => Found::Operation(operation, variables),
        None if Vec::is_empty(&methods) => Found::Nothing,
        None => Found::OtherMethods(methods),
    }
}

/// Returns the values of the path variables, or `None` if the path is not the operation's.
fn variables<'a>(operation: &'static Operation, path: &[&'a str]) -> Option<Vec<(&'static str, &'a str)>> {
    let mut variables = Vec::new();
    let mut rest = path.iter();
    for segment in operation.segments() {
        match (segment, rest.next()?) {
            (Segment::Literal(expected), sent) if expected == *sent => {}
            (Segment::Variable(name), sent) if !sent.is_empty() => variables.push((name, *sent)),
            _ => return None,
        }
    }
    rest.next().is_none().then_some(variables)
}
