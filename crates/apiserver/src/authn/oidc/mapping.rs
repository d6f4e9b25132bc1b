//! From what a token says to a user: which claims become what, and which must hold. Pure.
//!
//! Owns: compiling the rules of one issuer once, and running them over the claims of a verified token. Follows
//! `k8s.io/apiserver/plugin/pkg/authenticator/token/oidc`. Claims that a token only refers to (distributed claims) are
//! not fetched: such a token lacks them.

use std::collections::{BTreeMap, BTreeSet};

use api::cel::{Program, Val, Wanted};
use serde_json::{Map, Value, json};

use super::super::Refusal;
use super::super::config::{ClaimFile, ClaimRuleFile, ExtraFile, JwtFile};
use crate::config_file::{ConfigFileError, wrong};
use crate::identity::UserInfo;

/// Steps that all expressions of one token may take together.
const STEPS_MAX: u64 = 1_000_000;
const CLAIMS: &[&str] = &["claims"];
const USER: &[&str] = &["user"];
const EMAIL: &str = "email";
const EMAIL_VERIFIED: &str = "email_verified";

/// The rules of one issuer, ready to run.
#[derive(Debug)]
pub struct Mapping {
    username: Source,
    groups: Option<Source>,
    uid: Option<Source>,
    extra: Vec<(String, Program)>,
    claim_rules: Vec<ClaimRule>,
    user_rules: Vec<(Program, String)>,
}

/// Where a value comes from.
#[derive(Debug)]
enum Source {
    Claim { name: String, prefix: String },
    Expression(Program),
}

#[derive(Debug)]
enum ClaimRule {
    Equals { claim: String, value: String },
    Holds { program: Program, message: String },
}

type Checked<T> = Result<T, ConfigFileError>;

impl Mapping {
    /// # Errors
    /// The first rule that cannot work, and why. `field`: where the rules are in the file.
    pub fn compile(field: &str, rules: &JwtFile) -> Checked<Self> {
        let mappings = &rules.claim_mappings;
        let of = |name: &str| format!("{field}.claimMappings.{name}");
        let username = source(&of("username"), &mappings.username, true)?
            .ok_or_else(|| wrong(of("username"), "a claim or an expression is needed"))?;
        let groups = source(&of("groups"), &mappings.groups, true)?;
        if mappings.uid.prefix.is_some() {
            return Err(wrong(of("uid"), "it has no prefix"));
        }
        let uid = source(&of("uid"), &mappings.uid, false)?;
        let extra = extra(&of("extra"), &mappings.extra)?;
        let claim_rules: Vec<ClaimRule> = rules
            .claim_validation_rules
            .iter()
            .enumerate()
            .map(|(at, rule)| claim_rule(&format!("{field}.claimValidationRules[{at}]"), rule))
            .collect::<Checked<_>>()?;
        let mut user_rules = Vec::new();
        for (at, rule) in rules.user_validation_rules.iter().enumerate() {
            let field = format!("{field}.userValidationRules[{at}].expression");
            user_rules.push((program(&field, &rule.expression, USER, Wanted::Bool)?, rule.message.clone()));
        }
        let mapping = Self { username, groups, uid, extra, claim_rules, user_rules };
        mapping.check_email(&of("username"))?;
        Ok(mapping)
    }

    /// An address that nobody has verified may be anybody's.
    fn check_email(&self, field: &str) -> Checked<()> {
        let Source::Expression(username) = &self.username else { return Ok(()) };
        if !names_claim(username, EMAIL) {
            return Ok(());
        }
        let rules = self.claim_rules.iter().filter_map(|rule| match rule {
            ClaimRule::Holds { program, .. } => Some(program),
            ClaimRule::Equals { .. } => None,
        });
        let looks = |program: &Program| names_claim(program, EMAIL_VERIFIED);
        if looks(username) || self.extra.iter().any(|(_, program)| looks(program)) || rules.into_iter().any(looks) {
            return Ok(());
        }
        let why = "claims.email_verified must be used in it, in an extra's valueExpression or in a \
                   claimValidationRule when claims.email is used for the user's name";
        Err(wrong(field, why))
    }

