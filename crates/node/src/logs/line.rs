//! One line of a CRI log: `<RFC 3339 nanos> stdout|stderr F|P <text>`. Pure.

use jiff::Timestamp;

/// A line, borrowed from the file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine<'a> {
    pub timestamp: &'a str,
    /// False for a piece of a longer line (`P`).
    pub full: bool,
    pub text: &'a [u8],
}

impl<'a> LogLine<'a> {
    /// `bytes` has no line end. None when it is no CRI line.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut parts = bytes.splitn(4, |byte| *byte == b' ');
        let timestamp = std::str::from_utf8(parts.next()?).ok()?;
        let stream = parts.next()?;
        let tag = parts.next()?;
        let text = parts.next().unwrap_or_default();
        let known = matches!(stream, b"stdout" | b"stderr") && !tag.is_empty() && timestamp.len() >= 20;
        known.then_some(Self { timestamp, full: tag.split(|b| *b == b':').next() == Some(b"F"), text })
    }

    pub fn time(&self) -> Option<Timestamp> {
        self.timestamp.parse().ok()
    }
}

/// Turns lines into what a reader gets.
#[derive(Debug, Default)]
pub struct Renderer {
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    /// The last piece did not end its line.
    in_line: bool,
}

impl Renderer {
    pub fn new(timestamps: bool, since: Option<Timestamp>) -> Self {
        Self { timestamps, since, in_line: false }
    }

    /// Appends the line to `out`, unless it is too old. What is no CRI line is shown as it is.
    pub fn render(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(line) = LogLine::parse(bytes) else {
            out.extend_from_slice(bytes);
            out.push(b'\n');
            self.in_line = false;
            return;
        };
        if let Some(since) = self.since
            && line.time().is_some_and(|time| time < since)
        {
            return;
        }
        if self.timestamps && !self.in_line {
            out.extend_from_slice(line.timestamp.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if line.full {
            out.push(b'\n');
        }
        self.in_line = !line.full;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(timestamps: bool, since: Option<&str>, log: &str, expect: &str) {
        let mut renderer = Renderer::new(timestamps, since.map(|time| time.parse().unwrap()));
        let mut out = Vec::new();
        for line in log.lines() {
            renderer.render(line.as_bytes(), &mut out);
        }
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    const LOG: &str = "2026-11-23T05:00:00.000000001Z stdout F one\n2026-11-23T05:00:01Z stderr P two \n2026-11-23T05:00:02Z stderr F halves\n2026-11-23T05:00:03Z stdout F \n";

    #[test]
    fn partial_lines_are_joined() {
        check(false, None, LOG, "one\ntwo halves\n\n");
    }

    #[test]
    fn timestamps_stand_before_whole_lines() {
        let expect = "2026-11-23T05:00:00.000000001Z one\n2026-11-23T05:00:01Z two halves\n2026-11-23T05:00:03Z \n";
        check(true, None, LOG, expect);
    }

    #[test]
    fn since_leaves_out_what_is_older() {
        check(false, Some("2026-11-23T05:00:02Z"), LOG, "halves\n\n");
    }

    #[test]
    fn other_text_is_shown_as_it_is() {
        check(false, None, "not a log line\n", "not a log line\n");
    }
}
