//! What of a stream of calls is still unanswered, and whole lines of answers. Pure.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes of calls without an answer; the client is not read beyond.
pub const UNANSWERED_BYTES_MAX: usize = 1 << 20;
/// Longest call, as a host has it.
pub const CALL_BYTES_MAX: usize = 4 << 20;
/// What a pod that stops says last.
const MOVED: &[u8] = b"{\"moved\":true}\n";

/// A part of the stream: whole lines, none of them blank.
#[derive(Debug)]
struct Part {
    bytes: Bytes,
    lines: usize,
    answered: usize,
}

/// Calls that were sent, in order, until their answers come.
#[derive(Debug, Default)]
pub struct Unanswered {
    parts: VecDeque<Part>,
    bytes: usize,
    /// The beginning of a line.
    partial: BytesMut,
}

/// A line was longer than [`CALL_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl Unanswered {
    /// Takes bytes of the client, and gives the whole lines that are to be sent now.
    pub fn push(&mut self, data: &Bytes) -> Result<Option<Bytes>, TooLong> {
        let Some(end) = data.iter().rposition(|byte| *byte == b'\n') else {
            self.partial.extend_from_slice(data);
            return if self.partial.len() > CALL_BYTES_MAX { Err(TooLong) } else { Ok(None) };
        };
        let whole = if self.partial.is_empty() {
            data.slice(..=end)
        } else {
            self.partial.extend_from_slice(&data[..=end]);
            self.partial.split().freeze()
        };
        self.partial.extend_from_slice(&data[end + 1..]);
        Ok(self.add(whole))
    }

    /// The client sends no more: the last line may have no end.
    pub fn finish(&mut self) -> Option<Bytes> {
        if self.partial.is_empty() {
            return None;
        }
        self.partial.extend_from_slice(b"\n");
        let whole = self.partial.split().freeze();
        self.add(whole)
    }

    fn add(&mut self, whole: Bytes) -> Option<Bytes> {
        let is_blank = |line: &[u8]| line.trim_ascii().is_empty();
        let all = whole.split_inclusive(|byte| *byte == b'\n');
        let (lines, blank) = all
            .clone()
            .fold((0, 0), |(lines, blank), line| if is_blank(line) { (lines, blank + 1) } else { (lines + 1, blank) });
        // Blank lines get no answer, so they must not be counted.
        let bytes = if blank == 0 {
            whole.clone()
        } else {
            all.filter(|line| !is_blank(line))
                .fold(BytesMut::new(), |mut kept, line| {
                    kept.extend_from_slice(line);
                    kept
                })
                .freeze()
        };
        if lines == 0 {
            return None;
        }
        self.bytes += bytes.len();
        self.parts.push_back(Part { bytes: bytes.clone(), lines, answered: 0 });
        Some(bytes)
    }

    /// So many more calls have their answers.
    pub fn answered(&mut self, mut count: usize) {
        while let Some(part) = self.parts.front_mut() {
            let open = part.lines - part.answered;
            if count < open {
                part.answered += count;
                return;
            }
            count -= open;
            self.bytes -= part.bytes.len();
            self.parts.pop_front();
        }
    }

    pub fn has_room(&self) -> bool {
        self.bytes < UNANSWERED_BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub fn lines(&self) -> usize {
        self.parts.iter().map(|part| part.lines - part.answered).sum()
    }

    /// The calls without an answer, to be sent to another pod.
    pub fn rest(&self) -> Vec<Bytes> {
        self.parts.iter().map(|part| after_lines(&part.bytes, part.answered)).collect()
    }

    /// Gives them up.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.bytes = 0;
    }
}

fn after_lines(bytes: &Bytes, count: usize) -> Bytes {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let from = if count == 0 { 0 } else { ends.into_iter().nth(count - 1).unwrap_or(bytes.len()) };
    bytes.slice(from..)
}

