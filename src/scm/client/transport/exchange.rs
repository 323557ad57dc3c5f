//! Requests to the services that issue credentials: one connection a request, a small response that holds secrets.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, connect::capture_connection},
    rt::TokioExecutor,
};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::{
    Client, Connector, ERROR_BODY_TIMEOUT, HEAD_MARGIN, SendError, SendErrorKind, Transport, WriteStarted, classify,
    classify_body, invalid_url, request,
};
use crate::{clock, config::Endpoint};

/// The largest response body.
const MAX_BODY: usize = 64 * 1024;

/// A request to a service that issues credentials.
pub(in crate::scm) struct ExchangeRequest {
    pub(in crate::scm) method: Method,
    pub(in crate::scm) endpoint: Endpoint,
    /// The path with the query; begins with `/`.
    pub(in crate::scm) path: String,
    pub(in crate::scm) headers: HeaderMap,
    pub(in crate::scm) body: Bytes,
    /// Whether the request goes through the proxy, if there is one. Those to this machine or link never do.
    pub(in crate::scm) via_proxy: bool,
}

/// The response. A redirect is a response like any other: it is not followed.
pub(in crate::scm) struct ExchangeReply {
    pub(in crate::scm) status: StatusCode,
    pub(in crate::scm) headers: HeaderMap,
    pub(in crate::scm) body: Zeroizing<Vec<u8>>,
}

impl Transport {
    /// Sends a request with the trust roots of the moment, and reads the response until the deadline.
    ///
    /// The status of a failure is sufficient: if its body is slow, large or broken, the body is empty here.
    pub(in crate::scm) async fn exchange(
        &self,
        exchange: ExchangeRequest,
        deadline: Instant,
    ) -> Result<ExchangeReply, SendError> {
        let ExchangeRequest { method, endpoint, path, headers, body, via_proxy } = exchange;
        let mut request = request(method, endpoint.uri(path).map_err(invalid_url)?, headers, body);
        let connector = self.pool.borrow().connector.clone();
        let is_direct = !via_proxy || endpoint.is_on_this_link();
        let connector = if is_direct { connector.without_proxy() } else { connector };
        let write_started = WriteStarted(capture_connection(&mut request));
        let response = async {
            let response = client(connector).request(request).await.map_err(|error| classify(&error))?;
            let (head, body) = response.into_parts();
            let (status, headers) = (head.status, head.headers);
            let body = if status == StatusCode::OK {
                read(body, &headers).await?
            } else {
                let until = (clock::monotonic() + ERROR_BODY_TIMEOUT).min(deadline - HEAD_MARGIN);
                timeout_at(until, read(body, &headers)).await.ok().and_then(Result::ok).unwrap_or_default()
            };
            Ok(ExchangeReply { status, headers, body })
        };
        timeout_at(deadline, response).await.unwrap_or_else(|_| Err(write_started.timeout_error()))
    }
}

fn client(connector: Connector) -> Client<Connector> {
    legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .retry_canceled_requests(false)
        .build(connector)
}

/// Reads a body. The buffer never grows, because that would leave a copy behind that is not wiped.
async fn read(mut body: Incoming, headers: &HeaderMap) -> Result<Zeroizing<Vec<u8>>, SendError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| classify_body(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > MAX_BODY - bytes.len() {
            let kind = SendErrorKind::TooLarge(Box::new((StatusCode::OK.as_u16(), headers.clone())));
            return Err(SendError { kind, cause: "response larger than 64 KiB" });
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}
