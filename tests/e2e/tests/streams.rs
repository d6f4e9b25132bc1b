//! What goes into a running pod and comes out of it: exec, cp, attach, port-forward, proxy, with the real kubectl,
//! over the newer protocols and the older ones.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use e2e::images::{BUSYBOX, COMMAND, HELLO};
use e2e::needs::{program, skip};
use e2e::{Background, Cluster, Said, eventually};

/// kubectl's switches for clients from before WebSockets.
const OLD: [(&str, &str); 2] =
    [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"), ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")];
const NEW: [(&str, &str); 2] =
    [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "true"), ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "true")];
/// As much as is piped through a container.
const MUCH: usize = 5_000_000;

type Environment = [(&'static str, &'static str); 2];

fn kubectl(cluster: &Cluster, environment: Environment, args: &[&str]) -> Command {
    let mut command = cluster.client("kubectl");
    command.envs(environment).args(args);
    command
}

fn run(cluster: &Cluster, environment: Environment, args: &[&str], stdin: &str) -> Said {
    Said::by(&mut kubectl(cluster, environment, args), stdin)
}

fn linux_pods() -> String {
    let serve = "mkdir -p /www; echo from inside > /www/index.html; \
                 /bin/busybox httpd -p 127.0.0.1:8081 -h /www; /bin/busybox httpd -p 8080 -h /www; \
                 echo up; while read line; do echo got $line; done; echo over; sleep 1000";
    let wait = "while :; do echo tick; sleep 1; done";
    let pod = |name: &str, script: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
             terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    image: '{BUSYBOX}'\n    \
             command: [/bin/busybox, sh, -c, '/bin/busybox --install -s /bin; {script}']\n    {more}\n"
        )
    };
    format!(
        "{}---\n{}",
        pod("linux", serve, "stdin: true\n    ports: [{containerPort: 8080}]"),
        pod("terminal", wait, "tty: true\n    stdin: true")
    )
}

fn wasm_pods() -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: wasm, labels: {{app: wasm}}}}\n\
         spec: {{containers: [{{name: main, image: '{HELLO}', ports: [{{containerPort: 8080}}]}}]}}\n"
    )
}

#[test]
fn people_reach_into_running_pods() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    cluster.apply(&wasm_pods());
    let linux = cluster.push_busybox();
    if linux {
        cluster.apply(&linux_pods());
        for pod in ["pod/linux", "pod/terminal"] {
            cluster.wait_value(pod, ".status.phase", "Running");
        }
        let links = || if cluster.kubectl("exec linux -- ls /bin/cat").success { Ok(()) } else { Err("no links yet") };
        eventually("the container has its commands", links);
        for environment in [NEW, OLD] {
            commands_in_containers(&cluster, environment);
            much_data_comes_back_unchanged(&cluster, environment);
            files_are_copied(&cluster, environment);
            terminals(&cluster, environment);
            attached_clients(&cluster, environment);
        }
    }
    cluster.wait_value("pod/wasm", ".status.phase", "Running");
    for environment in [NEW, OLD] {
        wasm_answers_as_it_can(&cluster, environment);
        let pods: &[&str] = if linux { &["wasm", "linux"] } else { &["wasm"] };
        pods.iter().for_each(|pod| forwarded_ports(&cluster, environment, pod));
    }
    if linux {
        a_pods_own_localhost(&cluster);
    }
    proxied_requests(&cluster);
    rights(&cluster);
}

fn commands_in_containers(cluster: &Cluster, environment: Environment) {
    let exec = |args: &[&str], stdin: &str| run(cluster, environment, &[&["exec", "linux"], args].concat(), stdin);
    let said = exec(&["--", "sh", "-c", "echo out; echo err >&2"], "");
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(0), "out\n", "err\n"));
    let said = exec(&["-c", "main", "--", "sh", "-c", "exit 42"], "");
    assert_eq!(said.code, Some(42), "{said:?}");
    assert!(said.stderr.contains("command terminated with exit code 42"), "{said:?}");
    assert_eq!(exec(&["-i", "--", "cat"], "through a pipe\n").ok(), "through a pipe\n");
    assert_eq!(exec(&["--", "echo", "a b", "c&d=e%20+f"], "").ok(), "a b c&d=e%20+f\n");
    let said = exec(&["--", "nonesuch"], "");
    assert_eq!(said.code, Some(127), "{said:?}");
    assert!(said.stderr.contains("not found in $PATH"), "{said:?}");
    let said = exec(&["-c", "none", "--", "true"], "");
    assert!(said.refused().contains("container none"), "an unknown container");
}

