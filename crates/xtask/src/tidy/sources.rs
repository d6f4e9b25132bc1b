//! Rules for single source files, and how many lines of them are tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Longest file.
const LINES_MAX: usize = 800;
/// Words that must not be left behind, written so that this file does not hold them.
const LEFT_BEHIND: [&str; 2] = [concat!("todo", "!("), concat!("unimplemented", "!(")];
/// A switched-off test without the reason.
const SILENT_IGNORE: &str = concat!("#[", "ignore]");

/// A Rust file of the repository.
pub struct SourceFile {
    /// From the top of the repository, as `crates/node/src/lib.rs`.
    pub path: String,
    pub text: String,
}

/// Every Rust file in the folders that are ours.
pub fn read(root: &Path) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for folder in ["crates", "tests", "wasm-apps", "deploy"] {
        walk(root, &root.join(folder), &mut files)?;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<SourceFile>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            walk(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let shown = path.strip_prefix(root).expect("the walk began at the top").display().to_string();
            files.push(SourceFile { path: shown, text });
        }
    }
    Ok(())
}

/// One sentence for each rule that the file breaks.
pub fn check(file: &SourceFile) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = file.text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{} has {lines} lines, more than {LINES_MAX}: split it", file.path));
    }
    if !file.text.starts_with("//!") && !is_test_module(&file.path) && !is_glue(&file.text) {
        faults.push(format!("{} does not open with //! lines: what does it own, what may it not know?", file.path));
    }
    for (number, line) in file.text.lines().enumerate() {
        let at = || format!("{}:{}", file.path, number + 1);
        for word in LEFT_BEHIND.iter().filter(|word| line.contains(**word)) {
            faults.push(format!("{} holds {word}…): finish it, or answer a clear error", at()));
        }
        if line.contains(SILENT_IGNORE) {
            faults.push(format!("{} ignores a test without a reason: write #[ignore = \"why\"]", at()));
        }
    }
    faults
}

/// The tests of one module in a file of their own: the module's file is their header.
fn is_test_module(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// A file of module and use lines says nothing of its own.
fn is_glue(text: &str) -> bool {
    let words = ["mod ", "pub mod ", "pub(crate) mod ", "use ", "pub use ", "//", "#["];
    text.lines().all(|line| line.trim().is_empty() || words.iter().any(|word| line.starts_with(word)))
}

/// Lines of product and of tests, crate by crate.
pub fn ratio_table(files: &[SourceFile]) -> String {
    let mut crates: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for file in files.iter().filter(|file| file.path.starts_with("crates/")) {
        let name = file.path.split('/').nth(1).unwrap_or_default();
        let (product, tests) = split_lines(file);
        let sum = crates.entry(name).or_default();
        *sum = (sum.0 + product, sum.1 + tests);
    }
    let mut text = format!("{:<20} {:>8} {:>8} {:>6}\n", "crate", "product", "tests", "ratio");
    let mut total = (0, 0);
    for (name, (product, tests)) in &crates {
        total = (total.0 + product, total.1 + tests);
        row(&mut text, name, *product, *tests);
    }
    row(&mut text, "all", total.0, total.1);
    text.truncate(text.trim_end().len());
    text
}

fn row(text: &mut String, name: &str, product: usize, tests: usize) {
    let hundredths = tests * 100 / product.max(1);
    writeln!(text, "{name:<20} {product:>8} {tests:>8} {:>3}.{:02}", hundredths / 100, hundredths % 100)
        .expect("writing to a string works");
}

/// Product lines and test lines. A `#[cfg(test)]` module with a body is the last of its file.
fn split_lines(file: &SourceFile) -> (usize, usize) {
    let lines: Vec<&str> = file.text.lines().collect();
    if is_test_module(&file.path) || file.path.split('/').nth(2) == Some("tests") {
        return (0, lines.len());
    }
    let begins =
        |pair: &[&str]| pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    let product = lines.windows(2).position(begins).unwrap_or(lines.len());
    (product, lines.len() - product)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    fn check_text(text: &str, faults: usize) {
        let found = check(&file("crates/x/src/y.rs", text));
        assert_eq!(found.len(), faults, "{text:.60?}: {found:?}");
    }

    #[test]
    fn files_are_headed_short_and_finished() {
        check_text("//! Owns y.\nfn y() {}\n", 0);
        check_text("fn y() {}\n", 1);
        check_text("mod a;\npub use a::A;\n", 0);
        check_text(&format!("//! Long.\n{}", "\n".repeat(LINES_MAX)), 1);
        check_text(&format!("//! Open.\nfn y() {{ {}) }}\n", LEFT_BEHIND[0]), 1);
        check_text(&format!("//! Off.\n{SILENT_IGNORE}\nfn y() {{}}\n"), 1);
        assert!(check(&file("crates/x/src/y/tests.rs", "use super::*;\nfn t() {}\n")).is_empty());
    }

    #[test]
    fn test_lines_are_counted_where_they_are() {
        let split = |path, text| split_lines(&file(path, text));
        assert_eq!(split("crates/x/src/y.rs", "a\nb\n#[cfg(test)]\nmod tests {\n}\n"), (2, 3));
        assert_eq!(split("crates/x/src/y.rs", "a\n#[cfg(test)]\nmod tests;\n"), (3, 0));
        assert_eq!(split("crates/x/tests/y.rs", "a\n"), (0, 1));
        assert_eq!(split("crates/x/src/y_tests.rs", "a\n"), (0, 1));
    }

    #[test]
    fn the_table_sums_by_crate() {
        let table = ratio_table(&[file("crates/x/src/a.rs", "1\n2\n"), file("crates/x/tests/b.rs", "1\n")]);
        assert!(table.ends_with("all                         2        1   0.50"), "{table}");
    }
}
