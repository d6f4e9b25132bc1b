//! ValidatingAdmissionPolicies over the whole server: matching, parameters, actions, messages.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use apiserver::UserInfo;
use harness::{Answer, Cluster, config_map, deployment};
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn policy(name: &str, spec: Value) -> Value {
    let mut all = json!({ "matchConstraints": { "resourceRules": [{ "apiGroups": ["apps"], "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"], "resources": ["deployments"] }] } });
    for (field, value) in spec.as_object().into_iter().flatten() {
        all[field] = value.clone();
    }
    json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": name }, "spec": all })
}

fn binding(name: &str, policy: &str, spec: Value) -> Value {
    let mut all = json!({ "policyName": policy, "validationActions": ["Deny"] });
    for (field, value) in spec.as_object().into_iter().flatten() {
        all[field] = value.clone();
    }
    json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": name }, "spec": all })
}

async fn with(policy_spec: Value, binding_spec: Value) -> Cluster {
    let cluster = Cluster::new().await;
    register(&cluster, policy_spec, binding_spec).await;
    cluster
}

async fn register(cluster: &Cluster, policy_spec: Value, binding_spec: Value) {
    cluster.post(&format!("{GROUP}/validatingadmissionpolicies"), policy("p", policy_spec)).await.expect(201);
    let bound = binding("b", "p", binding_spec);
    cluster.post(&format!("{GROUP}/validatingadmissionpolicybindings"), bound).await.expect(201);
}

fn warning(answer: &Answer) -> String {
    answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().replace('\\', "")).collect()
}

fn replicas(name: &str, count: i64) -> Value {
    let mut object = deployment(name);
    object["spec"]["replicas"] = count.into();
    object
}

#[tokio::test]
async fn what_a_policy_denies_is_in_force_at_once() {
    let limit = json!({ "validations": [{ "expression": "object.spec.replicas <= 5" }] });
    let cluster = with(limit, json!({})).await;
    cluster.post(DEPLOYMENTS, replicas("a", 5)).await.expect(201);
    let refused = cluster.post(DEPLOYMENTS, replicas("b", 6)).await;
    let message = "deployments.apps \"b\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: \
                   failed expression: object.spec.replicas <= 5";
    assert_eq!(refused.body["reason"], "Invalid");
    refused.refused(422, message);
    let scaled = cluster.call("PATCH", &format!("{DEPLOYMENTS}/a"), json!({ "spec": { "replicas": 7 } })).await;
    assert_eq!(scaled.code, 422);
    // Other kinds, other operations, other subresources are not its business.
    cluster.post("/api/v1/namespaces/default/configmaps", config_map("c")).await.expect(201);
    cluster.call("DELETE", &format!("{DEPLOYMENTS}/a"), None).await.expect(200);
    cluster.call("DELETE", &format!("{GROUP}/validatingadmissionpolicybindings/b"), None).await.expect(200);
    cluster.post(DEPLOYMENTS, replicas("b", 6)).await.expect(201);
}

#[tokio::test]
async fn warn_and_audit_let_pass() {
    let spec = json!({ "variables": [{ "name": "n", "expression": "object.spec.replicas" }], "validations": [
        { "expression": "variables.n <= 5", "messageExpression": "'too many: ' + string(variables.n)" }],
        "auditAnnotations": [{ "key": "n", "valueExpression": "string(variables.n)" }] });
    let cluster = with(spec, json!({ "validationActions": ["Warn", "Audit"] })).await;
    let answer = cluster.post(DEPLOYMENTS, replicas("a", 6)).await;
    let expect = "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': too many: 6\"";
    assert_eq!((answer.code, warning(&answer).as_str()), (201, expect));
}

#[tokio::test]
async fn parameters_come_from_objects() {
    let spec = json!({ "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
        "validations": [{ "expression": "object.spec.replicas <= int(params.data.max)", "reason": "Forbidden",
            "message": "too many" }] });
    let reference = json!({ "paramRef": { "name": "limit", "parameterNotFoundAction": "Deny" } });
    let cluster = with(spec, reference).await;
    let missing = cluster.post(DEPLOYMENTS, replicas("a", 1)).await.expect(422);
    assert!(missing["message"].as_str().unwrap().ends_with(
        "denied request: failed to configure binding: no params found for policy binding with `Deny` \
         parameterNotFoundAction"
    ));
    let limit =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "limit" }, "data": { "max": "3" } });
    cluster.post("/api/v1/namespaces/default/configmaps", limit).await.expect(201);
    cluster.post(DEPLOYMENTS, replicas("a", 3)).await.expect(201);
    cluster.post(DEPLOYMENTS, replicas("b", 4)).await.refused(
        403,
        "deployments.apps \"b\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: too many",
    );
}

