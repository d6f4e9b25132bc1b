//! Tokens to a tree. Macros are recognised here, because they bind names.

use super::ast::{Comprehension, Expr, Macro, Operator};
use super::lexer::{Token, tokens};

/// Longest text of an expression.
pub const EXPRESSION_BYTES_MAX: usize = 64 * 1024;
/// How deep an expression may be nested.
const DEPTH_MAX: usize = 32;
/// Steps after one value: `.a.b[0].c()`.
const CHAIN_MAX: usize = 32;
/// Terms joined by operators of one kind, `&&` and `||` apart.
const TERMS_MAX: usize = 32;
/// How high the tree may be: evaluating it takes as many calls within calls.
const HEIGHT_MAX: usize = 96;

/// Parses an expression.
///
/// # Errors
/// `ERROR: <input>:1:7: Syntax error: …`
pub fn parse(text: &str) -> Result<Expr, String> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("expression is longer than {EXPRESSION_BYTES_MAX} bytes"));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens, at: 0, depth: 0 };
    let parsed = parser.expression().and_then(|expr| match parser.peek() {
        Token::End => Ok(expr),
        other => Err(format!("Syntax error: mismatched input '{}' expecting <EOF>", shown(other))),
    });
    let expr = parsed.map_err(|why| format!("ERROR: <input>:{}: {why}", parser.place()))?;
    if expr.height() > HEIGHT_MAX {
        return Err("expression is nested too deeply".to_owned());
    }
    Ok(expr)
}

