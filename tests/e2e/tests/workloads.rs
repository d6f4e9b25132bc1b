//! Jobs, CronJobs, StatefulSets and DaemonSets: what they promise, with real pods.

use e2e::images::COMMAND;
use e2e::{Cluster, eventually};

#[test]
fn jobs_run_to_their_end() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    a_job_completes(&cluster);
    an_indexed_job_runs_every_index(&cluster);
    a_failing_job_gives_up(&cluster);
    a_cron_job_is_run_by_hand_and_by_the_clock(&cluster);
    a_suspended_job_waits(&cluster);
}

fn job(name: &str, spec: &str, env: &str) -> String {
    format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  {spec}
  template:
    spec:
      restartPolicy: Never
      containers: [{{name: main, image: '{COMMAND}', env: [{env}]}}]
"
    )
}

fn a_job_completes(cluster: &Cluster) {
    cluster.apply(&job("once", "completions: 3\n  parallelism: 2", ""));
    cluster.kubectl("wait --for=condition=complete job/once --timeout=90s").ok();
    for (path, expected) in
        [("succeeded", "3"), ("active", ""), ("uncountedTerminatedPods", "{}"), ("terminating", "0")]
    {
        assert_eq!(cluster.value("job/once", &format!(".status.{path}")), expected, "{path}");
    }
    // Its logs are those of its own pods, though others run the same program.
    cluster.kubectl(&format!("run stranger --image={COMMAND} --restart=Never --env=STRANGER=1")).ok();
    cluster.wait_ended("stranger");
    let said = cluster.kubectl("logs job/once").ok();
    assert!(said.contains("arguments:") && !said.contains("STRANGER"), "{said}");
    let uid = cluster.value("job/once", ".metadata.uid");
    let selected = format!("get pods -o name -l batch.kubernetes.io/controller-uid={uid},job-name=once");
    assert_eq!(cluster.kubectl(&selected).ok().lines().count(), 3);
    cluster.wait_event("once", "Job completed");
    // Nothing holds its pods back.
    cluster.kubectl("delete job once --timeout=30s").ok();
    eventually("the pods go with the Job", || {
        let pods = cluster.kubectl("get pods -o name -l job-name=once").ok();
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
}

fn an_indexed_job_runs_every_index(cluster: &Cluster) {
    cluster.apply(&job("parts", "completions: 4\n  parallelism: 2\n  completionMode: Indexed", ""));
    cluster.kubectl("wait --for=condition=complete job/parts --timeout=90s").ok();
    assert_eq!(cluster.value("job/parts", ".status.completedIndexes"), "0-3");
    for index in 0..4 {
        let label = format!("batch.kubernetes.io/job-completion-index={index}");
        let said = cluster.kubectl(&format!("logs -l job-name=parts,{label} --tail=-1")).ok();
        assert!(said.contains(&format!("JOB_COMPLETION_INDEX={index}")), "{said}");
        assert!(said.contains(&format!("HOSTNAME=parts-{index}")), "{said}");
    }
    let said = cluster.kubectl("patch job parts -p {\"spec\":{\"completionMode\":\"NonIndexed\"}}").refused();
    assert!(said.contains("field is immutable"), "{said}");
}

fn a_failing_job_gives_up(cluster: &Cluster) {
    cluster.apply(&job("hopeless", "backoffLimit: 0", "{name: EXIT_CODE, value: '1'}"));
    cluster.kubectl("wait --for=condition=failed job/hopeless --timeout=60s").ok();
    assert_eq!(cluster.value("job/hopeless", ".status.failed"), "1");
    cluster.wait_event("hopeless", "Job has reached the specified backoff limit");
    cluster.apply(&job(
        "slow",
        "activeDeadlineSeconds: 3\n  ttlSecondsAfterFinished: 2",
        "{name: SLEEP_SECONDS, value: '600'}",
    ));
    cluster.wait_event("slow", "Job was active longer than specified deadline");
    eventually("the Job goes after its time, with its pods", || {
        let left = cluster.kubectl("get job/slow -o name --ignore-not-found").ok()
            + &cluster.kubectl("get pods -l job-name=slow -o name").ok();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

fn a_cron_job_is_run_by_hand_and_by_the_clock(cluster: &Cluster) {
    cluster.kubectl(&format!("create cronjob tick --image={COMMAND} --schedule=@yearly")).ok();
    cluster.kubectl("create job by-hand --from=cronjob/tick").ok();
    cluster.kubectl("wait --for=condition=complete job/by-hand --timeout=60s").ok();
    assert_eq!(cluster.value("cronjob/tick", ".status.lastScheduleTime"), "");
    let every = "{\"spec\":{\"schedule\":\"@every 1s\",\"successfulJobsHistoryLimit\":1}}";
    let said =
        cluster.kubectl_args(&["patch", "cronjob", "tick", "-p", "{\"spec\":{\"schedule\":\"bad\"}}"], "").refused();
    assert!(said.contains("expected exactly 5 fields, found 1: [bad]"), "{said}");
    cluster.kubectl_args(&["patch", "cronjob", "tick", "-p", every], "").ok();
    cluster.wait_event("tick", "Created job tick-");
    eventually("a Job of the clock has succeeded", || {
        let at = cluster.value("cronjob/tick", ".status.lastSuccessfulTime");
        if at.is_empty() { Err(cluster.why("cronjob/tick")) } else { Ok(()) }
    });
    cluster.kubectl("delete cronjob tick --timeout=30s").ok();
}

fn a_suspended_job_waits(cluster: &Cluster) {
    cluster.apply(&job("later", "suspend: true", ""));
    cluster.kubectl("wait --for=condition=suspended job/later --timeout=30s").ok();
    assert!(cluster.kubectl("get pods -l job-name=later -o name").ok().is_empty());
    cluster.kubectl_args(&["patch", "job", "later", "-p", "{\"spec\":{\"suspend\":false}}"], "").ok();
    cluster.kubectl("wait --for=condition=complete job/later --timeout=60s").ok();
}

#[test]
fn a_stateful_set_keeps_names_and_order() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    cluster.build_image(&e2e::needs::example("hello-http.wasm"), "hello:v2", &[]).ok();
    cluster.apply(STATEFUL_SET);
    cluster.kubectl("rollout status statefulset/db --timeout=120s").ok();
    assert_eq!(names(&cluster), ["db-0", "db-1"]);
    let created = |pod: &str| cluster.value(&format!("pod/{pod}"), ".metadata.creationTimestamp");
    assert!(created("db-0") <= created("db-1"));
    assert_eq!(cluster.value("pod/db-1", ".metadata.labels.apps\\.kubernetes\\.io/pod-index"), "1");
    assert_eq!(cluster.value("pod/db-1", ".spec.subdomain"), "db");

    cluster.kubectl("scale statefulset db --replicas=3").ok();
    cluster.wait_value("statefulset/db", ".status.readyReplicas", "3");
    cluster.kubectl("set image statefulset/db hello=registry.local/hello:v2").ok();
    cluster.kubectl("rollout status statefulset/db --timeout=120s").ok();
    let images = "get pods -l app=db -o jsonpath={.items[*].spec.containers[0].image}";
    assert_eq!(cluster.kubectl(images).ok(), ["registry.local/hello:v2"; 3].join(" "));
    assert_eq!(
        cluster.value("statefulset/db", ".status.currentRevision"),
        cluster.value("statefulset/db", ".status.updateRevision")
    );
    assert!(cluster.kubectl("rollout history statefulset/db").ok().contains('2'));
    cluster.kubectl("rollout undo statefulset/db").ok();
    eventually("the old image is back everywhere", || {
        let found = cluster.kubectl(images).ok();
        if found == ["registry.local/hello:v1"; 3].join(" ") { Ok(()) } else { Err(found) }
    });
    cluster.kubectl("rollout status statefulset/db --timeout=120s").ok();
    cluster.kubectl("scale statefulset db --replicas=1").ok();
    eventually("the highest went", || {
        let names = names(&cluster);
        if names == ["db-0"] { Ok(()) } else { Err(format!("{names:?}")) }
    });
    let said = cluster.kubectl_args(&["patch", "sts", "db", "-p", "{\"spec\":{\"serviceName\":\"x\"}}"], "").refused();
    assert!(said.contains("updates to statefulset spec for fields other than"), "{said}");
}

fn names(cluster: &Cluster) -> Vec<String> {
    let said = cluster.kubectl("get pods -l app=db -o jsonpath={.items[*].metadata.name}").ok();
    said.split_whitespace().map(str::to_owned).collect()
}

const STATEFUL_SET: &str = "
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: hello, image: 'registry.local/hello:v1', ports: [{containerPort: 8080}]}]
";

#[test]
fn a_daemon_set_has_a_pod_on_each_node() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    cluster.build_image(&e2e::needs::example("hello-http.wasm"), "hello:v2", &[]).ok();
    cluster.apply(DAEMON_SET);
    cluster.kubectl("rollout status daemonset/log --timeout=90s").ok();
    assert_eq!(cluster.value("daemonset/log", ".status.numberAvailable"), "1");
    assert_eq!(cluster.kubectl("get pods -l app=log -o jsonpath={.items[*].spec.nodeName}").ok(), "node-1");
    cluster.kubectl("set image daemonset/log hello=registry.local/hello:v2").ok();
    cluster.kubectl("rollout status daemonset/log --timeout=90s").ok();
    let images = "get pods -l app=log -o jsonpath={.items[*].spec.containers[0].image}";
    assert_eq!(cluster.kubectl(images).ok(), "registry.local/hello:v2");
    let history = cluster.kubectl("rollout history daemonset/log").ok();
    assert!(history.contains('1') && history.contains('2'), "{history}");
    cluster.kubectl("rollout undo daemonset/log").ok();
    cluster.kubectl("rollout status daemonset/log --timeout=90s").ok();
    assert_eq!(cluster.kubectl(images).ok(), "registry.local/hello:v1");
    // A node that is not selected any more loses its pod.
    let select = "{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"disk\":\"ssd\"}}}}}";
    cluster.kubectl_args(&["patch", "daemonset", "log", "-p", select], "").ok();
    eventually("the pod is gone", || {
        let pods = cluster.kubectl("get pods -l app=log -o name").ok();
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
    cluster.kubectl("label node node-1 disk=ssd").ok();
    cluster.wait_value("daemonset/log", ".status.numberReady", "1");
}

const DAEMON_SET: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: hello, image: 'registry.local/hello:v1', ports: [{containerPort: 8080}]}]
";
