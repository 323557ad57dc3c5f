//! Checks the frame headers of a client. Rejects frames that RFC 9113 forbids and h2 accepts or reports with another error,
//! and floods of control frames. Section numbers are those of RFC 9113.

use std::time::Duration;

use h2::Reason;
use tokio::time::Instant;

use super::open_streams::OpenStreams;

mod outbound;

use outbound::SentFrame;
pub(super) use outbound::{Outbound, go_away};

/// The length of the client's preface (3.4).
const PREFACE: usize = 24;

/// The lengths of a frame header (4.1) and of a setting (6.5.1).
const FRAME_HEADER: usize = 9;
const SETTING: usize = 6;

// The frame types (6), flags and setting (6.5.2) that are checked.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// The largest window (6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Control frames that each HEADERS or DATA frame adds to the budget. A client that probes the bandwidth sends a PING for
/// each frame of a response, and two WINDOW_UPDATEs.
const DEPOSIT: u32 = 20;

/// The budget is refilled at this interval, so that a long-lived idle connection is never closed for its keep-alive
/// PINGs.
const REFILL_INTERVAL: Duration = Duration::from_secs(10);

/// A few bytes that may arrive in pieces.
#[derive(Default)]
struct PartialBytes {
    bytes: [u8; FRAME_HEADER],
    filled: usize,
}

impl PartialBytes {
    /// Completes `N` bytes from `input`. Returns `None` if `input` ends before.
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

/// Skips up to `remaining` bytes of `input`.
fn skip(remaining: &mut usize, input: &mut &[u8]) {
    let size = input.len().min(*remaining);
    *remaining -= size;
    *input = &input[size..];
}

/// The header of a frame.
struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl FrameHeader {
    fn is_ack(&self) -> bool {
        self.flags & ACK != 0
    }
}

impl From<[u8; FRAME_HEADER]> for FrameHeader {
    fn from([l0, l1, l2, kind, flags, s0, s1, s2, s3]: [u8; FRAME_HEADER]) -> Self {
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }
}

/// The state of what a client has sent.
pub(super) struct Inbound {
    partial: PartialBytes,
    /// Bytes to skip, of the preface or of a payload.
    skip: usize,
    /// Bytes of settings that follow.
    settings: usize,
    has_preface: bool,
    in_field_block: bool,
    streams: Streams,
    open: OpenStreams,
    budget: ControlFrameBudget,
}

impl Inbound {
    /// Creates the state of a new connection.
    pub(super) fn new(max_control_frames: u32, open: OpenStreams, now: Instant) -> Self {
        Self {
            partial: PartialBytes::default(),
            skip: PREFACE,
            settings: 0,
            has_preface: false,
            in_field_block: false,
            streams: Streams { last: 0, ended: 0 },
            open,
            budget: ControlFrameBudget { max: max_control_frames, tokens: max_control_frames, refilled: now },
        }
    }

    /// Returns whether the preface and the header of its SETTINGS have arrived.
    pub(super) fn has_preface(&self) -> bool {
        self.has_preface
    }

    /// Returns the highest stream id that the client has opened and h2 does not ignore.
    pub(super) fn last_stream(&self) -> u32 {
        self.streams.last.min(self.open.max())
    }

    /// Returns whether the client does not know yet that `last_stream` is the last one.
    pub(super) fn expects_go_away(&self) -> bool {
        self.streams.last < self.open.max()
    }

    /// Follows a frame that concerns streams.
    pub(super) fn follow(&mut self, frame: &SentFrame) {
        match *frame {
            SentFrame::Response { stream, length, is_last } => {
                self.open.account.record_sent(length);
                if is_last {
                    self.open.close(stream);
                }
            }
            SentFrame::GoAway { last_stream } => self.open.ignore_above(last_stream),
        }
    }

    /// Checks the next bytes. The error is the reason to close the connection with.
    pub(super) fn read(&mut self, mut input: &[u8], now: Instant) -> Result<(), Reason> {
        while !input.is_empty() {
            if self.skip > 0 {
                skip(&mut self.skip, &mut input);
            } else if self.settings > 0 {
                let Some(setting) = self.partial.take::<SETTING>(&mut input) else { break };
                self.settings -= SETTING;
                check_setting(setting)?;
            } else {
                let Some(header) = self.partial.take::<FRAME_HEADER>(&mut input) else { break };
                self.check(&header.into(), now)?;
            }
        }
        Ok(())
    }

