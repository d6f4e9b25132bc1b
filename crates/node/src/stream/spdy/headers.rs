//! Names and values, compressed with zlib over the whole connection, from a dictionary both sides know. Pure.

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::session::SpdyError;

/// Longest block of headers, uncompressed.
pub const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Most names in it.
pub const NAMES_MAX: usize = 64;

/// Names and values. Values of one name are apart.
pub type Headers = Vec<(String, String)>;

/// The words of the dictionary that have their length before them (SPDY draft 3, section 2.6.10.1).
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status";
const MORE_WORDS: [&str; 8] = ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"];
/// Its end, without lengths.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut all = Vec::with_capacity(1423);
    for word in WORDS.split_whitespace().chain(MORE_WORDS) {
        all.put_u32(word.len() as u32);
        all.put_slice(word.as_bytes());
    }
    all.put_slice(TAIL.as_bytes());
    all
}

/// Reads blocks of headers, in the order in which they came.
pub struct Reader {
    zlib: Decompress,
}

impl Reader {
    pub fn new() -> Self {
        Self { zlib: Decompress::new(true) }
    }

    pub fn read(&mut self, mut compressed: &[u8]) -> Result<Headers, SpdyError> {
        let mut block = Vec::with_capacity(BLOCK_BYTES_MAX);
        while !compressed.is_empty() {
            let before = self.zlib.total_in();
            let result = self.zlib.decompress_vec(compressed, &mut block, FlushDecompress::Sync);
            let taken = usize::try_from(self.zlib.total_in() - before).unwrap_or(compressed.len());
            compressed = compressed.get(taken..).unwrap_or_default();
            match result {
                Ok(_) if taken > 0 => {}
                Ok(_) if block.len() == BLOCK_BYTES_MAX => {
                    return Err(SpdyError::TooLong { what: "block of headers", limit: BLOCK_BYTES_MAX });
                }
                Ok(_) => return Err(SpdyError::Headers("the compressed bytes make no progress")),
                Err(error) if error.needs_dictionary().is_some() => {
                    let known = self.zlib.set_dictionary(&dictionary());
                    known.map_err(|_| SpdyError::Headers("another dictionary was used"))?;
                }
                Err(_) => return Err(SpdyError::Headers("the compressed bytes are damaged")),
            }
        }
        parse(&block)
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, SpdyError> {
    let short = SpdyError::Headers("the block ends early");
    let count = block.try_get_u32().map_err(|_| short.clone())? as usize;
    if count > NAMES_MAX {
        return Err(SpdyError::TooLong { what: "list of headers", limit: NAMES_MAX });
    }
    let mut text = || -> Result<String, SpdyError> {
        let length = block.try_get_u32().map_err(|_| short.clone())? as usize;
        if length > block.len() {
            return Err(short.clone());
        }
        let (text, rest) = block.split_at(length);
        block = rest;
        String::from_utf8(text.to_vec()).map_err(|_| SpdyError::Headers("a header is no UTF-8"))
    };
    let mut headers = Headers::new();
    for _ in 0..count {
        let (name, values) = (text()?.to_ascii_lowercase(), text()?);
        headers.extend(values.split('\0').map(|value| (name.clone(), value.to_owned())));
    }
    Ok(headers)
}

/// Writes blocks of headers.
pub struct Writer {
    zlib: Compress,
}

impl Writer {
    pub fn new() -> Self {
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.set_dictionary(&dictionary()).expect("a new compressor takes a dictionary");
        Self { zlib }
    }

    /// Names must be different from each other.
    pub fn write(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
        let mut compressed = Vec::with_capacity(block.len() + 1024);
        let done = self.zlib.compress_vec(&block, &mut compressed, FlushCompress::Sync);
        done.expect("there is room for more than the block");
        compressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_standards() {
        // Adler-32 of the dictionary, which every compressed stream begins with.
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((dictionary().len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_follow_each_other() {
        let (mut writer, mut reader) = (Writer::new(), Reader::new());
        for port in ["80", "8080", "80"] {
            let block = writer.write(&[("streamtype", "data"), ("Port", port), ("list", "a\0b")]);
            let read = reader.read(&block).unwrap();
            let read: Vec<(&str, &str)> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(read, [("streamtype", "data"), ("port", port), ("list", "a"), ("list", "b")]);
        }
    }

    #[test]
    fn damage_and_bombs_are_refused() {
        assert!(matches!(Reader::new().read(b"no zlib here"), Err(SpdyError::Headers(_))));
        let zeros = "0".repeat(1 << 20);
        let mut writer = Writer { zlib: Compress::new(Compression::best(), true) };
        let mut bomb = Vec::with_capacity(1 << 16);
        writer.zlib.compress_vec(zeros.as_bytes(), &mut bomb, FlushCompress::Sync).unwrap();
        assert!(bomb.len() < 4096, "{}", bomb.len());
        assert!(matches!(Reader::new().read(&bomb), Err(SpdyError::TooLong { .. })));
        let check = |block: &[u8]| assert!(parse(block).is_err(), "{block:?}");
        check(&[0, 0]);
        check(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
        check(&[0xff, 0xff, 0xff, 0xff]);
        check(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0]);
    }
}
