//! Nothing of the state lies readable on the disk, and the key it is sealed with can be changed.

use std::fs;
use std::path::Path;

use e2e::{Cluster, Options};

/// Long enough to be nowhere by chance.
const WORD: &str = "a-word-that-is-nowhere-else-4711";

#[test]
fn the_state_on_the_disk_is_sealed_and_its_key_changes() {
    let Some(mut cluster) = Cluster::up() else { return };
    cluster.kubectl(&format!("create configmap note --from-literal=word={WORD}")).ok();
    let store = cluster.data_dir().join("store");
    assert!(!is_in(&store, WORD.as_bytes()) && !is_in(&store, b"kube-system"), "readable on the disk");

    let data_dir = cluster.data_dir().display().to_string();
    let key = |cluster: &Cluster, command: &str| cluster.knarr(&["key", command, "--data-dir", &data_dir]);
    assert!(key(&cluster, "rotate").ok().contains("key 2"));
    assert!(key(&cluster, "ls").ok().contains("1               yes"), "the old key is needed until the next start");
    assert!(cluster.stop().success(), "{}", cluster.log());
    cluster.start_again(Options::default());
    e2e::eventually("nothing needs the old key", || {
        let said = key(&cluster, "ls").everything();
        if said.contains("1               no") { Ok(()) } else { Err(said) }
    });
    assert!(key(&cluster, "prune").ok().contains("removed key 1"));
    assert!(cluster.stop().success(), "{}", cluster.log());
    cluster.start_again(Options::default());
    assert_eq!(cluster.value("configmap/note", ".data.word"), WORD);
    assert!(!is_in(&store, WORD.as_bytes()), "readable on the disk");

    // Without its keys a disk is of no use, and the server says which key it lacks.
    assert!(cluster.stop().success(), "{}", cluster.log());
    let keys = cluster.data_dir().join("pki/store.keys");
    let kept = fs::read(&keys).expect("the keys");
    fs::write(&keys, format!("2 {}\n", "ab".repeat(32))).expect("a file that is there");
    let said = e2e::Said::by(&mut cluster.command(Options::default()), "").refused();
    assert!(said.contains("key"), "{said}");
    fs::write(&keys, kept).expect("a file that is there");
    cluster.start_again(Options::default());
    assert_eq!(cluster.value("configmap/note", ".data.word"), WORD);
}

/// Whether any file below a folder holds the bytes.
fn is_in(folder: &Path, bytes: &[u8]) -> bool {
    let entries = fs::read_dir(folder).expect("a folder of the cluster").map(|entry| entry.expect("an entry").path());
    entries.into_iter().any(|path| {
        if path.is_dir() {
            return is_in(&path, bytes);
        }
        fs::read(&path).is_ok_and(|content| content.windows(bytes.len()).any(|window| window == bytes))
    })
}