    /// The user that verified claims are about.
    ///
    /// # Errors
    /// Which rule they break.
    pub fn user(&self, claims: &Value) -> Result<UserInfo, Refusal> {
        let mut budget = STEPS_MAX;
        for rule in &self.claim_rules {
            rule.check(claims, &mut budget)?;
        }
        let name = self.username(claims, &mut budget)?;
        let groups = match &self.groups {
            None => Vec::new(),
            Some(source) => source.texts("groups", claims, &mut budget)?,
        };
        let uid = match &self.uid {
            None => String::new(),
            Some(source) => source.text("uid", claims, &mut budget)?,
        };
        let mut extra = BTreeMap::new();
        for (key, program) in &self.extra {
            let values = texts(&format!("extra {key:?}"), run(program, "claims", claims, &mut budget)?)?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        let shown = json!({ "username": name, "uid": uid, "groups": groups, "extra": extra });
        for (program, message) in &self.user_rules {
            if run(program, "user", &shown, &mut budget)? != Value::Bool(true) {
                return Err(unkept("userValidationRule", program, message));
            }
        }
        Ok(UserInfo { uid, extra, ..UserInfo::authenticated(name, groups) })
    }

    fn username(&self, claims: &Value, budget: &mut u64) -> Result<String, Refusal> {
        if let Source::Claim { name, .. } = &self.username
            && name == EMAIL
            && claims.get(EMAIL_VERIFIED).is_some_and(|verified| *verified != Value::Bool(true))
        {
            return Err("its email is not verified".into());
        }
        let name = self.username.text("username", claims, budget)?;
        if name.is_empty() { Err("its username is empty".into()) } else { Ok(name) }
    }
}

fn source(field: &str, file: &ClaimFile, is_prefixed: bool) -> Checked<Option<Source>> {
    match (file.claim.as_str(), file.expression.as_str()) {
        ("", "") if file.prefix.is_some() => Err(wrong(field, "a prefix needs a claim")),
        ("", "") => Ok(None),
        (claim, "") => match &file.prefix {
            None if is_prefixed => Err(wrong(format!("{field}.prefix"), "it must be said; \"\" is for none")),
            prefix => {
                let prefix = prefix.clone().unwrap_or_default();
                Ok(Some(Source::Claim { name: claim.to_owned(), prefix }))
            }
        },
        ("", _) if file.prefix.is_some() => Err(wrong(field, "a prefix and an expression exclude each other")),
        ("", expression) => {
            let program = program(&format!("{field}.expression"), expression, CLAIMS, Wanted::Anything)?;
            Ok(Some(Source::Expression(program)))
        }
        _ => Err(wrong(field, "a claim and an expression exclude each other")),
    }
}

fn program(field: &str, expression: &str, names: &[&str], result: Wanted) -> Checked<Program> {
    if expression.trim().is_empty() {
        return Err(wrong(field, "an expression is needed"));
    }
    Program::compile(expression, names, result).map_err(|why| wrong(field, why))
}

fn claim_rule(field: &str, rule: &ClaimRuleFile) -> Checked<ClaimRule> {
    match (rule.claim.is_empty(), rule.expression.is_empty()) {
        (true, true) => Err(wrong(field, "a claim or an expression is needed")),
        (false, false) => Err(wrong(field, "a claim and an expression exclude each other")),
        (false, true) if !rule.message.is_empty() => Err(wrong(field, "a message needs an expression")),
        (false, true) => Ok(ClaimRule::Equals { claim: rule.claim.clone(), value: rule.required_value.clone() }),
        (true, false) if !rule.required_value.is_empty() => Err(wrong(field, "a requiredValue needs a claim")),
        (true, false) => {
            let program = program(&format!("{field}.expression"), &rule.expression, CLAIMS, Wanted::Bool)?;
            Ok(ClaimRule::Holds { program, message: rule.message.clone() })
        }
    }
}

fn extra(field: &str, files: &[ExtraFile]) -> Checked<Vec<(String, Program)>> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (at, file) in files.iter().enumerate() {
        let (field, key) = (format!("{field}[{at}]"), &file.key);
        let domain = key.split_once('/').filter(|(_, rest)| !rest.is_empty()).map(|(domain, _)| domain);
        let Some(domain) = domain.filter(|domain| api::meta::is_dns_subdomain(domain)) else {
            return Err(wrong(
                format!("{field}.key"),
                format!("{key:?} is no path below a domain, as example.com/x is"),
            ));
        };
        let is_reserved = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
        if is_reserved("kubernetes.io") || is_reserved("k8s.io") {
            return Err(wrong(format!("{field}.key"), format!("{domain} is reserved for Kubernetes")));
        }
        if key.chars().any(char::is_uppercase) || !seen.insert(key.clone()) {
            return Err(wrong(format!("{field}.key"), format!("{key:?} must be lower case and there once")));
        }
        let expression = format!("{field}.valueExpression");
        all.push((key.clone(), program(&expression, &file.value_expression, CLAIMS, Wanted::Anything)?));
    }
    Ok(all)
}

