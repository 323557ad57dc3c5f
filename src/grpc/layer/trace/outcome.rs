//! How a call ended, as labels and attributes.

use opentelemetry::KeyValue;
use tonic::Code;

use crate::{
    grpc::status::code_name,
    ops::telemetry::{LabelSet, attribute as name},
    proto::RPCS,
};

/// The method label of a method that is not served, so that callers cannot add label values.
const OTHER: &str = "_OTHER";

/// The RPC of a call: its position in [`RPCS`], which is faster to hash than its name. `None` is a method that is not
/// served.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Rpc(Option<usize>);

impl Rpc {
    /// Returns the RPC that a path names.
    pub(super) fn of(path: &str) -> Self {
        Self(path.strip_prefix('/').and_then(|path| RPCS.iter().position(|rpc| rpc.name == path)))
    }

    /// Returns the full name, if the RPC is served.
    pub(super) fn name(self) -> Option<&'static str> {
        self.0.map(|position| RPCS[position].name)
    }

    /// Returns the method label.
    pub(super) fn label(self) -> &'static str {
        self.name().unwrap_or(OTHER)
    }
}

/// The labels of a call's duration, which its span has as attributes.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct CallOutcome {
    pub(super) rpc: Rpc,
    pub(super) code: Code,
    pub(super) reason: Option<&'static str>,
    /// Whether calls of this kind are expected to end so.
    pub(super) is_expected: bool,
}

impl CallOutcome {
    /// INTERNAL without a reason is gRPC's status for a malformed request, which is the caller's fault.
    pub(super) fn is_error(&self) -> bool {
        is_server_error(self.code) && !self.is_expected && (self.code != Code::Internal || self.reason.is_some())
    }

    /// Returns the attributes that are known only at the end.
    pub(super) fn attributes(&self) -> impl Iterator<Item = KeyValue> {
        let status = KeyValue::new(name::RPC_RESPONSE_STATUS_CODE, code_name(self.code));
        let reason = self.reason.map(|reason| KeyValue::new(name::SCM_REASON, reason));
        let error = self.is_error().then(|| KeyValue::new(name::ERROR_TYPE, code_name(self.code)));
        [Some(status), reason, error].into_iter().flatten()
    }
}

impl LabelSet for CallOutcome {
    fn labels(&self) -> Vec<KeyValue> {
        base(self.rpc).into_iter().chain(self.attributes()).collect()
    }
}

/// Returns the attributes that are known at the start.
pub(super) fn base(rpc: Rpc) -> Vec<KeyValue> {
    vec![KeyValue::new(name::RPC_SYSTEM_NAME, "grpc"), KeyValue::new(name::RPC_METHOD, rpc.label())]
}

/// Returns whether the semantic conventions for gRPC count the code as an error of the server.
fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
