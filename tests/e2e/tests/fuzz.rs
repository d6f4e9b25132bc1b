//! What the published OpenAPI documents allow, tried by a program that makes requests up: whatever comes, the server
//! refuses or does it, and goes on. `clients/python/fuzz.py` has the requests; the same ones in each run.

use std::path::Path;

use e2e::needs::program;
use e2e::{Cluster, Said};

#[test]
fn no_request_that_the_schemas_allow_makes_the_server_fail() {
    let Some(python) = program("knarr-test-python") else {
        println!("skipped: there is no knarr-test-python on the PATH; `.ci/clients` builds it");
        return;
    };
    let mut probe = std::process::Command::new(&python);
    if !Said::by(probe.args(["-c", "import schemathesis"]), "").success {
        println!("skipped: this Python has no schemathesis; `.ci/clients` installs it");
        return;
    }
    let Some(cluster) = Cluster::up() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/fuzz.py");
    let said = Said::by(cluster.client(python).arg(script), "").ok();
    println!("{said}");
    assert!(said.contains("the server failed at nothing"), "{said}");
    assert!(!cluster.log().contains("a request handler panicked"), "a request handler panicked");
    // It still works.
    cluster.kubectl("create configmap after --from-literal=a=b").ok();
    cluster.wait_value("node/node-1", ".status.conditions[?(@.type=='Ready')].status", "True");
}
