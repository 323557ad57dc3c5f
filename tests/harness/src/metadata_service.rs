//! Emulates the metadata service of an ECS, which returns tokens, and credentials for a request with a token. Its
//! responses are configurable.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// The token of every session.
pub const TOKEN: &str = "metadata-token==";

/// A status and a body.
type Reply = (u16, String);

struct State {
    token: Reply,
    credentials: Reply,
    requests: Vec<String>,
    open: watch::Sender<bool>,
}

/// A running metadata service. Dropping it stops the service.
pub struct MetadataService {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
    listen: JoinHandle<()>,
}

impl MetadataService {
    /// Starts a service that has no credentials yet.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            token: (200, TOKEN.to_owned()),
            credentials: (503, String::new()),
            requests: Vec::new(),
            open: watch::Sender::new(true),
        };
        let state = Arc::new(Mutex::new(state));
        let listen = tokio::spawn({
            let state = state.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(stream, state.clone()));
                }
            }
        });
        Self { endpoint, state, listen }
    }

    /// Returns the variable that makes a gateway use this service.
    pub fn variable(&self) -> (&'static str, &str) {
        ("SCM_GATEWAY__UPSTREAM__METADATA_ENDPOINT", &self.endpoint)
    }

    /// Returns the credentials `AK{name}` from now on.
    pub fn issue(&self, name: &str, validity: Duration) {
        let expires_at =
            jiff::Timestamp::try_from(SystemTime::now() + validity).unwrap().strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
        self.answer(
            200,
            &format!(
                r#"{{"credential":{{"access":"AK{name}","expires_at":"{expires_at}","secret":"SK{name}","securitytoken":"token{name}"}}}}"#
            ),
        );
    }

    /// Sets the response to requests for credentials.
    pub fn answer(&self, status: u16, body: &str) {
        self.state.lock().unwrap().credentials = (status, body.to_owned());
    }

    /// Sets the response to requests for a token.
    pub fn answer_token(&self, status: u16, body: &str) {
        self.state.lock().unwrap().token = (status, body.to_owned());
    }

    /// With `false`, delays every response until this is called with `true`.
    pub fn open(&self, open: bool) {
        self.state.lock().unwrap().open.send_replace(open);
    }

    /// Returns the method and path of every request, followed by `token` if the request had one.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Waits for at least this number of requests, up to 10 s.
    pub async fn wait_for_requests(&self, number: usize) {
        for _ in 0..1000 {
            if self.requests().len() >= number {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {number} requests in 10 s: {:?}", self.requests());
    }
}

impl Drop for MetadataService {
    fn drop(&mut self) {
        self.listen.abort();
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let (method_and_path, _) = head.split_once(" HTTP/1.1\r\n").unwrap();
    let token = header("x-metadata-token");
    let mut open = {
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{method_and_path}{}", if token.is_some() { " token" } else { "" }));
        state.open.subscribe()
    };
    if open.wait_for(|open| *open).await.is_err() {
        return;
    }
    let (status, body) = {
        let state = state.lock().unwrap();
        match method_and_path {
            "PUT /meta-data/latest/api/token" if state.token.0 == 200 => {
                let ttl = header("x-metadata-token-ttl-seconds").and_then(|ttl| ttl.parse::<u32>().ok());
                if ttl.is_some_and(|ttl| (1..=21_600).contains(&ttl))
                    && header("content-length").as_deref() == Some("0")
                {
                    state.token.clone()
                } else {
                    (400, String::new())
                }
            }
            "PUT /meta-data/latest/api/token" => state.token.clone(),
            "GET /openstack/latest/securitykey" => match (state.token.0, token) {
                (404 | 405 | 503, None) => state.credentials.clone(),
                (200, Some(token)) if token == state.token.1 => state.credentials.clone(),
                _ => (401, "no token".to_owned()),
            },
            _ => (404, String::new()),
        }
    };
    let length = body.len();
    let location = "Location: /openstack/latest/securitykey";
    let answer = format!("HTTP/1.1 {status} X\r\n{location}\r\nContent-Length: {length}\r\n\r\n{body}");
    let _ = stream.write_all(answer.as_bytes()).await;
}
