//! `AuthenticationConfiguration` of apiserver.config.k8s.io/v1: who may come without an identity, and whose JSON Web
//! Tokens are taken. Pure.
//!
//! Owns: the form of the file, and refusing what cannot work before the server starts. What the expressions and claims
//! mean is in `oidc`. Follows `k8s.io/apiserver/pkg/apis/apiserver/{v1,validation}`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

use super::claims::{ISSUER, SECRET_ISSUER};
use super::oidc::mapping::Mapping;
use crate::config_file::{ConfigFile, ConfigFileError, open, wrong};
use crate::health;

/// Issuers of one file, as in Kubernetes.
const ISSUERS_MAX: usize = 64;

/// A file that can be used.
#[derive(Debug, Default)]
pub struct AuthenticationConfig {
    pub(super) anonymous: Anonymous,
    pub(super) issuers: Vec<(IssuerConfig, Arc<Mapping>)>,
}

/// Where requests without an identity are looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// The probes and the version.
    #[default]
    Probes,
    Nowhere,
    Everywhere,
    Paths(Vec<String>),
}

impl Anonymous {
    pub fn may_ask(&self, path: &str) -> bool {
        match self {
            Self::Probes => health::is_public(path),
            Self::Nowhere => false,
            Self::Everywhere => true,
            Self::Paths(paths) => paths.iter().any(|allowed| allowed == path),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    jwt: Vec<JwtFile>,
    anonymous: Option<AnonymousFile>,
}

impl ConfigFile for File {
    const KIND: &'static str = "AuthenticationConfiguration";
    const API_VERSIONS: &'static [&'static str] =
        &["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];

    fn type_of(&self) -> (&str, &str) {
        (&self.api_version, &self.kind)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct AnonymousFile {
    enabled: bool,
    conditions: Vec<ConditionFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConditionFile {
    path: String,
}

/// Whose tokens are taken, what they must say, and what becomes of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct JwtFile {
    pub issuer: IssuerConfig,
    pub claim_validation_rules: Vec<ClaimRuleFile>,
    pub claim_mappings: MappingsFile,
    pub user_validation_rules: Vec<UserRuleFile>,
}

/// Who signs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IssuerConfig {
    pub url: String,
    /// Where its keys are told of, if not below `url`.
    #[serde(rename = "discoveryURL")]
    pub discovery_url: Option<String>,
    /// PEM; the machine's authorities when there is none.
    pub certificate_authority: Option<String>,
    pub audiences: Vec<String>,
    pub audience_match_policy: String,
    pub egress_selector_type: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClaimRuleFile {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MappingsFile {
    pub username: ClaimFile,
    pub groups: ClaimFile,
    pub uid: ClaimFile,
    pub extra: Vec<ExtraFile>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClaimFile {
    pub claim: String,
    /// Must be said, though it may be empty.
    pub prefix: Option<String>,
    pub expression: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExtraFile {
    pub key: String,
    pub value_expression: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UserRuleFile {
    pub expression: String,
    pub message: String,
}

impl AuthenticationConfig {
    /// From YAML or JSON.
    ///
    /// # Errors
    /// The first field that cannot be used, and why.
    pub fn parse(text: &str) -> Result<Self, ConfigFileError> {
        let file: File = open(text)?;
        if file.jwt.len() > ISSUERS_MAX {
            return Err(wrong("jwt", format!("{} issuers are more than {ISSUERS_MAX}", file.jwt.len())));
        }
        let mut urls = BTreeSet::new();
        let mut issuers = Vec::new();
        for (at, jwt) in file.jwt.into_iter().enumerate() {
            let field = format!("jwt[{at}]");
            check_issuer(&format!("{field}.issuer"), &jwt.issuer)?;
            let discovery = jwt.issuer.discovery_url.clone().filter(|url| !url.is_empty());
            for url in [Some(jwt.issuer.url.clone()), discovery].into_iter().flatten() {
                if !urls.insert(url.clone()) {
                    return Err(wrong(format!("{field}.issuer"), format!("{url:?} is there twice")));
                }
            }
            let mapping = Mapping::compile(&field, &jwt)?;
            issuers.push((jwt.issuer, Arc::new(mapping)));
        }
        Ok(Self { anonymous: anonymous(file.anonymous)?, issuers })
    }
}

fn anonymous(file: Option<AnonymousFile>) -> Result<Anonymous, ConfigFileError> {
    let Some(file) = file else { return Ok(Anonymous::Probes) };
    if !file.enabled {
        if !file.conditions.is_empty() {
            return Err(wrong("anonymous.conditions", "there is nobody whom they could be about: enabled is false"));
        }
        return Ok(Anonymous::Nowhere);
    }
    if file.conditions.is_empty() {
        return Ok(Anonymous::Everywhere);
    }
    let paths: Vec<String> = file.conditions.into_iter().map(|condition| condition.path).collect();
    if paths.iter().any(|path| !path.starts_with('/')) {
        return Err(wrong("anonymous.conditions", "a condition names a path, which begins with /"));
    }
    Ok(Anonymous::Paths(paths))
}

fn check_issuer(field: &str, issuer: &IssuerConfig) -> Result<(), ConfigFileError> {
    check_url(&format!("{field}.url"), &issuer.url)?;
    if [ISSUER, SECRET_ISSUER].contains(&issuer.url.as_str()) {
        return Err(wrong(format!("{field}.url"), "this is the issuer of service accounts' tokens"));
    }
    if let Some(url) = issuer.discovery_url.as_ref().filter(|url| !url.is_empty()) {
        let field = format!("{field}.discoveryURL");
        check_url(&field, url)?;
        if url.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
            return Err(wrong(field, "it must differ from the issuer's url, or be left out"));
        }
    }
    if !issuer.egress_selector_type.is_empty() {
        return Err(wrong(format!("{field}.egressSelectorType"), "Knarr has no egress selectors"));
    }
    let field_audiences = format!("{field}.audiences");
    if issuer.audiences.is_empty() || issuer.audiences.iter().any(String::is_empty) {
        return Err(wrong(field_audiences, "at least one audience is needed, and none may be empty"));
    }
    let distinct: BTreeSet<&String> = issuer.audiences.iter().collect();
    if distinct.len() != issuer.audiences.len() {
        return Err(wrong(field_audiences, "one is there twice"));
    }
    match issuer.audience_match_policy.as_str() {
        "MatchAny" => Ok(()),
        "" if issuer.audiences.len() == 1 => Ok(()),
        "" => Err(wrong(format!("{field}.audienceMatchPolicy"), "it must be MatchAny for several audiences")),
        other => Err(wrong(format!("{field}.audienceMatchPolicy"), format!("{other:?} is not MatchAny"))),
    }
}

fn check_url(field: &str, url: &str) -> Result<(), ConfigFileError> {
    let wrong = |why: &str| Err(wrong(field, format!("{url:?} {why}")));
    if url.is_empty() {
        return wrong("is no URL");
    }
    if url.contains('#') {
        return wrong("must have no fragment");
    }
    let Ok(parsed) = url.parse::<http::Uri>() else { return wrong("is no URL") };
    if parsed.scheme_str() != Some("https") {
        return wrong("must begin with https://");
    }
    if parsed.host().is_none_or(str::is_empty) {
        return wrong("names no host");
    }
    if parsed.query().is_some() {
        return wrong("must have no query");
    }
    if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return wrong("must name no user");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

    fn error(text: &str) -> String {
        AuthenticationConfig::parse(text).err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn jwt(issuer: &str) -> String {
        format!("{HEAD}jwt: [{{issuer: {{{issuer}}}, claimMappings: {{username: {{claim: sub, prefix: ''}}}}}}]")
    }

    #[test]
    fn anonymous_requests_where_the_file_says_so() {
        let check = |text: &str, expect: Anonymous| {
            assert_eq!(AuthenticationConfig::parse(&format!("{HEAD}{text}")).unwrap().anonymous, expect, "{text}");
        };
        check("", Anonymous::Probes);
        check("anonymous: {enabled: false}", Anonymous::Nowhere);
        check("anonymous: {enabled: true}", Anonymous::Everywhere);
        let paths = Anonymous::Paths(vec!["/livez".to_owned()]);
        check("anonymous: {enabled: true, conditions: [{path: /livez}]}", paths.clone());
        assert!(paths.may_ask("/livez") && !paths.may_ask("/livez/ping") && !paths.may_ask("/api"));
        assert!(Anonymous::Probes.may_ask("/readyz") && !Anonymous::Probes.may_ask("/api"));
        assert!(!Anonymous::Nowhere.may_ask("/livez") && Anonymous::Everywhere.may_ask("/api"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let check = |text: &str, expect: &str| {
            let error = error(text);
            assert!(error.contains(expect), "{text}: {error}");
        };
        check("a: [", "the file is no AuthenticationConfiguration");
        check("apiVersion: v1\nkind: Pod", "the file is v1 Pod");
        check(&format!("{HEAD}jwts: []"), "the file is no AuthenticationConfiguration");
        check(&format!("{HEAD}anonymous: {{enabled: false, conditions: [{{path: /a}}]}}"), "anonymous.conditions");
        check(&jwt("url: 'http://a.b', audiences: [x]"), "jwt[0].issuer.url: \"http://a.b\" must begin with https://");
        check(&jwt("url: 'https://a.b?x=y', audiences: [x]"), "must have no query");
        check(&jwt("url: 'https://a.b#y', audiences: [x]"), "must have no fragment");
        check(&jwt("url: 'https://me@a.b', audiences: [x]"), "must name no user");
        check(&jwt(&format!("url: '{ISSUER}', audiences: [x]")), "the issuer of service accounts' tokens");
        check(&jwt("url: 'https://a.b'"), "at least one audience");
        check(&jwt("url: 'https://a.b', audiences: [x, y]"), "it must be MatchAny for several");
        check(&jwt("url: 'https://a.b', audiences: [x, x], audienceMatchPolicy: MatchAny"), "one is there twice");
        check(&jwt("url: 'https://a.b', audiences: [x], discoveryURL: 'https://a.b/'"), "it must differ");
        check(&jwt("url: 'https://a.b', audiences: [x], egressSelectorType: cluster"), "egress selectors");
        let one = "{issuer: {url: 'https://a.b', audiences: [x]}, claimMappings: {username: {claim: sub, prefix: ''}}}";
        check(&format!("{HEAD}jwt: [{one}, {one}]"), "jwt[1].issuer: \"https://a.b\" is there twice");
        assert_eq!(error(&jwt("url: 'https://a.b', audiences: [x]")), "");
    }
}
