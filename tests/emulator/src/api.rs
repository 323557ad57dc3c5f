//! The vendor's API as data: which requests exist, and what they may contain.

mod check;
mod json;
mod operations;
mod route;

pub(crate) use check::{Input, check};
pub(crate) use json::parse as parse_json;
pub(crate) use route::{Found, find};
