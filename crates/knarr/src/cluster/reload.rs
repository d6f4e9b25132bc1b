//! Reads configuration files again when they change, without a restart.
//!
//! Owns: looking at the files. A file that is wrong, or gone, changes nothing: what was read before stays in use, and the
//! log says why. May not know: what the files say.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use apiserver::{AdmissionConfig, ApiServer, Configuration};
use tokio_util::sync::CancellationToken;

use super::config::{ClusterConfig, beside};

/// How often files are looked at. They are small, and read whole: a file in a mounted ConfigMap changes by its link.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The files as they are now; to be called before they are read for the first time.
pub fn files(config: &ClusterConfig) -> Vec<File> {
    let files =
        [(&config.authentication, Configuration::Authentication), (&config.admission, Configuration::Admission)];
    let file = |path: &PathBuf, which| File { path: path.clone(), which, seen: contents(path, which) };
    files.into_iter().filter_map(|(path, which)| path.as_ref().map(|path| file(path, which))).collect()
}

/// Looks until `shutdown`.
pub async fn follow(mut files: Vec<File>, config: ClusterConfig, api_server: ApiServer, shutdown: CancellationToken) {
    if files.is_empty() {
        return;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        for file in &mut files {
            let now = contents(&file.path, file.which);
            if now == file.seen {
                continue;
            }
            file.seen = now;
            let (path, which) = (file.path.display(), file.which);
            match reload(&config, &api_server, which) {
                Ok(()) => tracing::info!(%path, ?which, "a configuration file changed and is in use"),
                Err(error) => {
                    let why = format!("{error:#}");
                    tracing::error!(%path, ?which, why, "a configuration file changed and cannot be used; the old one stays");
                }
            }
        }
    }
}

/// One file, and what was in it and in those that it names when it was looked at last.
pub struct File {
    path: PathBuf,
    which: Configuration,
    seen: Vec<Content>,
}

/// None: it cannot be read.
type Content = Option<Vec<u8>>;

fn contents(path: &Path, which: Configuration) -> Vec<Content> {
    let own = std::fs::read(path).ok();
    let text = own.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let named = match which {
        Configuration::Admission => AdmissionConfig::paths(&text),
        Configuration::Authentication => Vec::new(),
    };
    let others: Vec<Content> = named.iter().map(|named| std::fs::read(beside(path, named)).ok()).collect();
    std::iter::once(own).chain(others).collect()
}

fn reload(config: &ClusterConfig, api_server: &ApiServer, which: Configuration) -> Result<()> {
    let outcome = match which {
        Configuration::Authentication => match config.read_authentication() {
            // It counts its own failures.
            Ok(new) => return api_server.reload_authentication(&new).map_err(Into::into),
            Err(error) => Err(error),
        },
        Configuration::Admission => config.read_admission().map(|new| api_server.reload_admission(new)),
    };
    if outcome.is_err() {
        api_server.note_bad_configuration(which);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_with_those_that_it_names() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (file, other) = (dir.path().join("admission.yaml"), dir.path().join("pod-security.yaml"));
        let write = |path: &Path, text: &str| std::fs::write(path, text).expect("a file");
        let look = |which| contents(&file, which);
        assert_eq!(look(Configuration::Admission), [None], "it is not there yet");
        write(
            &file,
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n  \
             path: pod-security.yaml\n",
        );
        let before = look(Configuration::Admission);
        assert_eq!(before.len(), 2);
        write(&other, "defaults: {enforce: baseline}");
        assert_ne!(look(Configuration::Admission), before);
        let authentication = look(Configuration::Authentication);
        write(&other, "defaults: {enforce: restricted}");
        assert_eq!(look(Configuration::Authentication), authentication, "that one names no files");
    }
}