fn much_data_comes_back_unchanged(cluster: &Cluster, environment: Environment) {
    let data: Vec<u8> = (0..MUCH as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let mut child = kubectl(cluster, environment, &["exec", "-i", "linux", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let (mut stdin, sent) = (child.stdin.take().expect("a pipe"), data.clone());
    let writing = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().expect("kubectl ends");
    writing.join().expect("no panic").expect("everything is taken");
    assert!(output.status.success() && output.stdout == data, "{} bytes came back", output.stdout.len());
}

fn files_are_copied(cluster: &Cluster, environment: Environment) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    std::fs::write(&there, "carried both ways\n").expect("a new file");
    let (there, back) = (there.display().to_string(), back.display().to_string());
    run(cluster, environment, &["cp", &there, "linux:/tmp/carried"], "").ok();
    run(cluster, environment, &["cp", "linux:/tmp/carried", &back], "").ok();
    assert_eq!(std::fs::read_to_string(back).expect("the file came back"), "carried both ways\n");
}

/// kubectl wants a terminal of its own for `-t`: `script` of util-linux lends one.
fn terminals(cluster: &Cluster, environment: Environment) {
    if program("script").is_none() {
        let _ = skip::<()>("there is no script on the PATH");
        return;
    }
    let line = "stty cols 77 rows 33; kubectl exec -it linux -- sh -c 'tty; stty size; exit 6'; echo code $?";
    let mut command = cluster.client("script");
    command.envs(environment).args(["-qec", line, "/dev/null"]);
    let said = Said::by(&mut command, "").everything();
    assert!(said.contains("/dev/pts/") && said.contains("33 77") && said.contains("code 6"), "{said:?}");
}

fn attached_clients(cluster: &Cluster, environment: Environment) {
    let attached = Background::start(&mut kubectl(cluster, environment, &["attach", "linux"]));
    let said = eventually("the attached client sees what another one causes", || {
        let mut other = kubectl(cluster, environment, &["attach", "-i", "linux"]);
        let mut other =
            other.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kubectl");
        let mut stdin = other.stdin.take().expect("a pipe");
        // A client that is there only for a moment may come before its streams are connected.
        std::thread::sleep(std::time::Duration::from_millis(700));
        let _ = stdin.write_all(b"a word\n");
        std::thread::sleep(std::time::Duration::from_millis(300));
        let _ = other.kill();
        let _ = other.wait();
        let said = attached.said();
        if said.contains("got a word") { Ok(said) } else { Err(said) }
    });
    assert!(!said.contains("over"), "the container's input stays open: {said}");
    let attached = Background::start(&mut kubectl(cluster, environment, &["attach", "terminal"]));
    attached.wait_for("tick");
}

fn wasm_answers_as_it_can(cluster: &Cluster, environment: Environment) {
    let said = run(cluster, environment, &["exec", "wasm", "--", "sh"], "");
    assert_eq!(said.code, Some(127), "{said:?}");
    assert!(said.stderr.contains("wasm containers have no shell"), "{said:?}");
}

/// `kubectl port-forward` in the background, and the local port it chose.
fn forward(cluster: &Cluster, environment: Environment, pod: &str, port: u16) -> (Background, String) {
    let ports = format!(":{port}");
    let target = format!("pod/{pod}");
    let forwarder = Background::start(&mut kubectl(cluster, environment, &["port-forward", &target, &ports]));
    let said = forwarder.wait_for("Forwarding from 127.0.0.1:");
    let local = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port").to_owned();
    (forwarder, format!("127.0.0.1:{local}"))
}

fn forwarded_ports(cluster: &Cluster, environment: Environment, pod: &str) {
    let (_forwarder, address) = forward(cluster, environment, pod, 8080);
    let clients = (0..8).map(|_| {
        let address = address.clone();
        std::thread::spawn(move || {
            for _ in 0..3 {
                let answer = e2e::http::get(&address, "/").map_err(|error| error.to_string());
                assert_eq!(answer.map(|answer| answer.status), Ok(200));
            }
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().expect("every answer comes"));
    // A port nobody listens on: the connection ends, and the forwarder goes on.
    let (other, nowhere) = forward(cluster, environment, pod, 9);
    let mut stream = TcpStream::connect(nowhere).expect("kubectl listens");
    assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0);
    let said = other.wait_for("error forwarding port 9 to pod");
    assert!(said.contains("refused"), "{said}");
    assert!(e2e::http::get(&address, "/").is_ok());
}

fn a_pods_own_localhost(cluster: &Cluster) {
    let (_forwarder, address) = forward(cluster, NEW, "linux", 8081);
    assert!(e2e::http::get(&address, "/").expect("an answer").body.contains("from inside"));
}

fn proxied_requests(cluster: &Cluster) {
    cluster.kubectl("expose pod wasm --port=80 --target-port=8080").ok();
    let raw = |path: &str| cluster.kubectl(&format!("get --raw {path}"));
    let pods = "/api/v1/namespaces/default/pods";
    assert!(raw(&format!("{pods}/wasm:8080/proxy/")).ok().contains("Hello"));
    assert!(raw(&format!("{pods}/wasm/proxy/")).ok().contains("Hello"), "the first port");
    eventually("the Service has endpoints", || {
        let said = raw("/api/v1/namespaces/default/services/wasm:80/proxy/");
        if said.stdout.contains("Hello") { Ok(()) } else { Err(said.everything()) }
    });
    assert!(raw("/api/v1/nodes/node-1/proxy/healthz").ok().contains("ok"));
    assert!(raw(&format!("{pods}/wasm:9/proxy/")).refused().contains("error forwarding port 9"));
    let nobody = raw("/api/v1/namespaces/default/services/kubernetes:https/proxy/");
    assert!(nobody.refused().contains("no endpoints available"));
}

fn rights(cluster: &Cluster) {
    cluster.kubectl("create role looker --verb=get --resource=pods,pods/exec,pods/portforward").ok();
    cluster.kubectl("create rolebinding looker --role=looker --user=looker").ok();
    let said = eventually("the role is in effect", || {
        let said = cluster.kubectl("get pod wasm --as=looker");
        if said.success { Ok(cluster.kubectl("exec wasm --as=looker -- sh")) } else { Err(said.everything()) }
    });
    assert!(said.refused().contains("cannot create resource \"pods/exec\""));
}

#[test]
fn a_command_that_has_ended_is_not_reached() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: done}}\n\
         spec: {{restartPolicy: Never, containers: [{{name: main, image: '{COMMAND}'}}]}}\n"
    ));
    cluster.wait_ended("done");
    assert!(cluster.kubectl("exec done -- run").refused().contains("cannot exec into a container in a completed pod"));
}