/// Whether an expression reads `claims.NAME` or `claims["NAME"]`.
fn names_claim(program: &Program, name: &str) -> bool {
    let text = program.text();
    let is_part = |found: Option<char>| found.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let of = before.trim_end_matches(['.', '?', '[', '\'', '"', ' ']);
        of.len() < before.len() && of.ends_with("claims") && !is_part(after.chars().next())
    })
}

fn run(program: &Program, name: &str, value: &Value, budget: &mut u64) -> Result<Value, Refusal> {
    let failed = |why: String| Refusal::from(format!("expression '{}' resulted in error: {why}", program.text()));
    let result = program.run(&[(name, Val::lift(value, None))], budget).map_err(|why| failed(why.to_string()))?;
    result.to_json().ok_or_else(|| failed(format!("{} is no value that can be used", result.type_name())))
}

fn unkept(kind: &str, program: &Program, message: &str) -> Refusal {
    let message = if message.is_empty() { program.text() } else { message };
    format!("a {kind} does not hold: {message}").into()
}

impl ClaimRule {
    fn check(&self, claims: &Value, budget: &mut u64) -> Result<(), Refusal> {
        match self {
            Self::Equals { claim, value } => match claims.get(claim) {
                Some(Value::String(found)) if found == value => Ok(()),
                Some(_) => Err(format!("its claim {claim:?} is not as required").into()),
                None => Err(format!("it has no claim {claim:?}").into()),
            },
            Self::Holds { program, message } => match run(program, "claims", claims, budget)? {
                Value::Bool(true) => Ok(()),
                _ => Err(unkept("claimValidationRule", program, message)),
            },
        }
    }
}

impl Source {
    /// Must be there, and be one text.
    fn text(&self, what: &str, claims: &Value, budget: &mut u64) -> Result<String, Refusal> {
        match self {
            Self::Claim { name, prefix } => match claims.get(name) {
                Some(Value::String(text)) => Ok(format!("{prefix}{text}")),
                Some(_) => Err(format!("its claim {name:?} is no text, as {what} is").into()),
                None => Err(format!("it has no claim {name:?} for {what}").into()),
            },
            Self::Expression(program) => match run(program, "claims", claims, budget)? {
                Value::String(text) => Ok(text),
                _ => Err(format!("the expression of {what} gives no text").into()),
            },
        }
    }

    /// None, one or several.
    fn texts(&self, what: &str, claims: &Value, budget: &mut u64) -> Result<Vec<String>, Refusal> {
        match self {
            Self::Claim { name, prefix } => {
                let found = texts(what, claims.get(name).cloned().unwrap_or_default())?;
                Ok(found.into_iter().map(|text| format!("{prefix}{text}")).collect())
            }
            Self::Expression(program) => texts(what, run(program, "claims", claims, budget)?),
        }
    }
}

/// Empty ones are left out.
fn texts(what: &str, value: Value) -> Result<Vec<String>, Refusal> {
    let one = |value: Value| match value {
        Value::String(text) => Ok(text),
        _ => Err(Refusal::from(format!("{what} must be a text or a list of texts"))),
    };
    let all = match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.into_iter().map(one).collect::<Result<_, _>>()?,
        other => vec![one(other)?],
    };
    Ok(all.into_iter().filter(|text| !text.is_empty()).collect())
}

