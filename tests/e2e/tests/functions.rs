//! Functions: a component is applied, its exports are called within limits, by schedules and over HTTP too, and it is
//! replaced while it is called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::images::BUSYBOX;
use e2e::{Cluster, eventually, http};
use plugin_client::{CallError, Plugins};
use serde_json::{Value, json};

/// `which` tells the versions apart; `add` works on numbers of this type.
fn calculator(which: u32, number: &str, more: &str) -> String {
    let core = if number == "u64" { "i64" } else { "i32" };
    format!(
        r#"(component
          (core module $m
            (func (export "add") (param {core} {core}) (result {core}) ({core}.add (local.get 0) (local.get 1)))
            (func (export "which") (result i32) (i32.const {which}))
            (func $inner-most unreachable)
            (func (export "trap") (call $inner-most))
            (func (export "spin") (loop $again (br $again))))
          (core instance $i (instantiate $m))
          (func (export "add") (param "a" {number}) (param "b" {number}) (result {number})
            (canon lift (core func $i "add")))
          (func (export "which") (result u32) (canon lift (core func $i "which")))
          {more}
          (func (export "spin") (canon lift (core func $i "spin"))))"#
    )
}

const TRAP: &str = r#"(func (export "trap") (canon lift (core func $i "trap")))"#;

fn function(name: &str, image: &str, limits: &str) -> String {
    format!(
        "apiVersion: knarr.dev/v1alpha1
kind: Function
metadata: {{name: {name}}}
spec:
  image: registry.local/{image}
  limits: {{{limits}}}
"
    )
}

fn invoke(cluster: &Cluster, function: &str, call: &str) -> e2e::Said {
    cluster.knarr(&["invoke", function, call])
}

/// The client crate, as a program that has plugins uses it.
fn from_a_host_application(cluster: &Cluster) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let plugins = Plugins::from_kubeconfig(&cluster.kubeconfig()).await.expect("the cluster is reached");
        let calc = plugins.function("default", "calc");
        assert_eq!(calc.call::<u32>("add", (1, 2)).await.expect("a sum"), 3);
        let trapped = calc.call::<()>("trap", ()).await.expect_err("it traps");
        assert!(matches!(&trapped, CallError::Failed { reason, .. } if reason == "Trapped"), "{trapped:?}");
        let refused = calc.call::<u32>("sub", (1, 2)).await.expect_err("there is none");
        assert!(matches!(refused, CallError::Refused { code: 404, .. }), "{refused:?}");
        let stream = calc.stream();
        let calls = (0..500_u32).map(|number| {
            let stream = stream.clone();
            tokio::spawn(async move { stream.call::<u32>("add", (number, 1)).await })
        });
        for (number, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
            let sum = call.await.expect("no panic").expect("a sum");
            assert_eq!(u32::try_from(number + 1), Ok(sum));
        }
    });
}

const RAW: &str = "/apis/knarr.dev/v1alpha1/namespaces/default/functions/calc/invoke";