    /// Checks a frame by its header, in the order in which RFC 9113 defines the errors, and charges it to the budget.
    fn check(&mut self, header: &FrameHeader, now: Instant) -> Result<(), Reason> {
        self.check_order(header)?;
        check_length(header)?;
        match header.kind {
            SETTINGS => self.settings = header.length,
            _ => self.skip = header.length,
        }
        let last_stream = self.streams.last;
        self.streams.check_closed(header)?;
        match header.kind {
            HEADERS if self.streams.last > last_stream => self.open.open(header.stream),
            RST_STREAM => self.open.close(header.stream),
            _ => {}
        }
        self.charge(header, now)
    }

    /// The first frame is SETTINGS (3.4), a field block is contiguous (4.3), and a client does not push (8.4).
    fn check_order(&mut self, header: &FrameHeader) -> Result<(), Reason> {
        let is_preface = header.kind == SETTINGS && !header.is_ack();
        let is_contiguous = self.in_field_block == (header.kind == CONTINUATION);
        if !(self.has_preface || is_preface) || !is_contiguous || header.kind == PUSH_PROMISE {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.has_preface = true;
        self.in_field_block = matches!(header.kind, HEADERS | CONTINUATION) && header.flags & END_HEADERS == 0;
        Ok(())
    }

    /// Charges a control frame to the budget. Frames of a call add to the budget.
    fn charge(&mut self, header: &FrameHeader, now: Instant) -> Result<(), Reason> {
        match header.kind {
            HEADERS => self.budget.deposit(),
            DATA if header.length > 0 || header.flags & END_STREAM != 0 => self.budget.deposit(),
            CONTINUATION => {} // h2 limits them
            _ => self.budget.withdraw(now)?,
        }
        Ok(())
    }
}

/// Frames of a fixed format have a fixed length (6.3 to 6.9).
fn check_length(header: &FrameHeader) -> Result<(), Reason> {
    let fits = match header.kind {
        PRIORITY => header.length == 5,
        RST_STREAM | WINDOW_UPDATE => header.length == 4,
        PING => header.length == 8,
        SETTINGS if header.is_ack() => header.length == 0,
        SETTINGS => header.length.is_multiple_of(SETTING),
        _ => true,
    };
    if fits { Ok(()) } else { Err(Reason::FRAME_SIZE_ERROR) }
}

fn check_setting([i0, i1, value @ ..]: [u8; SETTING]) -> Result<(), Reason> {
    let is_window = u16::from_be_bytes([i0, i1]) == INITIAL_WINDOW_SIZE;
    if is_window && u32::from_be_bytes(value) > MAX_WINDOW { Err(Reason::FLOW_CONTROL_ERROR) } else { Ok(()) }
}

/// The latest streams that the client has half-closed. h2 soon forgets them and reports a late frame as another error.
struct Streams {
    last: u32,
    /// Bit n is set if stream `last` - 2n is half-closed.
    ended: u128,
}

impl Streams {
    fn check_closed(&mut self, header: &FrameHeader) -> Result<(), Reason> {
        if header.stream.is_multiple_of(2) {
            return Ok(()); // the connection, or not a client's stream: h2 checks these
        }
        if header.kind == HEADERS && header.stream > self.last {
            self.ended = self.ended.checked_shl((header.stream - self.last) / 2).unwrap_or(0);
            self.last = header.stream;
        }
        let Some(age) = self.last.checked_sub(header.stream) else { return Ok(()) };
        let bit = 1u128.checked_shl(age / 2).unwrap_or(0);
        match header.kind {
            DATA | HEADERS if self.ended & bit != 0 => return Err(Reason::STREAM_CLOSED), // 5.1
            // RST_STREAM does not close: frames of a cancelled call may follow it (grpc-java) and are harmless.
            DATA | HEADERS if header.flags & END_STREAM != 0 => self.ended |= bit,
            _ => {}
        }
        Ok(())
    }
}

/// A token bucket for control frames.
struct ControlFrameBudget {
    max: u32,
    tokens: u32,
    refilled: Instant,
}

impl ControlFrameBudget {
    fn deposit(&mut self) {
        self.tokens = self.max.min(self.tokens + DEPOSIT);
    }

    fn withdraw(&mut self, now: Instant) -> Result<(), Reason> {
        if self.tokens == 0 {
            if now - self.refilled < REFILL_INTERVAL {
                return Err(Reason::ENHANCE_YOUR_CALM);
            }
            self.tokens = self.max;
            self.refilled = now;
        }
        self.tokens -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