/// The audiences of a token: one text or several.
pub fn audiences(claims: &Map<String, Value>) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(rules: &Value) -> Checked<Mapping> {
        Mapping::compile("jwt[0]", &serde_json::from_value(rules.clone()).expect("the form of the file"))
    }

    fn with_name(more: Value) -> Value {
        let mut rules = json!({ "claimMappings": { "username": { "claim": "sub", "prefix": "" } } });
        for (field, value) in more.as_object().expect("fields") {
            match value.as_object().filter(|_| field == "claimMappings") {
                Some(mappings) => mappings.iter().for_each(|(k, v)| rules["claimMappings"][k] = v.clone()),
                None => rules[field] = value.clone(),
            }
        }
        rules
    }

    #[test]
    fn rules_that_cannot_work_are_refused() {
        let check = |rules: Value, expect: &str| {
            let error = compile(&rules).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with(&format!("jwt[0].{expect}")), "{rules}: {error}");
        };
        check(json!({}), "claimMappings.username: a claim or an expression");
        let username = |file: Value| json!({ "claimMappings": { "username": file } });
        check(username(json!({ "claim": "sub" })), "claimMappings.username.prefix: it must be said");
        check(username(json!({ "claim": "sub", "expression": "claims.sub" })), "claimMappings.username: a claim and");
        check(username(json!({ "prefix": "x", "expression": "claims.sub" })), "claimMappings.username: a prefix and");
        check(username(json!({ "expression": "claim.sub" })), "claimMappings.username.expression: compilation failed");
        let email = "claimMappings.username: claims.email_verified must be used";
        check(username(json!({ "expression": "claims.email" })), email);
        check(username(json!({ "expression": "'a:' + claims['email']" })), email);
        assert!(compile(&username(json!({ "expression": "claims.user.email" }))).is_ok());
        let looks = "claims.?email_verified.orValue(false) ? claims.email : claims.sub";
        assert!(compile(&username(json!({ "expression": looks }))).is_ok());
        let mapping = |name: &str, file: Value| with_name(json!({ "claimMappings": { name: file } }));
        check(mapping("groups", json!({ "claim": "roles" })), "claimMappings.groups.prefix");
        check(mapping("uid", json!({ "claim": "sub", "prefix": "x" })), "claimMappings.uid: it has no prefix");
        let extra = |key: &str| mapping("extra", json!([{ "key": key, "valueExpression": "claims.x" }]));
        check(extra("plain"), "claimMappings.extra[0].key");
        check(extra("x.k8s.io/a"), "claimMappings.extra[0].key: x.k8s.io is reserved");
        check(extra("example.com/A"), "claimMappings.extra[0].key");
        let rule = |rule: Value| with_name(json!({ "claimValidationRules": [rule] }));
        check(rule(json!({})), "claimValidationRules[0]: a claim or");
        check(rule(json!({ "claim": "a", "message": "b" })), "claimValidationRules[0]: a message needs");
        check(rule(json!({ "expression": "'text'" })), "claimValidationRules[0].expression: compilation failed");
        let user = with_name(json!({ "userValidationRules": [{ "expression": "claims.x == 1" }] }));
        check(user, "userValidationRules[0].expression: compilation failed");
    }

    #[test]
    fn claims_become_a_user() {
        let check = |rules: Value, claims: Value, expect: Result<(&str, &[&str]), &str>| {
            let found = compile(&rules).expect("good rules").user(&claims);
            let found = found.map(|user| (user.name, user.groups)).map_err(|why| why.to_string());
            let expect = expect.map(|(name, groups)| {
                let authenticated = ["system:authenticated"].iter();
                (name.to_owned(), groups.iter().chain(authenticated).map(|group| (*group).to_owned()).collect())
            });
            assert_eq!(found, expect.map_err(str::to_owned), "{rules} {claims}");
        };
        let plain = json!({ "claimMappings": { "username": { "claim": "sub", "prefix": "oidc:" },
            "groups": { "claim": "roles", "prefix": "oidc:" } } });
        check(plain.clone(), json!({ "sub": "ada" }), Ok(("oidc:ada", &[])));
        check(plain.clone(), json!({ "sub": "ada", "roles": "dev" }), Ok(("oidc:ada", &["oidc:dev"])));
        check(plain.clone(), json!({ "sub": "ada", "roles": ["a", "b"] }), Ok(("oidc:ada", &["oidc:a", "oidc:b"])));
        check(plain.clone(), json!({ "sub": "ada", "roles": [1] }), Err("groups must be a text or a list of texts"));
        check(plain.clone(), json!({ "sub": 1 }), Err("its claim \"sub\" is no text, as username is"));
        check(plain, json!({}), Err("it has no claim \"sub\" for username"));
        let bare = with_name(json!({}));
        check(bare.clone(), json!({ "sub": "" }), Err("its username is empty"));
        let email = json!({ "claimMappings": { "username": { "claim": "email", "prefix": "" } } });
        check(email.clone(), json!({ "email": "a@b" }), Ok(("a@b", &[])));
        check(email.clone(), json!({ "email": "a@b", "email_verified": true }), Ok(("a@b", &[])));
        check(email, json!({ "email": "a@b", "email_verified": "true" }), Err("its email is not verified"));
        let cel = json!({ "claimMappings": {
            "username": { "expression": "claims.sub + '@' + claims.tenant" },
            "groups": { "expression": "claims.roles.split(',')" } } });
        check(cel.clone(), json!({ "sub": "a", "tenant": "t", "roles": "x,y" }), Ok(("a@t", &["x", "y"])));
        let found = compile(&cel).expect("good rules").user(&json!({ "sub": "a" }));
        assert!(found.is_err_and(|why| why.contains("resulted in error")));
    }

    #[test]
    fn what_must_hold_is_looked_at() {
        let rules = with_name(json!({
            "claimMappings": {
                "uid": { "expression": "claims.oid" },
                "extra": [{ "key": "example.com/tenant", "valueExpression": "claims.tenant" },
                    { "key": "example.com/none", "valueExpression": "claims.?none.orValue('')" }],
            },
            "claimValidationRules": [{ "claim": "hd", "requiredValue": "example.com" },
                { "expression": "claims.exp - claims.nbf <= 86400", "message": "at most a day" }],
            "userValidationRules": [{ "expression": "!user.username.startsWith('system:')", "message": "reserved" },
                { "expression": "user.groups.all(group, group != 'root') && user.extra['example.com/tenant'][0] != 'x'" }],
        }));
        let mapping = compile(&rules).expect("good rules");
        let claims = |change: fn(&mut Value)| {
            let mut claims =
                json!({ "sub": "ada", "hd": "example.com", "oid": "7", "tenant": "t", "exp": 100, "nbf": 0 });
            change(&mut claims);
            claims
        };
        let user = mapping.user(&claims(|_| {})).expect("a user");
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("ada", "7"));
        assert_eq!(user.extra, BTreeMap::from([("example.com/tenant".to_owned(), vec!["t".to_owned()])]));
        let check = |change: fn(&mut Value), expect: &str| {
            let why = mapping.user(&claims(change)).err().unwrap_or_default();
            assert!(why.contains(expect), "{why}");
        };
        check(|claims| claims["hd"] = "elsewhere".into(), "its claim \"hd\" is not as required");
        check(|claims| drop(claims.as_object_mut().map(|c| c.remove("hd"))), "it has no claim \"hd\"");
        check(|claims| claims["exp"] = 100_000.into(), "a claimValidationRule does not hold: at most a day");
        check(|claims| claims["sub"] = "system:admin".into(), "a userValidationRule does not hold: reserved");
        check(|claims| claims["tenant"] = "x".into(), "a userValidationRule does not hold: user.groups.all");
        check(|claims| claims["oid"] = 7.into(), "the expression of uid gives no text");
    }

    #[test]
    fn audiences_are_one_or_several() {
        let check = |aud: Value, expect: &[&str]| {
            let claims = json!({ "aud": aud });
            assert_eq!(audiences(claims.as_object().unwrap()), expect);
        };
        check(json!("a"), &["a"]);
        check(json!(["a", "b"]), &["a", "b"]);
        check(json!(1), &[]);
    }
}
