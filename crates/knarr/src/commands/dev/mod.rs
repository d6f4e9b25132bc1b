//! `knarr dev`: build, run, watch, again.
//!
//! Owns: the loop, and noticing that a file has changed. How a program is built is `build`'s, how it gets into the
//! cluster is `run`'s.

mod build;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use tokio::time::sleep;

use super::run::plan::{Shape, Wanted};
use super::run::{Program, apply, delete, logs, run_once, url, wait_until_it_runs, wanted};
use super::up::StopSignal;
use crate::access::Access;
use crate::cli::DevArgs;

/// How often the files are looked at. An editor saves in several steps: a change counts when nothing has changed since
/// the look before.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A tree of more is no project that a build made of a moment's work reads.
const FILES_MAX: usize = 50_000;
/// Made by builds, or of no interest to them.
const NOT_WATCHED: [&str; 5] = ["target", "node_modules", build::OUTPUT_DIR, "__pycache__", "venv"];
/// A build may write it where it was not there.
const NOT_WATCHED_FILE: &str = "package-lock.json";

pub async fn run(args: DevArgs) -> Result<()> {
    let access = Access::load(&args.access).await?;
    let client = access.client()?;
    let dir = args.dir.canonicalize().with_context(|| format!("there is no directory {}", args.dir.display()))?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&dir)?,
    };
    let mut stop = StopSignal::listen()?;
    let mut made = None;
    let project = Project::new(dir, name.clone(), args.build.as_ref().and(args.wasm.as_deref()));
    let worked = tokio::select! {
        worked = work(&access, &args, &project, &mut made) => worked,
        () = stop.wait() => Ok(()),
        () = logs::follow_all(&client, &args.options.namespace, &name) => Ok(()),
    };
    if let (Some((wanted, shape)), false) = (made, args.keep) {
        delete(&client, &wanted, shape).await?;
        println!("{name} is deleted");
    }
    worked
}

struct Project {
    dir: PathBuf,
    name: String,
    /// What the build writes: a change of it is no reason to build.
    output: Option<PathBuf>,
}

impl Project {
    fn new(dir: PathBuf, name: String, wasm: Option<&Path>) -> Self {
        let output = wasm.map(|wasm| {
            let file = dir.join(wasm);
            // There may be more beside it, unless it is among the sources.
            file.parent().filter(|parent| *parent != dir).map_or(file.clone(), Path::to_owned)
        });
        Self { dir, name, output }
    }
}

/// A DNS label of the directory's name.
fn name_of(dir: &Path) -> Result<String> {
    let name = dir.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    if name.is_empty() || name.len() > 63 {
        bail!("{} does not make a name: choose one with --name", dir.display());
    }
    Ok(name.to_owned())
}

/// Ends only with an error that no change of a file can mend.
async fn work(access: &Access, args: &DevArgs, project: &Project, made: &mut Option<(Wanted, Shape)>) -> Result<()> {
    loop {
        let before = project.look()?;
        match round(access, args, project, &before, made).await {
            Ok(()) => {}
            // The next change may mend it.
            Err(error) => eprintln!("knarr: {error:#}"),
        }
        project.changed(before).await?;
    }
}

async fn round(
    access: &Access,
    args: &DevArgs,
    project: &Project,
    before: &Look,
    made: &mut Option<(Wanted, Shape)>,
) -> Result<()> {
    let began = Instant::now();
    let wasm = build::build(args, &project.dir).await?;
    let built = began.elapsed();
    let program = Program::of_file(access, &project.name, &wasm, &args.options).await?;
    let client = access.client()?;
    let wanted = wanted(&project.name, &program, &args.options);
    *made = Some((wanted.clone(), program.shape));
    if program.shape == Shape::Once {
        // The next change need not wait for its end.
        return tokio::select! {
            ended = run_once(&client, &wanted) => ended.map(|()| println!("{} has ended", project.name)),
            changed = project.changed(before.clone()) => changed,
        };
    }
    apply(&client, &wanted, program.shape).await?;
    wait_until_it_runs(&client, &wanted).await?;
    let url = url(&client, &wanted).await?.unwrap_or_else(|| "no port".to_owned());
    let (build, start) = (built.as_secs_f64(), (began.elapsed() - built).as_secs_f64());
    println!("{} runs: {url} (build {build:.2} s, push and start {start:.2} s)", project.name);
    Ok(())
}

/// When each file was last written.
type Look = BTreeMap<PathBuf, Option<SystemTime>>;

impl Project {
    fn look(&self) -> Result<Look> {
        let mut look = Look::new();
        let mut left = vec![self.dir.clone()];
        while let Some(dir) = left.pop() {
            // A directory may go while it is looked at.
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let (name, path) = (entry.file_name(), entry.path());
                let Ok(kind) = entry.file_type() else { continue };
                if name.to_string_lossy().starts_with('.') || self.output.as_ref() == Some(&path) {
                    continue;
                }
                if kind.is_dir() && !NOT_WATCHED.iter().any(|skipped| name == *skipped) {
                    left.push(path);
                } else if kind.is_file() && name != NOT_WATCHED_FILE {
                    look.insert(path, entry.metadata().ok().and_then(|metadata| metadata.modified().ok()));
                }
                if look.len() > FILES_MAX {
                    bail!("more than {FILES_MAX} files are below the directory: name one with less in it");
                }
            }
        }
        Ok(look)
    }

    /// Returns when a file is not as it was in `before`, and nothing has changed for a moment.
    async fn changed(&self, before: Look) -> Result<()> {
        let mut last = before.clone();
        loop {
            let now = self.look()?;
            if now != before && now == last {
                return Ok(());
            }
            last = now;
            sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_make_names() {
        let check = |dir: &str, expect: Option<&str>| {
            assert_eq!(name_of(Path::new(dir)).ok().as_deref(), expect, "{dir}");
        };
        check("/home/a/Hello_HTTP", Some("hello-http"));
        check("/a/.hidden.", Some("hidden"));
        check("/", None);
        check("/___", None);
    }

    #[tokio::test]
    async fn only_sources_are_watched() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("src/main.rs", "a");
        let project = Project::new(dir.path().to_owned(), "app".to_owned(), Some(Path::new("out/app.wasm")));
        let before = project.look().unwrap();
        assert_eq!(before.len(), 1);
        for made in ["target/wasm32-wasip2/app.wasm", ".git/index", "out/app.wasm", "out/app.js", "package-lock.json"] {
            write(made, "a");
        }
        assert_eq!(project.look().unwrap(), before);
        write("src/lib.rs", "a");
        // Would wait for ever otherwise.
        project.changed(before).await.unwrap();
    }
}
