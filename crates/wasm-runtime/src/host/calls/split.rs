//! Cuts a stream of bytes into lines of limited length. Pure.

use bytes::{Bytes, BytesMut};

/// Longest call.
pub const CALL_BYTES_MAX: usize = 4 << 20;

/// One line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    Whole(Bytes),
    /// It was longer than [`CALL_BYTES_MAX`] and is not kept.
    TooLong,
}

#[derive(Debug, Default)]
pub struct Splitter {
    pending: BytesMut,
    /// In the middle of a line that is too long.
    skipping: bool,
}

impl Splitter {
    /// Takes bytes and gives the lines that they complete. Blank lines are nothing.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut searched = self.pending.len();
        self.pending.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(offset) = self.pending[searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.pending.split_to(searched + offset + 1).freeze();
            searched = 0;
            if std::mem::take(&mut self.skipping) || line.len() > CALL_BYTES_MAX {
                lines.push(Line::TooLong);
            } else if !line.trim_ascii().is_empty() {
                lines.push(Line::Whole(line.slice(..line.len() - 1)));
            }
        }
        if self.pending.len() > CALL_BYTES_MAX {
            self.pending.clear();
            self.skipping = true;
        }
        lines
    }

    /// The last line, when the stream ends without a line end.
    pub fn finish(&mut self) -> Option<Line> {
        let rest = self.pending.split().freeze();
        if std::mem::take(&mut self.skipping) {
            return Some(Line::TooLong);
        }
        (!rest.trim_ascii().is_empty()).then_some(Line::Whole(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lines: &[Line]) -> Vec<String> {
        let word = |line: &Line| match line {
            Line::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Line::TooLong => "!".to_owned(),
        };
        lines.iter().map(word).collect()
    }

    #[test]
    fn lines_are_found_wherever_the_stream_is_cut() {
        let text = b"one\n\n  \ntwo\r\nthree";
        for size in 1..text.len() {
            let mut splitter = Splitter::default();
            let mut lines: Vec<Line> = text.chunks(size).flat_map(|chunk| splitter.push(chunk)).collect();
            lines.extend(splitter.finish());
            assert_eq!(words(&lines), ["one", "two\r", "three"], "{size}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut splitter = Splitter::default();
        let long = vec![b'x'; CALL_BYTES_MAX / 2 + 1];
        assert!(splitter.push(&long).is_empty() && splitter.push(&long).is_empty());
        assert!(splitter.pending.is_empty());
        assert_eq!(words(&splitter.push(b"end\nnext\n")), ["!", "next"]);
        assert_eq!(splitter.finish(), None);
    }
}
