//! A client that signs requests, writes bytes and reads responses. It shares no code with the emulator.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use scm_emulator::{Clock, Emulator, Options, SAMPLE_ACCESS_KEY, SAMPLE_PROJECT, SAMPLE_SECRET_KEY};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub(crate) const CERTIFICATE: &str = "scs1481110651012";
pub(crate) const NOW: &str = "20220809T040506Z";
const NOW_SECONDS: u64 = 1_660_017_906;

/// A clock that starts at `NOW` and is advanced manually.
#[derive(Clone, Default)]
pub(crate) struct ManualClock(Arc<Mutex<Duration>>);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }

    pub(crate) fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW_SECONDS) + *self.0.lock().unwrap()
    }

    pub(crate) fn clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }

    pub(crate) fn options(&self) -> Options {
        Options { now: self.clock(), ..Options::default() }
    }
}

pub(crate) async fn start() -> Emulator {
    Emulator::start(ManualClock::default().options()).await.unwrap()
}

pub(crate) fn draft() -> Value {
    json!({
        "domain": "www.xzz.com", "sans": "", "csr": "", "company_name": "Huawei Chengdu branch",
        "company_province": "Sichuan", "company_city": "Chengdu", "country": "CN",
        "company_unit": "Human Resource Dept", "applicant_name": "Tom",
        "applicant_phone": "13212345678", "applicant_email": "9997342346@qq.com",
        "contact_name": "Jacky", "contact_phone": "13512345678", "contact_email": "jk@jk.ff",
        "agree_privacy_protection": true
    })
}

/// A request. Changes between `sign` and `bytes` invalidate its signature.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) signed: Vec<&'static str>,
    pub(crate) body: Vec<u8>,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) authorization: Option<String>,
}

impl Call {
    pub(crate) fn to(action: &str, body: &[u8]) -> Self {
        Self {
            method: "POST",
            target: format!("/v2/{SAMPLE_PROJECT}/scm/cert/{CERTIFICATE}/{action}"),
            headers: vec![
                ("Host", "scm.example".to_owned()),
                ("Content-Type", "application/json".to_owned()),
                ("X-Sdk-Date", NOW.to_owned()),
            ],
            signed: vec!["content-type", "host", "x-sdk-date"],
            body: body.to_vec(),
            access_key: SAMPLE_ACCESS_KEY.to_owned(),
            secret_key: SAMPLE_SECRET_KEY.to_owned(),
            authorization: None,
        }
    }

    pub(crate) fn save() -> Self {
        Self::to("save", draft().to_string().as_bytes())
    }

    pub(crate) fn read() -> Self {
        Self::to("read", b"")
    }

    pub(crate) fn set(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(key, _)| *key != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn sign(mut self) -> Self {
        let values: BTreeMap<String, &str> =
            self.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let mut text = format!("{}\n{path}/\n{query}\n", self.method);
        for name in &self.signed {
            let value = values.get(*name).copied().unwrap_or_default();
            text.push_str(&format!("{name}:{value}\n"));
        }
        let list = self.signed.join(";");
        text.push_str(&format!("\n{list}\n{}", hex(&Sha256::digest(&self.body))));
        let date = values.get("x-sdk-date").copied().unwrap_or_default();
        let hash = hex(&Sha256::digest(text));
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret_key.as_bytes()).unwrap();
        mac.update(format!("SDK-HMAC-SHA256\n{date}\n{hash}").as_bytes());
        let signature = hex(&mac.finalize().into_bytes());
        self.authorization =
            Some(format!("SDK-HMAC-SHA256 Access={}, SignedHeaders={list}, Signature={signature}", self.access_key));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(authorization) = &self.authorization {
            head.push_str(&format!("Authorization: {authorization}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        found.next().map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("Content-Type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Reads a response. Returns `None` if the connection closes first.
pub(crate) async fn read_answer(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<Answer> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line).await {
            Ok(0) | Err(_) => return None,
            Ok(_) if line == "\r\n" => break,
            Ok(_) => lines.push(line.trim_end().to_owned()),
        }
    }
    let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "Content-Length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Answer { status, headers, body })
}

pub(crate) async fn connect(emulator: &Emulator) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(emulator.address()).await.unwrap())
}

/// Sends bytes on a new connection and reads the response.
pub(crate) async fn send(emulator: &Emulator, bytes: &[u8]) -> Option<Answer> {
    exchange(connect(emulator).await, bytes).await
}

pub(crate) async fn exchange(mut stream: BufReader<TcpStream>, bytes: &[u8]) -> Option<Answer> {
    stream.write_all(bytes).await.unwrap();
    read_answer(&mut stream).await
}

pub(crate) async fn call(emulator: &Emulator, call: &Call) -> Answer {
    send(emulator, &call.bytes()).await.unwrap()
}
