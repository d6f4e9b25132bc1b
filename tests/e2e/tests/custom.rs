//! Kinds that users define, with the real kubectl.

use e2e::{Cluster, eventually};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            x-kubernetes-validations:
            - {rule: "self.replicas <= 10", message: "no more than ten"}
            properties:
              cronSpec: {type: string, description: "When to run."}
              image: {type: string}
              replicas: {type: integer, default: 1}
          status:
            type: object
            properties:
              replicas: {type: integer}
"#;

fn tab(name: &str, spec: &str) -> String {
    format!("apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

#[test]
fn kinds_are_defined_used_and_removed() {
    let Some(cluster) = Cluster::up() else { return };
    defined(&cluster);
    used(&cluster);
    owned_and_in_namespaces(&cluster);
    removed(&cluster);
}

fn defined(cluster: &Cluster) {
    assert!(cluster.apply(DEFINITION).contains("created"));
    cluster.kubectl("wait --for=condition=established --timeout=10s crd/crontabs.stable.example.com").ok();
    // Definition and object from one file, the second time: kubectl knows the kind now.
    let both = format!("{DEFINITION}---\n{}", tab("first", "cronSpec: '* * * * *', image: img"));
    let said = cluster.apply(&both);
    assert!(said.contains("crontab.stable.example.com/first created"), "{said}");
    assert!(cluster.kubectl("get crd").ok().contains("crontabs.stable.example.com"));
    assert!(cluster.kubectl("api-resources --api-group=stable.example.com").ok().contains("CronTab"));
    let explained = cluster.kubectl("explain crontab.spec").ok();
    assert!(explained.contains("cronSpec") && explained.contains("When to run."), "{explained}");
}

fn used(cluster: &Cluster) {
    let shown = cluster.kubectl("get ct").ok();
    assert!(shown.contains("REPLICAS") && shown.contains("* * * * *"), "{shown}");
    assert_eq!(cluster.value("crontab/first", ".spec.replicas"), "1");
    let refused = cluster.kubectl_with("apply -f -", &tab("bad", "cronSpec: 3")).refused();
    assert!(refused.contains("spec.cronSpec in body must be of type string: \"integer\""), "{refused}");
    let refused = cluster.kubectl_with("apply -f -", &tab("bad", "cronSpec: x, replicas: 11")).refused();
    assert!(refused.contains("no more than ten"), "{refused}");
    let refused = cluster.kubectl_with("apply -f -", &tab("bad", "cronSpec: x, bogus: 1")).refused();
    assert!(refused.contains("unknown field \"spec.bogus\""), "{refused}");
    cluster.kubectl_args(&["patch", "crontab", "first", "--type=merge", "-p", r#"{"spec":{"image":"new"}}"#], "").ok();
    assert_eq!(cluster.value("crontab/first", ".spec.image"), "new");
    cluster.kubectl("scale crontab/first --replicas=4").ok();
    assert_eq!(cluster.value("crontab/first", ".spec.replicas"), "4");
    let said = cluster.kubectl_with("apply --server-side -f -", &tab("second", "cronSpec: '0'")).ok();
    assert!(said.contains("serverside-applied"), "{said}");
    assert!(cluster.kubectl("describe crontab second").ok().contains("Cron Spec"));
    cluster.kubectl("label crontab second season=winter").ok();
    assert!(
        cluster.kubectl("get crontabs -l season=winter -o name").ok().contains("crontab.stable.example.com/second")
    );
    cluster.kubectl("delete crontab second").ok();
}

fn owned_and_in_namespaces(cluster: &Cluster) {
    let uid = cluster.value("crontab/first", ".metadata.uid");
    let owned = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: owned\n  ownerReferences:\n  - {{apiVersion: \
         stable.example.com/v1, kind: CronTab, name: first, uid: {uid}}}\n"
    );
    cluster.apply(&owned);
    cluster.kubectl("delete crontab first").ok();
    eventually("what the object owned goes with it", || {
        let said = cluster.kubectl("get configmap owned").everything();
        if said.contains("NotFound") { Ok(()) } else { Err(said) }
    });
    cluster.kubectl("create namespace tabs").ok();
    cluster.kubectl_with("apply -n tabs -f -", &tab("third", "cronSpec: '1'")).ok();
    cluster.kubectl("delete namespace tabs --timeout=60s").ok();
    assert!(!cluster.kubectl("get crontabs -A").everything().contains("third"));
}

fn removed(cluster: &Cluster) {
    cluster.apply(&tab("last", "cronSpec: '2'"));
    cluster.kubectl("delete crd crontabs.stable.example.com --timeout=30s").ok();
    let refused = cluster.kubectl("get crontabs").refused();
    assert!(refused.contains("the server doesn't have a resource type") || refused.contains("NotFound"), "{refused}");
    // Nothing of it is left when the kind comes back.
    cluster.apply(DEFINITION);
    cluster.kubectl("wait --for=condition=established --timeout=10s crd/crontabs.stable.example.com").ok();
    assert!(cluster.kubectl("get crontabs").everything().contains("No resources"));
}