#[test]
fn exports_are_published_and_called_within_limits() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_wat(&calculator(1, "u32", TRAP), "calc:v1");
    cluster.apply(&function("calc", "calc:v1", "timeout: 300ms, memory: 8Mi, callsPerSecond: 1000"));
    cluster.kubectl("wait --for=condition=Ready function/calc --timeout=90s").ok();
    let printed = cluster.kubectl("get functions").ok();
    assert!(printed.contains("1/1") && printed.contains("add,which,trap + 1 more..."), "{printed}");
    let add = cluster.value("function/calc", ".status.exports[0].signature");
    assert_eq!(add, "func(a: u32, b: u32) -> u32");
    assert!(cluster.kubectl("explain function.spec.limits").ok().contains("callsAtOnce"));
    assert!(cluster.value("function/calc", ".status.image").contains("@sha256:"));

    assert_eq!(invoke(&cluster, "calc", "add(1, 2)").ok(), "3\n");
    assert_eq!(cluster.knarr(&["invoke", "calc", "which()", "-o", "json"]).ok(), "{\"result\":1}\n");
    let raw = cluster.kubectl_with(&format!("create --raw {RAW} -f -"), r#"{"export": "add", "args": [20, 22]}"#);
    assert_eq!(raw.json(), json!({ "result": 42 }));
    for (call, why) in [
        ("trap()", "trap trapped: wasm trap: wasm `unreachable` instruction executed"),
        ("spin()", "spin: took longer than its timeout of 300ms"),
        ("add(1)", "it is func(a: u32, b: u32) -> u32"),
        ("sub(1, 2)", "there is no export `sub`; it has: add, which, trap, spin"),
    ] {
        let said = invoke(&cluster, "calc", call);
        assert_eq!(said.code, Some(1));
        let words = said.refused();
        assert!(words.contains(why) && words.lines().count() <= 2, "{words}");
    }
    assert!(invoke(&cluster, "trap", "trap()").refused().contains("functions.knarr.dev \"trap\" not found"));
    let pod = cluster.kubectl("get pods -l knarr.dev/function=calc -o name").ok();
    assert!(cluster.kubectl(&format!("logs {}", pod.trim())).ok().contains("inner-most"));

    from_a_host_application(&cluster);

    // A component that exports nothing never serves, and says why.
    cluster.push_wat("(component)", "empty:v1");
    cluster.apply(&function("empty", "empty:v1", ""));
    let message = r#".status.conditions[?(@.type=="Ready")].message"#;
    eventually("the condition says why", || {
        let told = cluster.value("function/empty", message);
        if told.contains("exports no function that can be called") { Ok(()) } else { Err(told) }
    });
    assert!(invoke(&cluster, "empty", "add(1, 2)").refused().contains("has no pod that serves calls"));

    cluster.kubectl("delete function calc empty").ok();
    eventually("its pods go with it", || {
        let pods = cluster.kubectl("get pods -o name").ok();
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
}

#[test]
fn a_function_is_replaced_while_it_is_called_and_no_call_is_lost() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_wat(&calculator(1, "u32", TRAP), "calc:v1");
    cluster.push_wat(&calculator(2, "u32", TRAP), "calc:v2");
    cluster.push_wat(&calculator(3, "u64", TRAP), "calc:v3");
    cluster.push_wat(&calculator(4, "u32", ""), "calc:v4");
    cluster.apply(&function("calc", "calc:v1", ""));
    cluster.kubectl("wait --for=condition=Ready function/calc --timeout=90s").ok();

    let stop = Arc::new(AtomicBool::new(false));
    let (seen, swapped) = std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                seen.push(invoke(&cluster, "calc", "which()").ok().trim().to_owned());
            }
            seen
        });
        let set_image = |image: &str| {
            let patch = json!({ "spec": { "image": format!("registry.local/{image}") } }).to_string();
            cluster.kubectl_args(&["patch", "function", "calc", "--type=merge", "-p", &patch], "").ok();
        };
        set_image("calc:v2");
        let swapped = eventually("the new revision serves", || {
            let said = invoke(&cluster, "calc", "which()").ok();
            if said == "2\n" { Ok(said) } else { Err(said) }
        });
        eventually("the old pod is gone", || {
            let pods = cluster.kubectl("get pods -o name").ok();
            if pods.lines().count() == 1 { Ok(()) } else { Err(pods) }
        });
        stop.store(true, Ordering::Relaxed);
        (caller.join().expect("every call has an answer"), swapped)
    });
    assert_eq!(swapped, "2\n");
    let first_new = seen.iter().position(|which| which == "2").unwrap_or(seen.len());
    assert!(seen[..first_new].iter().all(|which| which == "1"), "{seen:?}");
    assert!(seen[first_new..].iter().all(|which| which == "2"), "{seen:?}");
    println!("{} calls, {} of them after the change", seen.len(), seen.len() - first_new);

    // Interfaces that break callers are refused, and what serves goes on.
    for (image, why) in [
        ("calc:v3", "changes the type of `add`, which is func(a: u32, b: u32) -> u32, to func(a: u64, b: u64) -> u64"),
        ("calc:v4", "does not export `trap` any more"),
    ] {
        let patch = json!({ "spec": { "image": format!("registry.local/{image}") } }).to_string();
        cluster.kubectl_args(&["patch", "function", "calc", "--type=merge", "-p", &patch], "").ok();
        let condition = eventually("the change is refused", || {
            let function = cluster.kubectl("get function calc -o json").json();
            let conditions = function["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.into_iter().find(|one| one["type"] == "UpToDate").unwrap_or(Value::Null);
            let told = found["message"].as_str().unwrap_or_default().contains(why);
            if told { Ok(found) } else { Err(found.to_string()) }
        });
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("IncompatibleInterface")));
        assert_eq!(invoke(&cluster, "calc", "which()").ok(), "2\n");
    }
    cluster.wait_event("calc", "does not export `trap` any more");
    let patch = json!({ "spec": { "interfaceChanges": "Any" } }).to_string();
    cluster.kubectl_args(&["patch", "function", "calc", "--type=merge", "-p", &patch], "").ok();
    eventually("it is allowed now", || {
        let said = invoke(&cluster, "calc", "which()").ok();
        if said == "4\n" { Ok(()) } else { Err(said) }
    });
}

