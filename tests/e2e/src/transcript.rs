//! Transcripts: what commands say, kept as text beside the tests and compared with what they say now.
//!
//! Owns: the file's form, and what of an output is the same in every run. Pure but for the two functions at the end.
//! May not know: which program is asked.
//!
//! A line `$ WORDS` is a command; the lines below it, up to the next, are its output, with `exit N` as the last when
//! it failed. Before it may stand `@until TEXT` (it is repeated until its output holds the text) and `@unshown` (its
//! output differs in every run: only whether it succeeded is kept). `#` begins a comment.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

/// One command and what it is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    pub comments: Vec<String>,
    pub until: Option<String>,
    pub unshown: bool,
    pub command: String,
    pub output: String,
}

/// Reads a transcript.
pub fn parse(text: &str) -> Vec<Step> {
    let (mut steps, mut next) = (Vec::<Step>::new(), Step::default());
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            command.clone_into(&mut next.command);
            steps.push(std::mem::take(&mut next));
        } else if let Some(wanted) = line.strip_prefix("@until ") {
            next.until = Some(wanted.to_owned());
        } else if line == "@unshown" {
            next.unshown = true;
        } else if line.starts_with('#') {
            next.comments.push(line.to_owned());
        } else if let Some(step) = steps.last_mut() {
            step.output.push_str(line);
            step.output.push('\n');
        }
    }
    for step in &mut steps {
        step.output = step.output.trim_end().to_owned();
    }
    steps
}

/// Writes it again.
pub fn to_text(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        for comment in &step.comments {
            let _ = writeln!(text, "{comment}");
        }
        if let Some(wanted) = &step.until {
            let _ = writeln!(text, "@until {wanted}");
        }
        if step.unshown {
            text.push_str("@unshown\n");
        }
        let _ = writeln!(text, "$ {}", step.command);
        if !step.output.is_empty() {
            let _ = writeln!(text, "{}", step.output);
        }
        text.push('\n');
    }
    text
}

/// How lines begin that only some versions of kubectl print.
const OF_SOME_CLIENTS: [&str; 3] = ["WARNING: version difference", "Kustomize Version", "Warning: resource "];

/// What differs from run to run, and what stands for it. In this order.
static VARIABLE: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let rules = [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
        (r"sha256:[0-9a-f]{64}", "sha256:DIGEST"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| [+-]\d{4})", "TIME"),
        (r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "TIME"),
        (r"/tmp/(LIVE|MERGED)-\d+", "/tmp/$1"),
        (r"\bv\d+\.\d+\.\d+[-+.\w]*", "VERSION"),
        (r"resourceVersion: \S+", "resourceVersion: REVISION"),
        // Names that are made: of ReplicaSets and revisions, then of pods.
        (r"-[0-9a-f]{8,10}\b", "-HASH"),
        (r"-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-MADE"),
        (r"\b(10|127)\.\d+\.\d+\.\d+", "IP"),
        // Ages are cells of a table.
        (r"(^|  )(<invalid>|\d+[smhd](\d+[smhd])?)( ago|( \(x\d+ over \w+\))?)(  |$)", "${1}AGE$6"),
        // kubectl 1.34 and later say more.
        (r#"(" (force )?deleted) from \S+ namespace"#, "$1"),
        (r"  +", "  "),
    ];
    rules.map(|(pattern, with)| (Regex::new(pattern).expect("the rules are valid"), with)).into()
});

/// The output of a command as it is in every run.
pub fn normalised(output: &str) -> String {
    let mut lines = Vec::new();
    for line in output.lines() {
        // Which client it is does not matter; 1.32 warns that the server is newer, 1.36 of a rollback.
        if OF_SOME_CLIENTS.iter().any(|start| line.starts_with(start)) {
            continue;
        }
        let indent = line.len() - line.trim_start_matches(' ').len();
        let (indent, rest) = line.split_at(indent);
        let text = VARIABLE.iter().fold(rest.replace('\t', "  "), |text, (pattern, with)| {
            // Cells share the space between them, so neighbours match in turn.
            let once = pattern.replace_all(&text, *with);
            pattern.replace_all(&once, *with).into_owned()
        });
        lines.push(format!("{indent}{}", text.trim_end()));
    }
    lines.join("\n").trim_end().to_owned()
}

/// What was expected and what was said, where they differ.
pub fn differences(expected: &[Step], said: &[Step]) -> String {
    let mut text = String::new();
    for (expected, said) in expected.iter().zip(said).filter(|(a, b)| a.output != b.output) {
        let _ = writeln!(text, "$ {}", said.command);
        let (old, new): (Vec<&str>, Vec<&str>) = (expected.output.lines().collect(), said.output.lines().collect());
        for line in old.iter().filter(|line| !new.contains(line)) {
            let _ = writeln!(text, "  - {line}");
        }
        for line in new.iter().filter(|line| !old.contains(line)) {
            let _ = writeln!(text, "  + {line}");
        }
    }
    text
}

pub fn read(path: &Path) -> Vec<Step> {
    parse(&fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display())))
}

/// Keeps what was said as what is expected.
pub fn write(path: &Path, steps: &[Step]) {
    fs::write(path, to_text(steps)).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_is_written_as_it_is_read() {
        let text = "# why\n@until 3/3\n$ get pods\nNAME  READY\nweb  3/3\n\n@unshown\n$ version\n\n";
        let steps = parse(text);
        assert_eq!((steps.len(), steps[0].until.as_deref(), steps[1].unshown), (2, Some("3/3"), true));
        assert_eq!(steps[0].output, "NAME  READY\nweb  3/3");
        assert_eq!(to_text(&steps), text);
    }

    #[test]
    fn what_varies_is_replaced() {
        let check = |given: &str, expect: &str| assert_eq!(normalised(given), expect, "{given}");
        check("web-8688f44d5c-4fd7f   1/1     Running   0          19s", "web-HASH-MADE  1/1  Running  0  AGE");
        check("web   ClusterIP   10.96.1.7   <none>   80/TCP   2m3s", "web  ClusterIP  IP  <none>  80/TCP  AGE");
        check("  name: settings", "  name: settings");
        check("  uid: 19d8b155-b7df-48be-9f4e-f0e2989041d0", "  uid: UID");
        check("Start Time:       Thu, 26 Nov 2026 06:05:28 +0000", "Start Time:  TIME");
        check("3s          Normal   Started   pod/shell", "AGE  Normal  Started  pod/shell");
        check("pod \"x\" deleted from shop namespace", "pod \"x\" deleted");
        check("settings   2", "settings  2");
    }

    #[test]
    fn differences_name_the_command() {
        let step = |output: &str| Step { command: "get x".to_owned(), output: output.to_owned(), ..Step::default() };
        assert_eq!(differences(&[step("a\nb")], &[step("a\nc")]), "$ get x\n  - b\n  + c\n");
        assert_eq!(differences(&[step("a")], &[step("a")]), "");
    }
}
