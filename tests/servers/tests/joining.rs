//! How a machine becomes a server, and every way in which it does not: one clear line, exit code 1.

use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use e2e::Said;
use e2e::needs::binary;
use servers::{Servers, Storage};

#[test]
fn only_who_holds_a_token_joins() {
    let Some(mut servers) = Servers::none(Storage::Folder) else { return };
    let founder = servers.add();
    servers.start_server(founder, &[]);
    let newcomer = servers.add();

    bad_tokens_are_refused(&servers, newcomer);
    bad_command_lines_are_refused(&servers, newcomer);
    the_right_token_makes_a_member(&mut servers, newcomer);
    a_directory_of_its_own_is_left_alone(&mut servers);
    for index in [founder, newcomer] {
        up_on_one_of_several_is_refused(&mut servers, index);
        servers.wait_well();
    }
}

fn token_file(servers: &Servers, name: &str, text: &str) -> String {
    let path: PathBuf = servers.servers[0].folder().join(name);
    std::fs::write(&path, text).expect("a new file");
    path.display().to_string()
}

fn token(servers: &Servers, ttl: &str) -> String {
    servers.knarr(0, &["token", "create", "--ttl", ttl]).ok().trim().to_owned()
}

fn bad_tokens_are_refused(servers: &Servers, newcomer: usize) {
    let url = servers.servers[0].url();
    let check = |name: &str, text: &str, says: &str| {
        let file = token_file(servers, name, text);
        let said = servers.servers[newcomer].refused(&["--no-node", "--join", &url, "--token-file", &file]);
        assert!(said.contains(says), "{name}: {says:?} not in {said}");
    };
    check("garbage", "let me in", "knarr token create");
    let good = token(servers, "1h");
    let parts: Vec<&str> = good.split('.').collect();
    let other = |index: usize, text: &str| {
        let mut parts = parts.clone();
        parts[index] = text;
        parts.join(".")
    };
    check("wrong-secret", &other(3, &"0".repeat(64)), "not known to this cluster, or was deleted");
    check("unknown-id", &other(2, "00000000"), "not known to this cluster, or was deleted");
    // The newcomer notices: it would join another cluster than that of the token.
    check("other-cluster", &other(1, &"0".repeat(64)), "certificate");
    servers.knarr(0, &["token", "delete", parts[2]]).ok();
    check("deleted", &good, "not known to this cluster, or was deleted");
    assert!(servers.knarr(0, &["token", "delete", parts[2]]).refused().contains("there is no token"));
    let short = token(servers, "1s");
    sleep(Duration::from_millis(1200));
    check("expired", &short, "expired at");
}

fn bad_command_lines_are_refused(servers: &Servers, newcomer: usize) {
    let (url, good) = (servers.servers[0].url(), token_file(servers, "good", &token(servers, "1h")));
    let check = |args: &[&str], says: &str| {
        let said = servers.servers[newcomer].refused(args);
        assert!(said.contains(says), "{args:?}: {says:?} not in {said}");
    };
    check(&["--no-node", "--join", &url], "--token-file");
    check(&["--no-node", "--join", "10.77.0.1:6443", "--token-file", &good], "--join takes the URL");
    check(&["--no-node", "--join", &url, "--token-file", "/nonexistent"], "/nonexistent");
    check(&["--no-node", "--join", "https://10.77.0.1:1", "--token-file", &good], "10.77.0.1:1");
    check(&["--no-node", "--join", &url, "--token-file", &good, "--replace", "77"], "77");
    // None of these has made it a member, or left a trace in the cluster.
    assert_eq!(servers.membership(0).expect("the founder answers").members.len(), 1);
}

fn the_right_token_makes_a_member(servers: &mut Servers, newcomer: usize) {
    let (url, good) = (servers.servers[0].url(), token_file(servers, "good", &token(servers, "1h")));
    servers.start_server(newcomer, &["--join", &url, "--token-file", &good]);
    servers.wait_well();
    assert_eq!(servers.membership(0).expect("the founder answers").members.len(), 2);
}

fn a_directory_of_its_own_is_left_alone(servers: &mut Servers) {
    let (url, good) = (servers.servers[0].url(), token_file(servers, "good", &token(servers, "1h")));
    let other = servers.add();
    servers.start_server(other, &[]);
    servers.servers[other].stop();
    let said = servers.servers[other].refused(&["--no-node", "--join", &url, "--token-file", &good]);
    assert!(said.contains("holds the state of a cluster of its own"), "{said}");
    // As it was, and still the only server of its cluster.
    servers.start_server(other, &[]);
    assert_eq!(servers.membership(other).expect("it answers").members.len(), 1);
    servers.servers[other].stop();
    servers.servers.truncate(other);
}

fn up_on_one_of_several_is_refused(servers: &mut Servers, index: usize) {
    servers.servers[index].stop();
    let server = &servers.servers[index];
    let mut command = Command::new(binary());
    command.arg("up").args(["--listen", "127.0.0.1:6443", "--node-listen", "127.0.0.1:10250"]);
    command.arg("--data-dir").arg(server.data_dir());
    let said = server.host.run(move || Said::by(&mut command, ""));
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("start it with `knarr server`"), "{}{}", said.stdout, said.stderr);
    servers.start_server(index, &[]);
}
