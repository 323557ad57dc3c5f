//! Judges a client's frames by their heads, as the bytes come: what RFC 9113 forbids and h2 lets pass or names wrongly,
//! and floods of frames that bring no call further.

use std::time::Duration;

use h2::Reason;
use tokio::time::Instant;

/// The client's preface (RFC 9113 3.4).
const PREFACE: usize = 24;

/// The head of a frame (4.1), and one setting (6.5.1).
const HEAD: usize = 9;
const SETTING: usize = 6;

// Types (6), flags and a setting (6.5.2) as far as they are looked at.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// The largest window (6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Other frames that go with one of HEADERS or DATA. A client that probes the bandwidth sends a PING for what it
/// received, and two WINDOW_UPDATEs for each frame of an answer.
const PAID: u32 = 20;

/// In this time the allowance of other frames is there again, whatever was sent: quiet connections live long.
const RENEWAL: Duration = Duration::from_secs(10);

/// The next few bytes, which may come in pieces.
#[derive(Default)]
struct Part {
    bytes: [u8; HEAD],
    filled: usize,
}

impl Part {
    /// Takes from `input` what is missing to `N` bytes; None if there is not enough.
    fn take<const N: usize>(&mut self, input: &mut &[u8]) -> Option<[u8; N]> {
        let (head, rest) = input.split_at(input.len().min(N - self.filled));
        self.bytes[self.filled..self.filled + head.len()].copy_from_slice(head);
        self.filled += head.len();
        *input = rest;
        if self.filled < N {
            return None;
        }
        self.filled = 0;
        self.bytes.first_chunk().copied()
    }
}

/// Passes over up to `left` bytes of `input`.
fn skip(left: &mut usize, input: &mut &[u8]) {
    let size = input.len().min(*left);
    *left -= size;
    *input = &input[size..];
}

struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl From<[u8; HEAD]> for Head {
    fn from([l0, l1, l2, kind, flags, s0, s1, s2, s3]: [u8; HEAD]) -> Self {
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }
}

/// What a client has sent so far.
pub(super) struct Inbound {
    part: Part,
    /// Bytes to pass over, of the preface or of a payload.
    skip: usize,
    /// Bytes of settings that follow.
    settings: usize,
    begun: bool,
    in_field_block: bool,
    streams: Streams,
    allowance: Allowance,
}

impl Inbound {
    /// From the first byte of a connection on.
    pub(super) fn new(max_control_frames: u32, now: Instant) -> Self {
        Self {
            part: Part::default(),
            skip: PREFACE,
            settings: 0,
            begun: false,
            in_field_block: false,
            streams: Streams { last: 0, ended: 0 },
            allowance: Allowance { most: max_control_frames, left: max_control_frames, renewed: now },
        }
    }

    /// Whether the preface and the head of its SETTINGS have come.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The highest stream that the client has opened.
    pub(super) fn last_stream(&self) -> u32 {
        self.streams.last
    }

    /// Looks at the next bytes; the error is the reason to end the connection for.
    pub(super) fn read(&mut self, mut input: &[u8], now: Instant) -> Result<(), Reason> {
        while !input.is_empty() {
            if self.skip > 0 {
                skip(&mut self.skip, &mut input);
            } else if self.settings > 0 {
                let Some(setting) = self.part.take::<SETTING>(&mut input) else { break };
                self.settings -= SETTING;
                check_setting(setting)?;
            } else {
                let Some(head) = self.part.take::<HEAD>(&mut input) else { break };
                self.judge(&head.into(), now)?;
            }
        }
        Ok(())
    }