#[tokio::test]
async fn namespaces_users_and_conditions_count() {
    let spec = json!({
        "matchConditions": [{ "name": "not-admin", "expression": "request.userInfo.username != 'admin'" }],
        "validations": [{ "expression": "namespaceObject.metadata.name == 'other'" },
            { "expression": "authorizer.group('').resource('secrets').namespace('default').check('list').allowed()",
              "message": "only who may list secrets" }] });
    let selector = json!({ "matchResources": { "namespaceSelector": { "matchLabels": {
        "kubernetes.io/metadata.name": "default" } } } });
    let cluster = with(spec, selector).await;
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": "bob" }, "subjects": [{ "kind": "User", "name": "bob" }],
        "roleRef": { "kind": "ClusterRole", "name": "edit", "apiGroup": "rbac.authorization.k8s.io" } });
    cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", role).await.expect(201);
    cluster.post(DEPLOYMENTS, replicas("a", 1)).await.expect(201);
    let bob = UserInfo::authenticated("bob", Vec::<String>::new());
    let mut answer = cluster.call_as(bob.clone(), "POST", DEPLOYMENTS, replicas("b", 1)).await;
    // The role is in force a moment after it was written.
    for _ in 0..100 {
        if answer.code != 403 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        answer = cluster.call_as(bob.clone(), "POST", DEPLOYMENTS, replicas("b", 1)).await;
    }
    let message = answer.expect(422)["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with("failed expression: namespaceObject.metadata.name == 'other'"), "{message}");
    let other = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "elsewhere" } });
    cluster.post("/api/v1/namespaces", other).await.expect(201);
    let path = DEPLOYMENTS.replace("default", "elsewhere");
    cluster.call_as(bob, "POST", &path, replicas("b", 1)).await.expect(201);
}

#[tokio::test]
async fn deletions_have_only_an_old_object() {
    let spec = json!({ "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["DELETE"], "resources": ["configmaps"] }] },
        "validations": [{ "expression": "object == null && !(has(oldObject.metadata.labels) && has(oldObject.metadata.labels.keep))", "message": "kept" }] });
    let cluster = with(spec, json!({})).await;
    let path = "/api/v1/namespaces/default/configmaps";
    let mut kept = config_map("kept");
    kept["metadata"]["labels"] = json!({ "keep": "yes" });
    cluster.post(path, kept).await.expect(201);
    cluster.post(path, config_map("free")).await.expect(201);
    let refused = cluster.call("DELETE", &format!("{path}/kept"), None).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("denied request"), "{refused}");
    cluster.call("DELETE", &format!("{path}/free"), None).await.expect(200);
}

