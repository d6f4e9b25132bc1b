//! Which level a request belongs to: FlowSchemas and PriorityLevelConfigurations (flowcontrol.apiserver.k8s.io/v1),
//! and the ones that every cluster begins with.
//!
//! Pure. May not know: seats, tasks. What cannot be read is left out, so that a bad object never keeps requests away.

use serde::Deserialize;
use serde_json::{Value, json};

use super::seats::LevelConfig;

/// What a request is, as far as schemas look at it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub group: &'a str,
    /// Empty for a path that is no resource. With the subresource: `pods/log`.
    pub resource: &'a str,
    pub namespace: &'a str,
    pub path: &'a str,
}

/// Everything `Levels` is made of.
pub struct Configuration {
    /// By precedence; the last one takes what no other does.
    pub schemas: Vec<FlowSchema>,
    pub levels: Vec<LevelConfig>,
    pub seats: usize,
}

#[derive(Debug)]
pub struct FlowSchema {
    pub name: String,
    /// Index of its level.
    pub level: usize,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    #[serde(rename = "nonResourceRules")]
    path_rules: Vec<PathRule>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind")]
enum Subject {
    User {
        user: Named,
    },
    Group {
        group: Named,
    },
    ServiceAccount {
        #[serde(rename = "serviceAccount")]
        account: AccountName,
    },
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
struct AccountName {
    namespace: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    paths: Vec<String>,
}

fn holds(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Subject {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        match self {
            Self::User { user } => user.name == "*" || user.name == asked.user,
            Self::Group { group } => group.name == "*" || asked.groups.contains(&group.name),
            Self::ServiceAccount { account } => {
                let Some(rest) = asked.user.strip_prefix("system:serviceaccount:") else { return false };
                let Some((namespace, name)) = rest.split_once(':') else { return false };
                namespace == account.namespace && (account.name == "*" || account.name == name)
            }
        }
    }
}

impl ResourceRule {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        let in_scope =
            if asked.namespace.is_empty() { self.cluster_scope } else { holds(&self.namespaces, asked.namespace) };
        in_scope
            && holds(&self.verbs, asked.verb)
            && holds(&self.api_groups, asked.group)
            && holds(&self.resources, asked.resource)
    }
}

impl PathRule {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        let is_path = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => asked.path.starts_with(prefix),
            None => pattern == asked.path,
        };
        holds(&self.verbs, asked.verb) && self.paths.iter().any(is_path)
    }
}

impl FlowSchema {
    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        self.rules.iter().any(|rule| {
            let what = if asked.resource.is_empty() {
                rule.path_rules.iter().any(|paths| paths.matches(asked))
            } else {
                rule.resource_rules.iter().any(|resources| resources.matches(asked))
            };
            what && rule.subjects.iter().any(|subject| subject.matches(asked))
        })
    }

    /// Requests with the same answer wait in the same queue.
    pub fn flow<'a>(&self, asked: &Asked<'a>) -> &'a str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => asked.user,
            Distinguisher::Namespace => asked.namespace,
        }
    }
}

/// The objects as they are stored, with the defaults where they say nothing: levels share `seats` by their shares.
pub fn configuration(schemas: &[Value], levels: &[Value], seats: usize) -> Configuration {
    let levels = with_mandatory(levels, &mandatory_levels());
    let schemas = with_mandatory(schemas, &mandatory_schemas());
    let shares = |level: &Value| at(level, "/spec/limited/nominalConcurrencyShares").unwrap_or(30);
    let all: u64 = levels.iter().filter(|level| !is_exempt(level)).map(shares).sum();
    let configs: Vec<LevelConfig> = levels
        .iter()
        .map(|level| {
            let nominal =
                if is_exempt(level) { 0 } else { (seats as u64 * shares(level)).div_ceil(all.max(1)) as usize };
            level_config(level, nominal)
        })
        .collect();
    let index = |name: &str| configs.iter().position(|config| config.name == name);
    let mut schemas: Vec<(u64, FlowSchema)> = schemas.iter().filter_map(|schema| flow_schema(schema, index)).collect();
    schemas.sort_by(|(a, first), (b, second)| (a, &first.name).cmp(&(b, &second.name)));
    Configuration { schemas: schemas.into_iter().map(|(_, schema)| schema).collect(), levels: configs, seats }
}

fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("")
}

fn at(object: &Value, pointer: &str) -> Option<u64> {
    object.pointer(pointer).and_then(Value::as_u64)
}

fn is_exempt(level: &Value) -> bool {
    level.pointer("/spec/type").and_then(Value::as_str) == Some("Exempt")
}

/// What is stored, and what must be there though somebody deleted it.
fn with_mandatory(stored: &[Value], mandatory: &[Value]) -> Vec<Value> {
    let missing = mandatory.iter().filter(|wanted| !stored.iter().any(|have| name(have) == name(wanted)));
    stored.iter().chain(missing).cloned().collect()
}

