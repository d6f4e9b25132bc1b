//! `api`: the API server's own speed over TLS with durable writes: creates and GETs, lists of 10,000 pods, a change
//! seen by 100 watchers, and memory.
//!
//! Owns: the order (the list wants exactly its pods, so creates come after it) and the rows. The load is made by this
//! process; the server is another.

mod list;
mod load;
mod watchers;

use anyhow::Result;

pub use load::{COLUMNS, Endpoint, Load, Work, figures, prepare_reads};

use super::processes;
use super::report::Section;
use super::session::Session;

const CLIENTS: [usize; 3] = [1, 16, 64];
/// What a ConfigMap holds.
const VALUE_BYTES: usize = 1024;
const MIB: f64 = 1024.0 * 1024.0;

pub async fn measure(session: &Session<'_>) -> Result<Section> {
    let seconds = session.settings.load.as_secs();
    let title = format!("requests over TLS, ConfigMaps of {VALUE_BYTES} bytes, {seconds} s each");
    let mut section = Section::new("api", title, &COLUMNS);
    let endpoint = Endpoint::new(&session.access)?;
    note_memory(&mut section, "before");
    list::measure(session, &endpoint, &mut section).await?;
    note_memory(&mut section, &format!("with {} pods", list::PODS));
    watchers::measure(session, &endpoint, &mut section).await?;
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
            section.row(format!("{}, {clients} clients", work.name()), figures(&load.run().await?));
        }
    }
    Ok(section)
}

fn note_memory(section: &mut Section, when: &str) {
    let pss = processes::usage_of(processes::of_knarr().into_iter().map(|process| process.pid)).pss_bytes;
    section.note(format!("memory {when}: {:.0} MiB, all of Knarr's processes", pss as f64 / MIB));
}
