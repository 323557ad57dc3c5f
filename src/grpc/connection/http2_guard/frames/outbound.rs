//! Follows the frames that the server sends.

use h2::Reason;

use super::{DATA, END_STREAM, FRAME_HEADER, FrameHeader, GOAWAY, HEADERS, PartialBytes, RST_STREAM, skip};

/// The length of a stream id.
const STREAM_ID: usize = 4;

/// A frame that concerns streams.
pub(in crate::grpc::connection::http2_guard) enum SentFrame {
    /// A frame of a response.
    Response { stream: u32, length: usize, is_last: bool },
    /// GOAWAY: the server ignores higher streams.
    GoAway { last_stream: u32 },
}

impl SentFrame {
    fn response(header: &FrameHeader) -> Option<Self> {
        let is_last = match header.kind {
            DATA | HEADERS => header.flags & END_STREAM != 0,
            RST_STREAM => true,
            _ => return None,
        };
        Some(Self::Response { stream: header.stream, length: header.length, is_last })
    }
}

/// The position in the frames that the server sends.
#[derive(Default)]
pub(in crate::grpc::connection::http2_guard) struct Outbound {
    partial: PartialBytes,
    skip: usize,
    /// Bytes of a GOAWAY payload that follow.
    go_away: usize,
}

impl Outbound {
    /// Follows the next bytes, and reports frames that concern streams.
    pub(in crate::grpc::connection::http2_guard) fn write(
        &mut self,
        mut output: &[u8],
        mut report: impl FnMut(&SentFrame),
    ) {
        while !output.is_empty() {
            if self.skip > 0 {
                skip(&mut self.skip, &mut output);
            } else if self.go_away > 0 {
                let Some([i0, i1, i2, i3]) = self.partial.take::<STREAM_ID>(&mut output) else { break };
                self.skip = std::mem::take(&mut self.go_away) - STREAM_ID;
                report(&SentFrame::GoAway { last_stream: u32::from_be_bytes([i0 & 0x7f, i1, i2, i3]) });
            } else if let Some(header) = self.partial.take::<FRAME_HEADER>(&mut output) {
                let header = FrameHeader::from(header);
                match header.kind {
                    GOAWAY if header.length >= STREAM_ID => self.go_away = header.length,
                    _ => self.skip = header.length,
                }
                if let Some(frame) = SentFrame::response(&header) {
                    report(&frame);
                }
            }
        }
    }

    /// Returns whether another frame may start here.
    pub(in crate::grpc::connection::http2_guard) fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.go_away == 0 && self.partial.filled == 0
    }
}

/// Returns a GOAWAY frame (6.8).
pub(in crate::grpc::connection::http2_guard) fn go_away(last_stream: u32, reason: Reason) -> [u8; FRAME_HEADER + 8] {
    let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[FRAME_HEADER..FRAME_HEADER + 4].copy_from_slice(&last_stream.to_be_bytes());
    frame[FRAME_HEADER + 4..].copy_from_slice(&u32::from(reason).to_be_bytes());
    frame
}
