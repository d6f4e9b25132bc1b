//! One HTTP/1.1 request, on the standard library.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long connecting, and each pause of the answer, may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Why there was none.
#[derive(Debug)]
pub struct NoAnswer(String);

impl fmt::Display for NoAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Asks `address` (IP:port) for `path`.
pub fn get(address: &str, path: &str) -> Result<Answer, NoAnswer> {
    request("GET", address, path, "")
}

/// Sends JSON to `path` at `address`.
pub fn post(address: &str, path: &str, json: &str) -> Result<Answer, NoAnswer> {
    request("POST", address, path, json)
}

fn request(method: &str, address: &str, path: &str, json: &str) -> Result<Answer, NoAnswer> {
    let attempt =
        |what: &str, error: &dyn fmt::Display| NoAnswer(format!("{method} http://{address}{path}: {what}: {error}"));
    let socket: SocketAddr = address.parse().map_err(|error| attempt("no address", &error))?;
    let mut stream = TcpStream::connect_timeout(&socket, TIMEOUT).map_err(|error| attempt("connect", &error))?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| attempt("set a limit", &error))?;
    let body = match json.len() {
        0 => "\r\n".to_owned(),
        length => format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}"),
    };
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{body}");
    stream.write_all(request.as_bytes()).map_err(|error| attempt("ask", &error))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|error| attempt("read", &error))?;
    parse(&bytes).ok_or_else(|| attempt("no HTTP answer", &format!("{:?}", String::from_utf8_lossy(&bytes))))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some(Answer { status, body: if chunked { unchunk(body)? } else { body.to_owned() } })
}

/// Joins the pieces of a chunked body.
fn unchunk(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole() {
        let answer = |text: &str| parse(text.as_bytes()).map(|answer| (answer.status, answer.body));
        assert_eq!(answer("HTTP/1.1 200 OK\r\na: b\r\n\r\nhi"), Some((200, "hi".to_owned())));
        let chunked = "HTTP/1.1 502 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x\r\n yo\r\n0\r\n\r\n";
        assert_eq!(answer(chunked), Some((502, "hi yo".to_owned())));
        assert_eq!(answer("nonsense"), None);
    }
}