fn level_config(level: &Value, nominal: usize) -> LevelConfig {
    let number = |pointer: &str, default: u64| at(level, pointer).unwrap_or(default) as usize;
    let queues = level.pointer("/spec/limited/limitResponse/type").and_then(Value::as_str) == Some("Queue");
    let flow_queue_max = number("/spec/limited/limitResponse/queuing/queueLengthLimit", 50);
    let flows = number("/spec/limited/limitResponse/queuing/queues", 64);
    LevelConfig {
        name: name(level).to_owned(),
        is_exempt: is_exempt(level),
        nominal,
        lendable: nominal * number("/spec/limited/lendablePercent", 0).min(100) / 100,
        borrowed_max: at(level, "/spec/limited/borrowingLimitPercent").map(|percent| nominal * percent as usize / 100),
        flow_queue_max: if queues { flow_queue_max } else { 0 },
        waiting_max: flow_queue_max.saturating_mul(flows),
    }
}

fn flow_schema(schema: &Value, index: impl Fn(&str) -> Option<usize>) -> Option<(u64, FlowSchema)> {
    let level = index(schema.pointer("/spec/priorityLevelConfiguration/name")?.as_str()?)?;
    let rules = schema.pointer("/spec/rules").cloned().unwrap_or_else(|| json!([]));
    let rules = serde_json::from_value(rules).ok()?;
    let distinguisher = match schema.pointer("/spec/distinguisherMethod/type").and_then(Value::as_str) {
        Some("ByUser") => Distinguisher::User,
        Some("ByNamespace") => Distinguisher::Namespace,
        Some(_) | None => Distinguisher::None,
    };
    let precedence = at(schema, "/spec/matchingPrecedence").unwrap_or(1000);
    Some((precedence, FlowSchema { name: name(schema).to_owned(), level, distinguisher, rules }))
}

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";

fn level(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": "PriorityLevelConfiguration", "metadata": { "name": name }, "spec": spec })
}

fn limited(name: &str, shares: u32, lendable: u32) -> Value {
    level(
        name,
        json!({ "type": "Limited", "limited": { "nominalConcurrencyShares": shares, "lendablePercent": lendable,
        "limitResponse": { "type": "Queue", "queuing": { "queues": 64, "handSize": 6, "queueLengthLimit": 50 } } } }),
    )
}

fn mandatory_levels() -> [Value; 2] {
    let rest = json!({ "type": "Limited", "limited": { "nominalConcurrencyShares": 5, "lendablePercent": 0,
        "limitResponse": { "type": "Reject" } } });
    [level("exempt", json!({ "type": "Exempt", "exempt": {} })), level("catch-all", rest)]
}

/// The levels of a new cluster: shares and lendable percent as in Kubernetes.
pub fn default_levels() -> Vec<Value> {
    let mut levels = mandatory_levels().to_vec();
    levels.extend([
        limited("system", 30, 33),
        limited("node-high", 40, 25),
        limited("leader-election", 10, 0),
        limited("workload-high", 40, 50),
        limited("workload-low", 100, 90),
        limited("global-default", 20, 50),
    ]);
    levels
}

fn everything() -> (Value, Value) {
    let resources =
        json!([{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true }]);
    (resources, json!([{ "verbs": ["*"], "nonResourceURLs": ["*"] }]))
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "kind": "Group", "group": { "name": name } })).collect()
}

fn users(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "kind": "User", "user": { "name": name } })).collect()
}

