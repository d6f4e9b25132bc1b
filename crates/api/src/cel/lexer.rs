//! Text to tokens.

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Name(String),
    Int(u64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Operators and brackets.
    Sign(&'static str),
    End,
}

/// Longer ones first.
const SIGNS: [&str; 26] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}", "=", ";",
];

/// Tokens and where they begin.
pub fn tokens(text: &str) -> Result<Vec<(Token, usize)>, String> {
    let mut list = Vec::new();
    let mut lexer = Lexer { text, at: 0 };
    loop {
        lexer.skip();
        let began = lexer.at;
        let token = lexer.next()?;
        let end = token == Token::End;
        list.push((token, began));
        if end {
            return Ok(list);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let spaces = rest.len() - rest.trim_start().len();
            if spaces > 0 {
                self.at += spaces;
            } else if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else {
                return;
            }
        }
    }

    fn next(&mut self) -> Result<Token, String> {
        let Some(first) = self.rest().chars().next() else { return Ok(Token::End) };
        if let Some(token) = self.quoted()? {
            return Ok(token);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let rest = self.rest();
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let name = rest[..end].to_owned();
            self.at += end;
            return Ok(Token::Name(name));
        }
        let second_is_digit = self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        if first.is_ascii_digit() || (first == '.' && second_is_digit) {
            return self.number();
        }
        for sign in SIGNS {
            if self.rest().starts_with(sign) {
                self.at += sign.len();
                return Ok(Token::Sign(sign));
            }
        }
        if let Some(after) = self.rest().strip_prefix('`') {
            let end = after.find('`').ok_or("unterminated quoted field name")?;
            let name = after[..end].to_owned();
            self.at += end + 2;
            return Ok(Token::Name(name));
        }
        Err(format!("Syntax error: token recognition error at: '{first}'"))
    }

    fn number(&mut self) -> Result<Token, String> {
        let rest = self.rest();
        if let Some(hex) = rest.strip_prefix("0x") {
            let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            let value = u64::from_str_radix(&hex[..end], 16).map_err(|_| "invalid int literal".to_owned())?;
            let unsigned = hex[end..].starts_with(['u', 'U']);
            self.at += 2 + end + usize::from(unsigned);
            return Ok(if unsigned { Token::Uint(value) } else { Token::Int(value) });
        }
        let bytes = rest.as_bytes();
        let mut end = 0;
        let mut is_double = false;
        while let Some(&byte) = bytes.get(end) {
            let next_is_digit = bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
            match byte {
                b'0'..=b'9' => {}
                b'.' if next_is_digit && !is_double => is_double = true,
                b'e' | b'E' => {
                    is_double = true;
                    if matches!(bytes.get(end + 1), Some(b'+' | b'-')) {
                        end += 1;
                    }
                }
                _ => break,
            }
            end += 1;
        }
        let digits = &rest[..end];
        let unsigned = rest[end..].starts_with(['u', 'U']);
        let token = if is_double {
            Token::Double(digits.parse().map_err(|_| format!("invalid double literal {digits:?}"))?)
        } else {
            let value = digits.parse().map_err(|_| "invalid int literal".to_owned())?;
            if unsigned { Token::Uint(value) } else { Token::Int(value) }
        };
        self.at += end + usize::from(unsigned && !is_double);
        Ok(token)
    }

    /// `"…"`, `'…'`, three of them, with `r` and `b` before it.
    fn quoted(&mut self) -> Result<Option<Token>, String> {
        let rest = self.rest();
        let prefix = rest.find(|c: char| !matches!(c, 'r' | 'R' | 'b' | 'B')).unwrap_or(rest.len());
        if prefix > 2 {
            return Ok(None);
        }
        let (raw, binary) = (rest[..prefix].contains(['r', 'R']), rest[..prefix].contains(['b', 'B']));
        let body = &rest[prefix..];
        let quotes = ["\"\"\"", "'''", "\"", "'"];
        let Some(quote) = quotes.into_iter().find(|quote| body.starts_with(quote)) else { return Ok(None) };
        let inner = &body[quote.len()..];
        let mut out = Vec::new();
        let mut at = 0;
        loop {
            let left = &inner[at..];
            if left.starts_with(quote) {
                break;
            }
            let Some(c) = left.chars().next() else { return Err("Syntax error: unterminated string".to_owned()) };
            if c == '\\' && !raw {
                at += 1 + escape(&left[1..], binary, &mut out)?;
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                at += c.len_utf8();
            }
        }
        self.at += prefix + quote.len() + at + quote.len();
        if binary {
            return Ok(Some(Token::Bytes(out)));
        }
        String::from_utf8(out).map(|text| Some(Token::Text(text))).map_err(|_| "invalid string literal".to_owned())
    }
}

/// What a backslash stands for; how much of the text it took.
fn escape(text: &str, binary: bool, out: &mut Vec<u8>) -> Result<usize, String> {
    let wrong = || "Syntax error: invalid escape sequence".to_owned();
    let c = text.chars().next().ok_or_else(wrong)?;
    let coded = |digits: &str, radix: u32, out: &mut Vec<u8>| -> Result<(), String> {
        let code = u32::from_str_radix(digits, radix).map_err(|_| wrong())?;
        match (binary, u8::try_from(code)) {
            (true, Ok(byte)) => out.push(byte),
            _ => {
                let c = char::from_u32(code).ok_or_else(wrong)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        Ok(())
    };
    let simple = match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        '\\' | '?' | '"' | '\'' | '`' => c,
        'x' | 'X' | 'u' | 'U' => {
            let length = match c {
                'u' => 4,
                'U' => 8,
                _ => 2,
            };
            coded(text.get(1..=length).ok_or_else(wrong)?, 16, out)?;
            return Ok(1 + length);
        }
        '0'..='3' => {
            coded(text.get(..3).ok_or_else(wrong)?, 8, out)?;
            return Ok(3);
        }
        _ => return Err(wrong()),
    };
    out.extend_from_slice(simple.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(c.len_utf8())
}
