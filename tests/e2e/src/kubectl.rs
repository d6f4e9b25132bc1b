//! The real kubectl, in the foreground and in the background.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::eventually::within;

/// What a program said and whether it succeeded.
#[derive(Debug, Clone)]
pub struct Said {
    pub line: String,
    pub success: bool,
    /// None when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Runs a command to its end.
    pub fn by(command: &mut Command, stdin: &str) -> Self {
        let line = line_of(command);
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
        let mut input = child.stdin.take().expect("stdin is a pipe");
        // A program that does not read its input closes it; that is its right.
        let _ = input.write_all(stdin.as_bytes());
        drop(input);
        let output = child.wait_with_output().expect("a started program can be waited for");
        println!("{:>6} ms {line}", began.elapsed().as_millis());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (success, code) = (output.status.success(), output.status.code());
        Self { line, success, code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Standard output of a program that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success, "{} failed: {}{}", self.line, self.stderr, self.stdout);
        self.stdout
    }

    /// Both outputs of a program that failed.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(!self.success, "{} should have failed and said: {}", self.line, self.stdout);
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Both outputs, whether it succeeded or not.
    pub fn everything(self) -> String {
        self.stdout + &self.stderr
    }

    /// Standard output of a program that succeeded, as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let line = self.line.clone();
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line} answered no JSON: {error}: {text}"))
    }
}

/// A program whose output is read while it runs; it ends with this value.
pub struct Background {
    line: String,
    child: Child,
    output: PathBuf,
    _folder: tempfile::TempDir,
}

impl Background {
    /// Starts it; both outputs go to one file.
    pub fn start(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = folder.path().join("output");
        let file = File::create(&output).expect("a new file");
        let line = line_of(command);
        let stderr = file.try_clone().expect("a file can be opened twice");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
        Self { line, child, output, _folder: folder }
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        read(&self.output)
    }

    /// Waits until it said something.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_within(Duration::from_secs(20), text)
    }

    #[track_caller]
    pub fn wait_within(&self, limit: Duration, text: &str) -> String {
        within(limit, &format!("{} says {text:?}", self.line), || {
            let said = self.said();
            if said.contains(text) { Ok(said) } else { Err(format!("it said {said:?}")) }
        })
    }
}

impl Background {
    /// Ctrl-C, and the end.
    pub fn interrupt(&mut self) -> ExitStatus {
        // The shell has it built in.
        let sent = Command::new("/bin/sh").args(["-c", &format!("kill -INT {}", self.child.id())]).status();
        assert!(sent.expect("there is a shell").success(), "{} can be interrupted", self.line);
        self.child.wait().expect("a started program can be waited for")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Program and arguments, for people.
fn line_of(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    format!("{program} {}", args.join(" "))
}

/// A log file's text.
pub fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