/// Name, level, precedence, how flows are told apart.
struct Row(&'static str, &'static str, u32, Option<&'static str>);

fn schema(row: &Row, subjects: &Value, (resources, paths): (Value, Value)) -> Value {
    let Row(name, level, precedence, distinguisher) = row;
    let mut schema = json!({ "apiVersion": API_VERSION, "kind": "FlowSchema", "metadata": { "name": name }, "spec": {
        "priorityLevelConfiguration": { "name": level }, "matchingPrecedence": precedence,
        "rules": [{ "subjects": subjects, "resourceRules": resources, "nonResourceRules": paths }] } });
    if let Some(by) = distinguisher {
        schema["spec"]["distinguisherMethod"] = json!({ "type": by });
    }
    schema
}

fn mandatory_schemas() -> [Value; 2] {
    let all = groups(&["system:authenticated", "system:unauthenticated"]);
    [
        schema(&Row("exempt", "exempt", 1, None), &groups(&["system:masters"]), everything()),
        schema(&Row("catch-all", "catch-all", 10_000, Some("ByUser")), &all, everything()),
    ]
}

/// The schemas of a new cluster: what nodes, elections and the parts of the control plane ask never waits behind
/// what workloads and people ask.
pub fn default_schemas() -> Vec<Value> {
    let elections = json!([{ "verbs": ["get", "create", "update"], "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"], "namespaces": ["*"], "clusterScope": false }]);
    let heartbeats = json!([
        { "verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "namespaces": [], "clusterScope": true },
        { "verbs": ["*"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"],
            "clusterScope": false }]);
    let probes = json!([{ "verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"] }]);
    let accounts = json!([{ "kind": "ServiceAccount", "serviceAccount": { "name": "*", "namespace": "kube-system" } }]);
    let control = users(&["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver"]);
    let all = groups(&["system:authenticated", "system:unauthenticated"]);
    let (nodes, by_user, by_namespace) = (groups(&["system:nodes"]), Some("ByUser"), Some("ByNamespace"));
    let mut schemas = mandatory_schemas().to_vec();
    schemas.extend([
        schema(&Row("probes", "exempt", 2, None), &all, (json!([]), probes)),
        schema(
            &Row("system-leader-election", "leader-election", 100, by_user),
            &control,
            (elections.clone(), json!([])),
        ),
        schema(&Row("system-node-high", "node-high", 400, by_user), &nodes, (heartbeats, json!([]))),
        schema(&Row("system-nodes", "system", 500, by_user), &nodes, everything()),
        schema(&Row("kube-controller-manager", "workload-high", 800, by_namespace), &control, everything()),
        schema(&Row("kube-system-service-accounts", "workload-high", 900, by_namespace), &accounts, everything()),
        schema(
            &Row("workload-leader-election", "leader-election", 200, by_user),
            &groups(&["system:serviceaccounts"]),
            (elections, json!([])),
        ),
        schema(
            &Row("service-accounts", "workload-low", 9_000, by_user),
            &groups(&["system:serviceaccounts"]),
            everything(),
        ),
        schema(&Row("global-default", "global-default", 9_900, by_user), &all, everything()),
    ]);
    schemas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Configuration {
        configuration(&default_schemas(), &default_levels(), 245)
    }

    fn asked<'a>(user: &'a str, groups: &'a [String], verb: &'a str, resource: &'a str) -> Asked<'a> {
        let group = if resource == "leases" { "coordination.k8s.io" } else { "" };
        Asked { user, groups, verb, group, resource, namespace: "default", ..Asked::default() }
    }

    #[test]
    fn everybody_has_a_level() {
        let configuration = defaults();
        let check = |asked: Asked<'_>, expect: (&str, &str)| {
            let schema =
                configuration.schemas.iter().find(|schema| schema.matches(&asked)).expect("catch-all takes the rest");
            assert_eq!((schema.name.as_str(), configuration.levels[schema.level].name.as_str()), expect, "{asked:?}");
        };
        let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (masters, nodes) = (groups(&["system:masters", "system:authenticated"]), groups(&["system:nodes"]));
        let (people, accounts) =
            (groups(&["system:authenticated"]), groups(&["system:serviceaccounts", "system:authenticated"]));
        check(asked("admin", &masters, "list", "pods"), ("exempt", "exempt"));
        check(asked("system:node:a", &nodes, "update", "leases"), ("system-node-high", "node-high"));
        check(asked("system:node:a", &nodes, "list", "pods"), ("system-nodes", "system"));
        check(asked("system:kube-scheduler", &people, "list", "pods"), ("kube-controller-manager", "workload-high"));
        let system = "system:serviceaccount:kube-system:x";
        check(asked(system, &accounts, "list", "pods"), ("kube-system-service-accounts", "workload-high"));
        let own = "system:serviceaccount:shop:operator";
        check(asked(own, &accounts, "update", "leases"), ("workload-leader-election", "leader-election"));
        check(asked(own, &accounts, "list", "pods"), ("service-accounts", "workload-low"));
        check(asked("jane", &people, "list", "pods"), ("global-default", "global-default"));
        check(
            Asked { user: "jane", groups: &people, verb: "get", path: "/readyz", ..Asked::default() },
            ("probes", "exempt"),
        );
        check(
            Asked { user: "jane", groups: &people, verb: "get", path: "/apis", ..Asked::default() },
            ("global-default", "global-default"),
        );
    }

    #[test]
    fn seats_are_shared_out() {
        let seats = |name: &str| {
            defaults().levels.into_iter().find(|level| level.name == name).map(|l| (l.nominal, l.lendable))
        };
        assert_eq!(seats("system"), Some((30, 9)));
        assert_eq!(seats("workload-low"), Some((100, 90)));
        assert_eq!(seats("exempt"), Some((0, 0)));
    }

    #[test]
    fn what_is_deleted_or_broken_keeps_nobody_away() {
        let broken = json!({ "metadata": { "name": "broken" }, "spec": { "rules": 7,
            "priorityLevelConfiguration": { "name": "catch-all" } } });
        let nowhere =
            json!({ "metadata": { "name": "nowhere" }, "spec": { "priorityLevelConfiguration": { "name": "gone" } } });
        let configuration = configuration(&[broken, nowhere], &[], 10);
        let names: Vec<&str> = configuration.schemas.iter().map(|schema| schema.name.as_str()).collect();
        assert_eq!(names, ["exempt", "catch-all"]);
    }

    #[test]
    fn flows_are_told_apart_as_the_schema_says() {
        let configuration = defaults();
        let asked = asked("jane", &[], "list", "pods");
        let flow = |name: &str| configuration.schemas.iter().find(|s| s.name == name).map(|s| s.flow(&asked));
        assert_eq!(flow("service-accounts"), Some("jane"));
        assert_eq!(flow("kube-controller-manager"), Some("default"));
        assert_eq!(flow("exempt"), Some(""));
    }
}
