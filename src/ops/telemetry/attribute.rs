//! The names of attributes: semantic conventions 1.45, and `scm.*` for attributes that they do not define.

/// The RPC system, `grpc`.
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// The full name of the RPC, or `_OTHER` for an unknown one.
pub const RPC_METHOD: &str = "rpc.method";
/// The name of the gRPC status, such as `NOT_FOUND`.
pub const RPC_RESPONSE_STATUS_CODE: &str = "rpc.response.status_code";
/// The kind of a failure.
pub const ERROR_TYPE: &str = "error.type";
/// The reason of `google.rpc.ErrorInfo`.
pub const SCM_REASON: &str = "scm.reason";
/// `true` for a dry run.
pub const SCM_DRY_RUN: &str = "scm.dry_run";
/// The HTTP method, such as `POST`.
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// The HTTP status, an integer.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// The number of previous attempts, an integer; from the second attempt on.
pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
/// The host of SCM's endpoint.
pub const SERVER_ADDRESS: &str = "server.address";
/// The port of SCM's endpoint, an integer.
pub const SERVER_PORT: &str = "server.port";
/// The path template.
pub const URL_TEMPLATE: &str = "url.template";
/// The vendor's error code.
pub const SCM_UPSTREAM_CODE: &str = "scm.upstream_code";
/// The vendor's id of the request.
pub const SCM_UPSTREAM_REQUEST_ID: &str = "scm.upstream_request_id";