const TRIGGERS: &str = r#"
  triggers:
  - {name: minutely, schedule: "* * * * *", timeZone: Europe/Berlin, export: add, args: [20, 22]}
  - {name: often, schedule: "@every 2s", export: trap, concurrencyPolicy: Forbid}
  - {name: sum, http: {path: /sum, methods: [GET, POST], export: add}}
  - {name: which, http: {path: /which, pathType: Prefix, methods: [GET], export: which}}
"#;

#[test]
fn functions_are_called_by_schedules_and_http_requests() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_wat(&calculator(1, "u32", TRAP), "calc:v1");
    cluster.push_wat(&calculator(2, "u32", TRAP), "calc:v2");
    let bad =
        function("calc", "calc:v1", "") + &TRIGGERS.replace("Europe/Berlin", "Mars/Base").replace("@every", "@at");
    let refused = cluster.kubectl_with("apply -f -", &bad).refused();
    for why in ["spec.triggers[0].timeZone", "unknown time zone Mars/Base", "unrecognized descriptor: @at 2s"] {
        assert!(refused.contains(why), "{refused}");
    }
    cluster.apply(&(function("calc", "calc:v1", "") + TRIGGERS));
    cluster.kubectl("wait --for=condition=Ready function/calc --timeout=90s").ok();
    cluster.kubectl("wait --for=condition=TriggersReady function/calc --timeout=90s").ok();
    let explained = cluster.kubectl("explain function.spec.triggers").ok();
    assert!(explained.contains("concurrencyPolicy") && explained.contains("startingDeadlineSeconds"), "{explained}");
    let wide = cluster.kubectl("get functions -o wide").ok();
    assert!(wide.contains("minutely:* * * * *,often:@every 2s,sum:/sum + 1 more..."), "{wide}");

    answers_over_http(&cluster);
    keeps_answering_while_it_is_replaced(&cluster);
    follows_its_schedules(&cluster);

    let node = cluster.kubectl("get nodes -o jsonpath={.items[0].metadata.name}").ok();
    let metrics = cluster.kubectl(&format!("get --raw /api/v1/nodes/{node}/proxy/metrics/resource")).ok();
    let mut lines = metrics.lines().filter(|line| line.starts_with("knarr_function_calls_total{function=\"calc\""));
    assert!(lines.any(|line| line.contains("what=\"begun\"") && !line.ends_with(" 0")), "{metrics}");
    assert!(metrics.contains("knarr_function_memory_peak_bytes{function=\"calc\""), "{metrics}");

    cluster.kubectl("delete function calc").ok();
    eventually("its Service goes with it", || {
        let services = cluster.kubectl("get services -o name").ok();
        if services.contains("calc") { Err(services) } else { Ok(()) }
    });
}

