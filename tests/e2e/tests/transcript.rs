//! A first week with kubectl, command by command: what it says is what people know from Kubernetes.
//!
//! `transcripts/kubectl.txt` holds commands and outputs. `KNARR_BLESS=1` writes it anew from what is said now; read
//! the difference before you keep it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::kubectl::Said;
use e2e::transcript::{self, Step};
use e2e::{Cluster, try_within};

/// How long controllers may take to write down what a command shows.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn kubectl_says_what_it_says_on_kubernetes() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    if !cluster.push_busybox() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let path = folder.join("kubectl.txt");
    let expected = transcript::read(&path);
    let said: Vec<Step> = expected.iter().map(|step| answered(&cluster, &folder.join("files"), step)).collect();
    if std::env::var_os("KNARR_BLESS").is_some() {
        transcript::write(&path, &said);
        return;
    }
    let differences = transcript::differences(&expected, &said);
    assert!(differences.is_empty(), "kubectl says something else than {}:\n{differences}", path.display());
}

/// The step with what is said now. What a controller has still to write down is waited for: a command that only looks
/// is repeated for a while when it does not say what is expected.
fn answered(cluster: &Cluster, files: &PathBuf, step: &Step) -> Step {
    let looks = ["get", "describe", "logs"].iter().any(|verb| step.command.starts_with(verb));
    let expects = looks && !step.unshown && std::env::var_os("KNARR_BLESS").is_none();
    let once = || {
        let mut command: Command = cluster.client("kubectl");
        let said = Said::by(command.current_dir(files).args(words(&step.command)), "");
        let is_there = step.until.as_ref().is_none_or(|wanted| said.stdout.contains(wanted));
        let output = output(&said, step.unshown);
        let is_as_expected = is_there && (!expects || output == step.output);
        if is_as_expected { Ok(output) } else { Err(output) }
    };
    let patience = if step.until.is_some() { e2e::PATIENCE } else { SETTLED_WITHIN };
    let waits = step.until.is_some() || expects;
    let output = if waits { try_within(patience, once) } else { once() };
    Step { output: output.unwrap_or_else(|last| last), ..step.clone() }
}

fn output(said: &Said, unshown: bool) -> String {
    let exit = if said.success { String::new() } else { format!("exit {}\n", said.code.unwrap_or(-1)) };
    let both = format!("{}{}", said.stdout, said.stderr);
    let shown = if unshown { String::new() } else { transcript::normalised(&both) + "\n" };
    (shown + &exit).trim().to_owned()
}

/// Words between spaces; single quotes hold words together.
fn words(line: &str) -> Vec<String> {
    let quoted = line.split('\'').enumerate();
    quoted.fold(Vec::new(), |mut words, (at, part)| {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
        words
    })
}

#[test]
fn words_may_be_quoted() {
    assert_eq!(words("patch x -p '{\"a\": 1}' -o name"), ["patch", "x", "-p", "{\"a\": 1}", "-o", "name"]);
    assert_eq!(words("get pods -n shop"), ["get", "pods", "-n", "shop"]);
}