fn shown(token: &Token) -> String {
    match token {
        Token::Name(name) => name.clone(),
        Token::Int(n) | Token::Uint(n) => n.to_string(),
        Token::Double(n) => n.to_string(),
        Token::Text(text) => format!("{text:?}"),
        Token::Bytes(_) => "bytes".to_owned(),
        Token::Sign(sign) => (*sign).to_owned(),
        Token::End => "<EOF>".to_owned(),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
}

type Parsed = Result<Expr, String>;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    /// Line and column.
    fn place(&self) -> String {
        let before = &self.text[..self.tokens[self.at].1];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        format!("{line}:{column}")
    }

    fn take(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        if token != Token::End {
            self.at += 1;
        }
        token
    }

    fn has(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        if found {
            self.at += 1;
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.has(sign) {
            return Ok(());
        }
        Err(format!("Syntax error: mismatched input '{}' expecting '{sign}'", shown(self.peek())))
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("expression is nested too deeply".to_owned());
        }
        let condition = self.any()?;
        let parsed = if self.has("?") {
            let yes = self.any()?;
            self.expect(":")?;
            let no = self.expression()?;
            Expr::Choose(Box::new(condition), Box::new(yes), Box::new(no))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(parsed)
    }

    fn any(&mut self) -> Parsed {
        let mut terms = vec![self.all()?];
        while self.has("||") {
            terms.push(self.all()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expr::Any(terms) })
    }

    fn all(&mut self) -> Parsed {
        let mut terms = vec![self.relation()?];
        while self.has("&&") {
            terms.push(self.relation()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expr::All(terms) })
    }

    fn relation(&mut self) -> Parsed {
        let mut left = self.sum()?;
        for _ in 0..TERMS_MAX {
            let operator = match self.peek() {
                Token::Sign("==") => Operator::Equal,
                Token::Sign("!=") => Operator::NotEqual,
                Token::Sign("<") => Operator::Less,
                Token::Sign("<=") => Operator::LessOrEqual,
                Token::Sign(">") => Operator::Greater,
                Token::Sign(">=") => Operator::GreaterOrEqual,
                Token::Name(name) if name == "in" => Operator::In,
                _ => return Ok(left),
            };
            self.at += 1;
            left = Expr::Binary(operator, Box::new(left), Box::new(self.sum()?));
        }
        Err("too many comparisons".to_owned())
    }

    fn sum(&mut self) -> Parsed {
        let mut left = self.product()?;
        for _ in 0..TERMS_MAX {
            let operator = match self.peek() {
                Token::Sign("+") => Operator::Add,
                Token::Sign("-") => Operator::Subtract,
                _ => return Ok(left),
            };
            self.at += 1;
            left = Expr::Binary(operator, Box::new(left), Box::new(self.product()?));
        }
        Err("too many terms".to_owned())
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.unary()?;
        for _ in 0..TERMS_MAX {
            let operator = match self.peek() {
                Token::Sign("*") => Operator::Multiply,
                Token::Sign("/") => Operator::Divide,
                Token::Sign("%") => Operator::Modulo,
                _ => return Ok(left),
            };
            self.at += 1;
            left = Expr::Binary(operator, Box::new(left), Box::new(self.unary()?));
        }
        Err("too many factors".to_owned())
    }

    fn unary(&mut self) -> Parsed {
        let mut nots = 0;
        while self.has("!") {
            nots += 1;
        }
        if nots > 0 {
            let inner = self.postfix()?;
            let inner = Expr::Not(Box::new(inner));
            return Ok(if nots % 2 == 1 { inner } else { Expr::Not(Box::new(inner)) });
        }
        let mut minuses = 0;
        while self.has("-") {
            minuses += 1;
        }
        if minuses == 0 {
            return self.postfix();
        }
        // The smallest number has no positive counterpart.
        if minuses == 1 && *self.peek() == Token::Int(1 << 63) {
            self.at += 1;
            return Ok(Expr::Int(i64::MIN));
        }
        let inner = Expr::Negate(Box::new(self.postfix()?));
        Ok(if minuses % 2 == 1 { inner } else { Expr::Negate(Box::new(inner)) })
    }

    fn postfix(&mut self) -> Parsed {
        let mut of = self.primary()?;
        for _ in 0..CHAIN_MAX {
            if self.has(".") {
                let optional = self.has("?");
                let Token::Name(name) = self.take() else {
                    return Err("Syntax error: a field name is expected".to_owned());
                };
                of = if !optional && self.has("(") {
                    let args = self.list(")")?;
                    method(of, &name, args)?
                } else {
                    Expr::Select { of: Box::new(of), field: name.into(), optional }
                };
            } else if self.has("[") {
                let optional = self.has("?");
                let at = self.expression()?;
                self.expect("]")?;
                of = Expr::Index { of: Box::new(of), at: Box::new(at), optional };
            } else if *self.peek() == Token::Sign("{")
                && let Some(name) = dotted(&of)
            {
                self.at += 1;
                of = self.fields(name)?;
            } else {
                return Ok(of);
            }
        }
        Err("too many steps".to_owned())
    }

    /// The fields of a struct, up to the closing brace.
    fn fields(&mut self, name: String) -> Parsed {
        let mut fields = Vec::new();
        while !self.has("}") {
            let optional = self.has("?");
            let Token::Name(field) = self.take() else {
                return Err("Syntax error: a field name is expected".to_owned());
            };
            self.expect(":")?;
            fields.push((field.into(), self.expression()?, optional));
            if !self.has(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::Struct { name: name.into(), fields })
    }

    /// Arguments up to the closing bracket, which is taken.
    fn list(&mut self, end: &'static str) -> Result<Vec<Expr>, String> {
        let mut args = Vec::new();
        while !self.has(end) {
            args.push(self.expression()?);
            if !self.has(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(args)
    }

    fn primary(&mut self) -> Parsed {
        // A leading dot names the outermost scope, which is the only one here.
        self.has(".");
        match self.take() {
            Token::Int(n) => i64::try_from(n).map(Expr::Int).map_err(|_| "invalid int literal".to_owned()),
            Token::Uint(n) => Ok(Expr::Uint(n)),
            Token::Double(n) => Ok(Expr::Double(n)),
            Token::Text(text) => Ok(Expr::Text(text.into())),
            Token::Bytes(bytes) => Ok(Expr::Bytes(bytes.into())),
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => self.items(),
            Token::Sign("{") => self.entries(),
            Token::Name(name) => match name.as_str() {
                "true" => Ok(Expr::Bool(true)),
                "false" => Ok(Expr::Bool(false)),
                "null" => Ok(Expr::Null),
                _ if self.has("(") => {
                    let args = self.list(")")?;
                    function(&name, args)
                }
                _ => Ok(Expr::Name(name.into())),
            },
            token => Err(format!("Syntax error: mismatched input '{}'", shown(&token))),
        }
    }

    fn items(&mut self) -> Parsed {
        let mut items = Vec::new();
        while !self.has("]") {
            let optional = self.has("?");
            items.push((self.expression()?, optional));
            if !self.has(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Expr::List(items))
    }

    fn entries(&mut self) -> Parsed {
        let mut entries = Vec::new();
        while !self.has("}") {
            let optional = self.has("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !self.has(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::Map(entries))
    }
}

/// `Object.spec`, if that is all it is.
fn dotted(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Name(name) => Some(name.to_string()),
        Expr::Select { of, field, optional: false } => Some(format!("{}.{field}", dotted(of)?)),
        _ => None,
    }
}

fn function(name: &str, mut args: Vec<Expr>) -> Parsed {
    if name == "has" {
        return match (args.pop(), args.is_empty()) {
            (Some(Expr::Select { of, field, optional: false }), true) => Ok(Expr::Has { of, field }),
            _ => Err("invalid argument to has() macro".to_owned()),
        };
    }
    Ok(Expr::Call { of: None, name: name.into(), args })
}

fn variable(expr: Expr) -> Result<Box<str>, String> {
    match expr {
        Expr::Name(name) => Ok(name),
        _ => Err("argument must be a simple name".to_owned()),
    }
}

fn method(of: Expr, name: &str, args: Vec<Expr>) -> Parsed {
    // `optional.of(x)` and `ip.isCanonical(x)` are functions with a dot in their name.
    if let Expr::Name(space) = &of
        && matches!(&**space, "optional" | "ip" | "sets" | "format" | "cel" | "jsonpatch")
    {
        return Ok(Expr::Call { of: None, name: format!("{space}.{name}").into(), args });
    }
    let kind = match (name, args.len()) {
        ("all", 2 | 3) => Macro::All,
        ("exists", 2 | 3) => Macro::Exists,
        ("exists_one" | "existsOne", 2 | 3) => Macro::ExistsOne,
        ("filter", 2) => Macro::Filter,
        ("map", 2 | 3) => Macro::Map,
        ("transformList", 3 | 4) => Macro::TransformList,
        ("transformMap", 3 | 4) => Macro::TransformMap,
        ("optMap" | "optFlatMap", 2) => {
            let mut args = args.into_iter();
            let (Some(var), Some(body)) = (args.next(), args.next()) else { return Err("two arguments".to_owned()) };
            let flat = name == "optFlatMap";
            return Ok(Expr::OptionalMap { of: Box::new(of), var: variable(var)?, body: Box::new(body), flat });
        }
        _ => return Ok(Expr::Call { of: Some(Box::new(of)), name: name.into(), args }),
    };
    let count = args.len();
    let mut args = args.into_iter();
    let mut next = || args.next().ok_or_else(|| "an argument is missing".to_owned());
    let first = variable(next()?)?;
    let two = match kind {
        Macro::All | Macro::Exists | Macro::ExistsOne => count == 3,
        Macro::Filter | Macro::Map => false,
        Macro::TransformList | Macro::TransformMap => true,
    };
    let second = if two { Some(variable(next()?)?) } else { None };
    let filter = match (kind, count) {
        (Macro::Map, 3) | (Macro::TransformList | Macro::TransformMap, 4) => Some(next()?),
        _ => None,
    };
    Ok(Expr::Comprehension(Box::new(Comprehension { kind, range: of, first, second, filter, body: next()? })))
}