fn answers_over_http(cluster: &Cluster) {
    cluster.wait_answer("calc", 80, "/sum?a=1&b=2", "{\"result\":3}\n");
    let address = cluster.value("service/calc", ".spec.clusterIP") + ":80";
    let check = |answer: Result<http::Answer, http::NoAnswer>, status: u16, text: &str| {
        let answer = answer.expect("it answers");
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.contains(text), "{answer:?}");
    };
    check(http::post(&address, "/sum", "[20, 22]"), 200, "{\"result\":42}");
    check(http::post(&address, "/sum", "{\"b\": 1, \"a\": 2}"), 200, "{\"result\":3}");
    check(http::get(&address, "/which/ever"), 200, "{\"result\":1}");
    check(http::get(&address, "/sum?a=1"), 400, "add: b: expected u32, got nothing");
    check(http::get(&address, "/trap"), 404, "no trigger of the function has the path /trap");
    if cluster.push_busybox() {
        let line = "/bin/busybox wget -qO- 'http://calc/sum?a=30&b=3'";
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "asks" },
            "spec": { "restartPolicy": "Never",
                "containers": [{ "name": "main", "image": BUSYBOX, "command": ["/bin/busybox", "sh", "-c", line] }] },
        });
        cluster.apply(&pod.to_string());
        cluster.wait_ended("asks");
        assert_eq!(cluster.kubectl("logs asks").ok(), "{\"result\":33}\n");
    }
}

fn keeps_answering_while_it_is_replaced(cluster: &Cluster) {
    let address = cluster.value("service/calc", ".spec.clusterIP") + ":80";
    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                seen.push(http::get(&address, "/which").map(|answer| (answer.status, answer.body)));
            }
            seen
        });
        let patch = json!({ "spec": { "image": "registry.local/calc:v2" } }).to_string();
        cluster.kubectl_args(&["patch", "function", "calc", "--type=merge", "-p", &patch], "").ok();
        eventually("the old pod is gone", || {
            let pods =
                cluster.kubectl("get pods -l knarr.dev/function=calc -o jsonpath={.items[*].spec.containers[0].image}");
            let pods = pods.ok();
            if pods == "registry.local/calc:v2" { Ok(()) } else { Err(pods) }
        });
        stop.store(true, Ordering::Relaxed);
        caller.join().expect("the caller does not panic")
    });
    for answer in &seen {
        let (status, body) = answer.as_ref().unwrap_or_else(|error| panic!("a request was lost: {error}"));
        assert!(*status == 200 && (body == "{\"result\":1}\n" || body == "{\"result\":2}\n"), "{status} {body}");
    }
    let new = seen.iter().flatten().filter(|(_, body)| body.contains('2')).count();
    assert!(new > 0 && new < seen.len(), "{new} of {}", seen.len());
    println!("{} requests, {new} of them after the change", seen.len());
}

fn follows_its_schedules(cluster: &Cluster) {
    let status = |name: &str| {
        let function = cluster.kubectl("get function calc -o json").json();
        let all = function["status"]["triggers"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["name"] == name).unwrap_or(Value::Null)
    };
    cluster.wait_event("calc", "trigger \"often\": calling trap for");
    let often = status("often");
    assert_eq!(often["lastResult"]["kind"], "Trapped", "{often}");
    assert!(often["lastResult"]["message"].as_str().unwrap_or_default().contains("inner-most"), "{often}");
    assert!(often["lastSuccessfulTime"].is_null(), "{often}");
    let patch = r#"[{"op": "replace", "path": "/spec/triggers/1/suspend", "value": true}]"#;
    cluster.kubectl_args(&["patch", "function", "calc", "--type=json", "-p", patch], "").ok();
    // At most a minute away.
    let minutely = eventually("the minute has come", || {
        let minutely = status("minutely");
        if minutely["lastResult"]["kind"] == "Result" { Ok(minutely) } else { Err(minutely.to_string()) }
    });
    assert_eq!(minutely["lastResult"]["message"], "42");
    assert_eq!(minutely["lastResult"]["scheduleTime"], minutely["lastScheduleTime"]);
    assert!(minutely["lastScheduleTime"].as_str().unwrap_or_default().ends_with(":00Z"), "{minutely}");
    assert!(minutely["active"].is_null() && minutely["lastSuccessfulTime"].is_string(), "{minutely}");
    let last = status("often")["lastScheduleTime"].clone();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(status("often")["lastScheduleTime"], last, "it is suspended");
}
