//! Follows the frames that the server sends.

use h2::Reason;

use super::{DATA, END_STREAM, FRAME_HEADER, FrameHeader, GOAWAY, HEADERS, PartialBytes, RST_STREAM, skip};

/// A frame of a response.
pub(in crate::grpc::connection::http2_guard) struct ResponseFrame {
    pub(super) stream: u32,
    pub(super) length: usize,
    pub(super) is_last: bool,
}

impl ResponseFrame {
    fn new(header: &FrameHeader) -> Option<Self> {
        let is_last = match header.kind {
            DATA | HEADERS => header.flags & END_STREAM != 0,
            RST_STREAM => true,
            _ => return None,
        };
        Some(Self { stream: header.stream, length: header.length, is_last })
    }
}

/// The position in the frames that the server sends.
#[derive(Default)]
pub(in crate::grpc::connection::http2_guard) struct Outbound {
    partial: PartialBytes,
    skip: usize,
    has_go_away: bool,
}

impl Outbound {
    /// Follows the next bytes, and reports each frame of a response that starts in them.
    pub(in crate::grpc::connection::http2_guard) fn write(
        &mut self,
        mut output: &[u8],
        mut report: impl FnMut(&ResponseFrame),
    ) {
        while !output.is_empty() {
            if self.skip > 0 {
                skip(&mut self.skip, &mut output);
            } else if let Some(header) = self.partial.take::<FRAME_HEADER>(&mut output) {
                let header = FrameHeader::from(header);
                self.skip = header.length;
                self.has_go_away |= header.kind == GOAWAY;
                if let Some(frame) = ResponseFrame::new(&header) {
                    report(&frame);
                }
            }
        }
    }

    /// Returns whether a GOAWAY was sent.
    pub(in crate::grpc::connection::http2_guard) fn has_go_away(&self) -> bool {
        self.has_go_away
    }

    /// Returns whether another frame may start here.
    pub(in crate::grpc::connection::http2_guard) fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.partial.filled == 0
    }
}

/// Returns a GOAWAY frame (6.8).
pub(in crate::grpc::connection::http2_guard) fn go_away(last_stream: u32, reason: Reason) -> [u8; FRAME_HEADER + 8] {
    let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[FRAME_HEADER..FRAME_HEADER + 4].copy_from_slice(&last_stream.to_be_bytes());
    frame[FRAME_HEADER + 4..].copy_from_slice(&u32::from(reason).to_be_bytes());
    frame
}