#[tokio::test]
async fn wrong_policies_are_refused_and_others_shown() {
    let cluster = Cluster::new().await;
    let path = format!("{GROUP}/validatingadmissionpolicies");
    let check = async |spec: Value, expect: &str| {
        let refused = cluster.post(&path, policy("p", spec.clone())).await.expect(422);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(expect), "{spec}: {message}");
    };
    check(
        json!({ "validations": [{ "expression": "object.spec.replicas <" }] }),
        "spec.validations[0].expression: Invalid value: \"object.spec.replicas <\": compilation failed: ERROR: <input>:1:",
    )
    .await;
    check(json!({ "validations": [{ "expression": "nothing" }] }), "undeclared reference to 'nothing'").await;
    check(json!({ "validations": [{ "expression": "params.x" }] }), "undeclared reference to 'params'").await;
    check(json!({ "validations": [{ "expression": "'text'" }] }), "must evaluate to bool").await;
    check(json!({}), "spec.validations: Required value: validations or auditAnnotations must be specified").await;
    let made = cluster.post(&path, policy("p", json!({ "validations": [{ "expression": "true" }] }))).await.expect(201);
    assert_eq!((&made["spec"]["failurePolicy"], &made["metadata"]["generation"]), (&json!("Fail"), &json!(1)));
    assert_eq!(made["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
    let table = cluster.get_as_form(&path, "application/json;as=Table;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("p"), json!(1), json!("<unset>")]);
    let both = binding("b", "p", json!({ "validationActions": ["Deny", "Warn"] }));
    cluster.post(&format!("{GROUP}/validatingadmissionpolicybindings"), both).await.expect(422);
}

#[tokio::test]
async fn mutating_policies_change_objects() {
    let cluster = Cluster::new().await;
    let of = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let spec = json!({ "reinvocationPolicy": "Never", "matchConstraints": { "resourceRules": [{ "apiGroups": ["apps"],
            "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"] }] },
        "mutations": [
            { "patchType": "ApplyConfiguration", "applyConfiguration": { "expression":
                "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{\
                 containers: [Object.spec.template.spec.containers{name: 'c', imagePullPolicy: 'Always'}, \
                 Object.spec.template.spec.containers{name: 'side', image: 'proxy'}]}}}}" } },
            { "patchType": "JSONPatch", "jsonPatch": { "expression":
                "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'count': string(\
                 object.spec.template.spec.containers.size())}}]" } }] });
    let made = cluster
        .post(&format!("{GROUP}/mutatingadmissionpolicies"), of("MutatingAdmissionPolicy", "m", spec.clone()))
        .await
        .expect(201);
    assert_eq!(made["spec"]["failurePolicy"], "Fail");
    let bound = of("MutatingAdmissionPolicyBinding", "b", json!({ "policyName": "m" }));
    cluster.post(&format!("{GROUP}/mutatingadmissionpolicybindings"), bound).await.expect(201);
    let made = cluster.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let containers = made["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!((&containers[0]["image"], &containers[0]["imagePullPolicy"]), (&json!("i"), &json!("Always")));
    // What was added has its defaults.
    assert_eq!(
        (&containers[1]["name"], &containers[1]["terminationMessagePath"]),
        (&json!("side"), &json!("/dev/termination-log"))
    );
    assert_eq!(made["metadata"]["labels"]["count"], "2");
    let mut wrong = spec;
    wrong["mutations"] = json!([{ "patchType": "JSONPatch", "jsonPatch": { "expression": "Pod{}" } }]);
    let refused = cluster
        .post(&format!("{GROUP}/mutatingadmissionpolicies"), of("MutatingAdmissionPolicy", "w", wrong))
        .await
        .expect(422);
    assert!(refused["message"].as_str().unwrap().contains("spec.mutations[0].jsonPatch.expression"), "{refused}");
}

#[tokio::test]
async fn connections_may_be_denied() {
    let spec = json!({ "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CONNECT"], "resources": ["pods/exec"] }] },
        "validations": [{ "expression": "object.kind == 'PodExecOptions' && !('sh' in object.command)",
            "message": "no shells" }] });
    let cluster = with(spec, json!({})).await;
    cluster.post("/api/v1/namespaces/default/pods", harness::pod("p")).await.expect(201);
    let path = "/api/v1/namespaces/default/pods/p/exec?stdout=true&command=";
    let refused = cluster.post(&format!("{path}sh"), Value::Null).await.expect(422);
    assert_eq!(
        refused["message"],
        "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no shells"
    );
    // Another command comes as far as finding no node.
    assert_ne!(cluster.post(&format!("{path}ls"), Value::Null).await.code, 422);
}

#[tokio::test]
async fn scaling_is_shown_as_a_scale() {
    let spec = json!({ "matchConstraints": { "resourceRules": [{ "apiGroups": ["apps"], "apiVersions": ["v1"],
            "operations": ["UPDATE"], "resources": ["deployments/scale"] }] },
        "validations": [{ "expression": "object.kind == 'Scale' && object.spec.replicas <= 3", "message": "too many" }] });
    let cluster = with(spec, json!({})).await;
    cluster.post(DEPLOYMENTS, replicas("a", 1)).await.expect(201);
    let scale = |count: i64| json!({ "spec": { "replicas": count } });
    cluster.call("PATCH", &format!("{DEPLOYMENTS}/a/scale"), scale(3)).await.expect(200);
    cluster.call("PATCH", &format!("{DEPLOYMENTS}/a/scale"), scale(4)).await.expect(422);
    cluster.call("PATCH", &format!("{DEPLOYMENTS}/a"), scale(4)).await.expect(200);
}
