//! The lower floor: tonic, the vendor's signature, and hyper's pooled HTTP/1.1 client.

use std::error::Error;

use bytes::Bytes;
use floor::Client;
use http::{
    HeaderValue, Request,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};

struct Hyper(legacy::Client<HttpConnector, Full<Bytes>>);

impl Client for Hyper {
    type Error = Box<dyn Error + Send + Sync>;

    async fn post(
        &self,
        url: String,
        date: String,
        authorization: HeaderValue,
        body: Bytes,
    ) -> Result<Bytes, Self::Error> {
        let request = Request::post(url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("x-sdk-date", date)
            .header(AUTHORIZATION, authorization)
            .body(Full::new(body))?;
        let response = self.0.request(request).await?;
        if !response.status().is_success() {
            return Err(response.status().to_string().into());
        }
        Ok(response.into_body().collect().await?.to_bytes())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    floor::serve(Hyper(legacy::Client::builder(TokioExecutor::new()).build(connector))).await
}