    fn judge(&mut self, head: &Head, now: Instant) -> Result<(), Reason> {
        let is_ack = head.flags & ACK != 0;
        let begins = self.begun || head.kind == SETTINGS && !is_ack; // 3.4
        let follows = self.in_field_block == (head.kind == CONTINUATION); // 4.3
        if !begins || !follows || head.kind == PUSH_PROMISE {
            return Err(Reason::PROTOCOL_ERROR); // the last by 8.4
        }
        self.begun = true;
        self.in_field_block = matches!(head.kind, HEADERS | CONTINUATION) && head.flags & END_HEADERS == 0;
        let fits = match head.kind {
            PRIORITY => head.length == 5,
            RST_STREAM | WINDOW_UPDATE => head.length == 4,
            PING => head.length == 8,
            SETTINGS if is_ack => head.length == 0,
            SETTINGS => head.length.is_multiple_of(SETTING),
            _ => true,
        };
        if !fits {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        match head.kind {
            SETTINGS => self.settings = head.length,
            _ => self.skip = head.length,
        }
        self.streams.follow(head)?;
        match head.kind {
            HEADERS => self.allowance.pay(),
            DATA if head.length > 0 || head.flags & END_STREAM != 0 => self.allowance.pay(),
            CONTINUATION => {} // h2 counts them
            _ => self.allowance.spend(now)?,
        }
        Ok(())
    }
}

fn check_setting([i0, i1, value @ ..]: [u8; SETTING]) -> Result<(), Reason> {
    let is_window = u16::from_be_bytes([i0, i1]) == INITIAL_WINDOW_SIZE;
    if is_window && u32::from_be_bytes(value) > MAX_WINDOW { Err(Reason::FLOW_CONTROL_ERROR) } else { Ok(()) }
}

/// Which of its latest streams the client has ended; h2 soon forgets and takes a late frame for another error.
struct Streams {
    last: u32,
    /// Bit n: of stream `last` - 2n.
    ended: u128,
}

impl Streams {
    fn follow(&mut self, head: &Head) -> Result<(), Reason> {
        if head.stream.is_multiple_of(2) {
            return Ok(()); // the connection, or no stream of a client: h2 knows
        }
        if head.kind == HEADERS && head.stream > self.last {
            self.ended = self.ended.checked_shl((head.stream - self.last) / 2).unwrap_or(0);
            self.last = head.stream;
        }
        let Some(age) = self.last.checked_sub(head.stream) else { return Ok(()) };
        let bit = 1u128.checked_shl(age / 2).unwrap_or(0);
        match head.kind {
            DATA | HEADERS if self.ended & bit != 0 => return Err(Reason::STREAM_CLOSED), // 5.1
            // Not by RST_STREAM: what a cancelled call had under way may follow it (grpc-java), and harms nobody.
            DATA | HEADERS if head.flags & END_STREAM != 0 => self.ended |= bit,
            _ => {}
        }
        Ok(())
    }
}

/// Frames that bring no call further and may still come.
struct Allowance {
    most: u32,
    left: u32,
    renewed: Instant,
}

impl Allowance {
    fn pay(&mut self) {
        self.left = self.most.min(self.left + PAID);
    }

    fn spend(&mut self, now: Instant) -> Result<(), Reason> {
        if self.left == 0 {
            if now - self.renewed < RENEWAL {
                return Err(Reason::ENHANCE_YOUR_CALM);
            }
            (self.left, self.renewed) = (self.most, now);
        }
        self.left -= 1;
        Ok(())
    }
}

/// Where in its frames the server is.
#[derive(Default)]
pub(super) struct Outbound {
    part: Part,
    skip: usize,
}

impl Outbound {
    /// Looks at the next bytes.
    pub(super) fn write(&mut self, mut output: &[u8]) {
        while !output.is_empty() {
            if self.skip > 0 {
                skip(&mut self.skip, &mut output);
            } else if let Some(head) = self.part.take::<HEAD>(&mut output) {
                self.skip = Head::from(head).length;
            }
        }
    }

    /// Whether another frame may follow here.
    pub(super) fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.part.filled == 0
    }
}

/// A GOAWAY frame (6.8).
pub(super) fn go_away(last_stream: u32, reason: Reason) -> [u8; HEAD + 8] {
    let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[HEAD..HEAD + 4].copy_from_slice(&last_stream.to_be_bytes());
    frame[HEAD + 4..].copy_from_slice(&u32::from(reason).to_be_bytes());
    frame
}

#[cfg(test)]
mod tests;
