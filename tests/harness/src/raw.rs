//! A client that sends frames of its own making and hears what comes back.

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

/// The PING that asks whether all before it was taken.
const THE_END: &[u8; 8] = b"the end.";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The client's preface and SETTINGS.
pub fn beginning(settings: &[u8]) -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, settings)].concat()
}

/// A field that enters no table (RFC 7541 6.2.2), of less than 127 bytes each.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// The fields of a gRPC call of this path.
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

/// The fields of a call of SaveInfo.
pub fn save_info() -> Vec<u8> {
    call_of("/huaweicloud.scm.v1.CertificateService/SaveInfo")
}

/// What the server said to the end of the connection, or to the answer to the last PING.
#[derive(Debug, Default)]
pub struct Heard {
    /// Frames, with the first four bytes of their payload.
    pub frames: Vec<(u8, u32, [u8; 4])>,
    /// The reason of the GOAWAY.
    pub go_away: Option<u32>,
    /// The last PING was answered: the connection lives.
    pub lives: bool,
}

impl Heard {
    /// How many frames of this type there were.
    pub fn count(&self, kind: u8) -> usize {
        self.frames.iter().filter(|frame| frame.0 == kind).count()
    }

    /// The reason a stream was reset for.
    pub fn reset(&self, stream: u32) -> Option<u32> {
        self.frames.iter().find(|f| (f.0, f.1) == (RST_STREAM, stream)).map(|f| u32::from_be_bytes(f.2))
    }
}

/// Sends these bytes on a connection of their own, then a PING, and listens until its answer.
pub async fn send(address: &str, bytes: &[u8]) -> Heard {
    send_until(address, bytes, |heard| heard.lives).await
}

/// The same, until enough is heard.
pub async fn send_until(address: &str, bytes: &[u8], enough: impl Fn(&Heard) -> bool) -> Heard {
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let talk = async {
        // The server may have had enough before the end.
        let _ = write.write_all(bytes).await;
        let _ = write.write_all(&frame(PING, 0, 0, THE_END)).await;
        std::future::pending::<()>().await;
    };
    let listen = async {
        let mut heard = Heard::default();
        let mut head = [0; 9];
        while !enough(&heard) && read.read_exact(&mut head).await.is_ok() {
            let [l0, l1, l2, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
            if read.read_exact(&mut payload).await.is_err() {
                break;
            }
            if (kind, flags) == (PING, ACK) && payload == THE_END {
                heard.lives = true;
            }
            if kind == GOAWAY {
                heard.go_away = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
            payload.resize(payload.len().max(4), 0);
            heard.frames.push((kind, u32::from_be_bytes(stream), payload[..4].try_into().unwrap()));
        }
        heard
    };
    tokio::select! {
        heard = listen => heard,
        () = talk => unreachable!(),
    }
}
