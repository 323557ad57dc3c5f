//! The floor: tonic, the vendor's signature and reqwest.

use bytes::Bytes;
use floor::Client;
use http::{
    HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE},
};

struct Reqwest(reqwest::Client);

impl Client for Reqwest {
    type Error = reqwest::Error;

    async fn post(
        &self,
        url: String,
        date: String,
        authorization: HeaderValue,
        body: Bytes,
    ) -> Result<Bytes, reqwest::Error> {
        let request = self
            .0
            .post(url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("x-sdk-date", date)
            .header(AUTHORIZATION, authorization)
            .body(body);
        request.send().await?.error_for_status()?.bytes().await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    floor::serve(Reqwest(reqwest::Client::builder().no_proxy().http1_only().build()?)).await
}