/// Whole lines of what a pod answers; a half line is no answer.
#[derive(Debug, Default)]
pub struct Answers {
    partial: BytesMut,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    pub bytes: Bytes,
    pub count: usize,
    /// The pod takes no more calls.
    pub moved: bool,
}

impl Answers {
    /// Bytes of a line that has not ended.
    pub fn pending(&self) -> usize {
        self.partial.len()
    }

    pub fn push(&mut self, data: &Bytes) -> Option<Whole> {
        let end = data.iter().rposition(|byte| *byte == b'\n');
        let Some(end) = end else {
            self.partial.extend_from_slice(data);
            return None;
        };
        let mut bytes = if self.partial.is_empty() {
            data.slice(..=end)
        } else {
            self.partial.extend_from_slice(&data[..=end]);
            self.partial.split().freeze()
        };
        self.partial.extend_from_slice(&data[end + 1..]);
        let moved =
            bytes.ends_with(MOVED) && (bytes.len() == MOVED.len() || bytes[bytes.len() - MOVED.len() - 1] == b'\n');
        if moved {
            bytes.truncate(bytes.len() - MOVED.len());
        }
        let count = bytes.iter().filter(|byte| **byte == b'\n').count();
        Some(Whole { bytes, count, moved })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn rest(unanswered: &Unanswered) -> String {
        unanswered.rest().iter().map(|part| text(part)).collect()
    }

    #[test]
    fn every_line_waits_for_its_answer() {
        let all = "a\nb\n\n  \nc\nd";
        for size in 1..all.len() {
            let mut unanswered = Unanswered::default();
            let mut sent = String::new();
            for chunk in all.as_bytes().chunks(size) {
                let whole = unanswered.push(&Bytes::copy_from_slice(chunk)).unwrap();
                sent.extend(whole.map(|whole| text(&whole)));
            }
            sent.extend(unanswered.finish().map(|whole| text(&whole)));
            assert_eq!(sent, "a\nb\nc\nd\n", "{size}");
            assert_eq!((unanswered.lines(), rest(&unanswered)), (4, "a\nb\nc\nd\n".to_owned()));
            unanswered.answered(1);
            assert_eq!(rest(&unanswered), "b\nc\nd\n");
            unanswered.answered(2);
            assert_eq!((unanswered.lines(), rest(&unanswered)), (1, "d\n".to_owned()));
            unanswered.answered(1);
            assert!(unanswered.is_empty() && unanswered.has_room());
        }
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut unanswered = Unanswered::default();
        let line = Bytes::from(format!("{}\n", "x".repeat(UNANSWERED_BYTES_MAX)));
        assert!(unanswered.push(&line).unwrap().is_some() && !unanswered.has_room());
        unanswered.clear();
        assert!(unanswered.has_room() && unanswered.is_empty());
        let long = Bytes::from(vec![b'x'; CALL_BYTES_MAX]);
        assert_eq!(unanswered.push(&long), Ok(None));
        assert_eq!(unanswered.push(&long), Err(TooLong));
    }

    #[test]
    fn answers_are_passed_on_whole_and_the_goodbye_is_not() {
        let all = "{\"result\":1}\n{\"result\":2}\n{\"moved\":true}\n";
        for size in 1..=all.len() {
            let mut answers = Answers::default();
            let (mut bytes, mut count, mut moved) = (String::new(), 0, false);
            for chunk in all.as_bytes().chunks(size) {
                if let Some(whole) = answers.push(&Bytes::copy_from_slice(chunk)) {
                    bytes.push_str(&text(&whole.bytes));
                    count += whole.count;
                    moved |= whole.moved;
                }
            }
            assert_eq!((bytes.as_str(), count, moved), ("{\"result\":1}\n{\"result\":2}\n", 2, true), "{size}");
        }
        let mut answers = Answers::default();
        assert_eq!(answers.push(&Bytes::from_static(b"half")), None);
        let inside = Bytes::from_static(b"x{\"moved\":true}\n");
        assert!(!answers.push(&inside).unwrap().moved);
    }
}
