//! Questions about access: SelfSubjectAccessReview, SubjectAccessReview, LocalSubjectAccessReview,
//! SelfSubjectRulesReview, SelfSubjectReview, and about tokens: TokenReview. Answered, never stored.

use api::status::Status;
use serde_json::{Value, json};

use super::rule::Attributes;
use super::{RbacIndex, Rule};
use crate::authn::claims::AUDIENCE;
use crate::authn::{self, Reviewed};
use crate::core::Request;
use crate::identity::{MASTERS, UserInfo};
use crate::registry::meta::check_type;

/// Answers one review by filling in its status.
pub fn answer(request: &Request, mut object: Value) -> Result<Value, Status> {
    check_type(request.kind, &mut object)?;
    api::schema::check(request.kind, &mut object, request.parameters.validation)?;
    let index = request.core.rbac.current();
    let status = match request.kind.kind {
        "SelfSubjectReview" => user_info(&request.user),
        "SelfSubjectAccessReview" => access(&index, &request.user, &object),
        "SelfSubjectRulesReview" => rules(&index, &request.user, &object),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => access(&index, &reviewed_user(&object)?, &object),
        other => return Err(Status::not_implemented(format!("{other} is not served yet"))),
    };
    object["status"] = status;
    Ok(object)
}

fn user_info(user: &UserInfo) -> Value {
    json!({ "userInfo": described(user) })
}

/// A user as `authentication.k8s.io/v1` has it.
fn described(user: &UserInfo) -> Value {
    let mut described = json!({ "username": user.name, "groups": user.groups });
    if !user.uid.is_empty() {
        described["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        described["extra"] = json!(user.extra);
    }
    described
}

/// TokenReview: whose token is it, for those who do not verify it themselves?
pub async fn answer_token(request: &Request, mut object: Value) -> Result<Value, Status> {
    check_type(request.kind, &mut object)?;
    api::schema::check(request.kind, &mut object, request.parameters.validation)?;
    let token = object.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default().to_owned();
    let asked = object.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    let asked: Vec<&str> = asked.filter_map(Value::as_str).collect();
    let audiences = if asked.is_empty() { &[AUDIENCE] } else { asked.as_slice() };
    let status = match authn::review(&request.core, &token, audiences).await {
        Ok(Reviewed { user, audiences }) => {
            json!({ "authenticated": true, "user": described(&user), "audiences": audiences })
        }
        Err(why) => json!({ "user": {}, "error": format!("the token is refused: {why}") }),
    };
    object["status"] = status;
    // It is a secret, and nobody needs it back.
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.remove("token");
    }
    Ok(object)
}

fn reviewed_user(object: &Value) -> Result<UserInfo, Status> {
    let name = object.pointer("/spec/user").and_then(Value::as_str).unwrap_or("").to_owned();
    let groups = object.pointer("/spec/groups").and_then(Value::as_array).into_iter().flatten();
    let groups: Vec<String> = groups.filter_map(|g| g.as_str().map(str::to_owned)).collect();
    if name.is_empty() && groups.is_empty() {
        return Err(Status::unprocessable(
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ));
    }
    Ok(UserInfo { name, groups, ..UserInfo::default() })
}

fn access(index: &RbacIndex, user: &UserInfo, object: &Value) -> Value {
    let spec = &object["spec"];
    let resource = spec.get("resourceAttributes").filter(|v| v.is_object());
    let other = spec.get("nonResourceAttributes").filter(|v| v.is_object());
    let text = |value: Option<&'_ Value>, field: &str| -> String {
        value.and_then(|v| v.get(field)).and_then(Value::as_str).unwrap_or("").to_owned()
    };
    let from = resource.or(other);
    let [verb, group, name, sub, namespace, path] =
        ["verb", "group", "name", "subresource", "namespace", "path"].map(|f| text(from, f));
    let wanted = text(resource, "resource");
    // `*` asks for everything at once; only a rule that says `*` covers it.
    let attributes = Attributes {
        verb: &verb,
        group: &group,
        resource: &wanted,
        subresource: &sub,
        namespace: &namespace,
        name: &name,
        path: &path,
    };
    if index.allows(user, &attributes) {
        json!({ "allowed": true, "reason": "RBAC: allowed" })
    } else {
        json!({ "allowed": false })
    }
}

fn rules(index: &RbacIndex, user: &UserInfo, object: &Value) -> Value {
    let namespace = object.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or("");
    let everything = [
        Rule {
            verbs: vec!["*".to_owned()],
            api_groups: vec!["*".to_owned()],
            resources: vec!["*".to_owned()],
            ..Rule::default()
        },
        Rule { verbs: vec!["*".to_owned()], non_resource_urls: vec!["*".to_owned()], ..Rule::default() },
    ];
    let held: Vec<Value> = if user.in_group(MASTERS) {
        everything.iter().map(Rule::to_value).collect()
    } else {
        index.rules(user, namespace).map(Rule::to_value).collect()
    };
    let (other, resource): (Vec<Value>, Vec<Value>) =
        held.into_iter().partition(|rule| rule.get("nonResourceURLs").is_some());
    json!({ "resourceRules": resource, "nonResourceRules": other, "incomplete": false })
}
