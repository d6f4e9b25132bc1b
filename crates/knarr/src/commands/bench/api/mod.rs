//! `api`: an API server's own speed over TLS with durable writes: creates and GETs, lists of 10,000 pods, a change
//! seen by 100 watchers, and memory. The same of a kube-apiserver, where there is one.
//!
//! Owns: the order (the list wants exactly its pods, so creates come after it) and the rows. The load is made by this
//! process; the servers are others.

mod list;
mod load;
mod watchers;

use std::path::PathBuf;

use anyhow::Result;

pub use load::{COLUMNS, Endpoint, Load, Work, figures, prepare_reads};

use super::Settings;
use super::kube_apiserver::KubeApiserver;
use super::processes;
use super::report::{Row, Section};
use super::session::Session;

const CLIENTS: [usize; 3] = [1, 16, 64];
/// What a ConfigMap holds.
const VALUE_BYTES: usize = 1024;
const MIB: f64 = 1024.0 * 1024.0;

const INSTALL: &str =
    "no `kube-apiserver` and `etcd` on the PATH to compare with; name them with --kube-apiserver and --etcd";

/// Whose API is measured.
struct Subject<'a> {
    name: &'static str,
    /// Whose memory counts.
    pids: &'a (dyn Fn() -> Vec<u32> + Sync),
}

const KNARR: &str = "knarr";
const PEER: &str = "kube-apiserver";

pub async fn measure(session: &Session<'_>) -> Result<Section> {
    let seconds = session.settings.load.as_secs();
    let title = format!("requests over TLS, ConfigMaps of {VALUE_BYTES} bytes, {seconds} s each");
    let mut section = Section::new("api", title, &COLUMNS);
    let pids = || processes::of_knarr().into_iter().map(|process| process.pid).collect();
    rows(session, &Subject { name: KNARR, pids: &pids }, &mut section).await?;
    let settings = session.settings;
    let (Some(program), Some(etcd)) =
        (super::program(settings.kube_apiserver.as_ref(), PEER), super::program(settings.etcd.as_ref(), "etcd"))
    else {
        section.note(INSTALL);
        return Ok(section);
    };
    if let Err(error) = measure_peer((&program, &etcd), settings, &mut section).await {
        // What was measured of ours is still worth something.
        section.error = Some(format!("a kube-apiserver to compare with: {error:#}"));
    }
    compare(&mut section);
    Ok(section)
}

async fn measure_peer((program, etcd): (&PathBuf, &PathBuf), settings: &Settings, section: &mut Section) -> Result<()> {
    let peer = KubeApiserver::start(program, etcd, settings).await?;
    let measured = peer_rows(&peer, settings, section).await;
    peer.stop().await?;
    measured
}

async fn peer_rows(peer: &KubeApiserver, settings: &Settings, section: &mut Section) -> Result<()> {
    let session = Session::open(settings, &peer.kubeconfig).await?;
    KubeApiserver::prepare(&session).await?;
    rows(&session, &Subject { name: PEER, pids: &|| peer.pids() }, section).await
}

async fn rows(session: &Session<'_>, subject: &Subject<'_>, section: &mut Section) -> Result<()> {
    let endpoint = Endpoint::new(&session.access)?;
    let name = subject.name;
    let memory = |section: &mut Section, when: &str| {
        let pss = processes::usage_of((subject.pids)()).pss_bytes;
        section.note(format!("{name}: memory {when} {:.0} MiB, all its processes", pss as f64 / MIB));
    };
    memory(section, "before");
    list::measure(session, &endpoint, name, section).await?;
    memory(section, &format!("with {} pods", list::PODS));
    watchers::measure(session, &endpoint, name, section).await?;
    prepare_reads(session.client.clone(), &session.namespace, VALUE_BYTES).await?;
    for work in [Work::CREATE, Work::CREATE_POD, Work::GET, Work::GET_POD] {
        for clients in CLIENTS {
            let load = Load {
                endpoint: &endpoint,
                namespace: &session.namespace,
                work,
                clients,
                value_bytes: VALUE_BYTES,
                length: session.settings.load,
            };
            section.row(format!("{name}, {}, {clients} clients", work.name()), figures(&load.run().await?));
        }
    }
    Ok(())
}

/// Says how often ours is theirs, row by row.
fn compare(section: &mut Section) {
    let per_s = |row: &Row| row.figures.first().copied().flatten();
    let theirs = |label: &str| section.rows.iter().find(|row| row.label == format!("{}, {label}", PEER));
    let ratio = |row: &Row| {
        let label = row.label.strip_prefix(KNARR)?.strip_prefix(", ")?;
        let ratio = per_s(row)? / per_s(theirs(label)?)?;
        Some(format!("{label}: {ratio:.1} times {}", PEER))
    };
    let ratios: Vec<String> = section.rows.iter().filter_map(ratio).collect();
    ratios.into_iter().for_each(|ratio| section.note(ratio));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_by_what_was_done() {
        let mut section = Section::new("api", "requests", &COLUMNS);
        let mut row = |label: &str, per_s: f64| section.row(label, [Some(per_s), None, None, Some(0.0)]);
        row("knarr, get, 1 clients", 900.0);
        row("knarr, get, 16 clients", 100.0);
        row("kube-apiserver, get, 16 clients", 40.0);
        compare(&mut section);
        assert_eq!(section.notes, ["get, 16 clients: 2.5 times kube-apiserver"]);
    }
}
