//! An HTTP/2 client that sends raw frames and collects the frames that it receives.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// The payload of the last PING, whose acknowledgement shows that all earlier frames were accepted.
const LAST_PING: &[u8; 8] = b"the end.";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the client's preface and SETTINGS.
pub fn preface(settings: &[u8]) -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, settings)].concat()
}

/// Encodes a literal field without indexing (RFC 7541 6.2.2). Name and value must have less than 127 bytes.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// Returns the header fields of a gRPC call to this path.
pub fn call_of(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    fields.map(|(name, value)| field(name, value)).concat()
}

/// Returns the header fields of a call to SaveInfo.
pub fn save_info() -> Vec<u8> {
    call_of("/huaweicloud.scm.v1.CertificateService/SaveInfo")
}

/// The frames received until the connection closed or the last PING was acknowledged.
#[derive(Debug, Default)]
pub struct Received {
    /// Type, stream and the first four bytes of the payload of each frame.
    pub frames: Vec<(u8, u32, [u8; 4])>,
    /// The error code of the GOAWAY.
    pub go_away: Option<u32>,
    /// Whether the last PING was acknowledged, so that the connection is alive.
    pub alive: bool,
}

impl Received {
    /// Returns the number of frames of this type.
    pub fn count(&self, kind: u8) -> usize {
        self.frames.iter().filter(|frame| frame.0 == kind).count()
    }

    /// Returns the error code of a stream's RST_STREAM.
    pub fn reset(&self, stream: u32) -> Option<u32> {
        self.frames.iter().find(|f| (f.0, f.1) == (RST_STREAM, stream)).map(|f| u32::from_be_bytes(f.2))
    }
}

/// Sends these bytes and a PING on a new connection, and reads until the PING is acknowledged.
pub async fn send(address: &str, bytes: &[u8]) -> Received {
    send_until(address, bytes, |received| received.alive).await
}

/// Sends these bytes and a PING on a new connection, and reads until `complete` returns true.
pub async fn send_until(address: &str, bytes: &[u8], complete: impl Fn(&Received) -> bool) -> Received {
    let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    let write = async {
        // The server may close the connection before it has read all bytes.
        let _ = writer.write_all(bytes).await;
        let _ = writer.write_all(&frame(PING, 0, 0, LAST_PING)).await;
        std::future::pending::<()>().await;
    };
    let read = async {
        let mut received = Received::default();
        let mut head = [0; 9];
        while !complete(&received) && reader.read_exact(&mut head).await.is_ok() {
            let [l0, l1, l2, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
            if reader.read_exact(&mut payload).await.is_err() {
                break;
            }
            if (kind, flags) == (PING, ACK) && payload == LAST_PING {
                received.alive = true;
            }
            if kind == GOAWAY {
                received.go_away = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
            payload.resize(payload.len().max(4), 0);
            received.frames.push((kind, u32::from_be_bytes(stream), payload[..4].try_into().unwrap()));
        }
        received
    };
    tokio::select! {
        received = read => received,
        () = write => unreachable!(),
    }
}
