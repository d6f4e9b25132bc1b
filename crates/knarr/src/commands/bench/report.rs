//! What was measured, as a table for people and as JSON. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// The result of one measurement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Section {
    pub name: &'static str,
    pub title: String,
    /// Names of the figures, units last: `median_ms`, `requests_per_s`.
    pub columns: &'static [&'static str],
    pub rows: Vec<Row>,
    pub notes: Vec<String>,
    /// Why there are no (or not all) figures.
    pub error: Option<String>,
}

/// One line: as many figures as the section has columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub label: String,
    pub figures: Vec<Option<f64>>,
}

impl Section {
    pub fn new(name: &'static str, title: impl Into<String>, columns: &'static [&'static str]) -> Self {
        Self { name, title: title.into(), columns, ..Self::default() }
    }

    pub fn row(&mut self, label: impl Into<String>, figures: impl IntoIterator<Item = Option<f64>>) {
        let row = Row { label: label.into(), figures: figures.into_iter().collect() };
        debug_assert_eq!(row.figures.len(), self.columns.len(), "a row has a figure for every column");
        self.rows.push(row);
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        json!({ "name": self.name, "title": self.title, "rows": rows, "notes": self.notes, "error": self.error })
    }

    fn row_json(&self, row: &Row) -> Value {
        let mut object = serde_json::Map::new();
        object.insert("label".to_owned(), json!(row.label));
        for (column, figure) in self.columns.iter().zip(&row.figures) {
            object.insert((*column).to_owned(), json!(figure));
        }
        Value::Object(object)
    }

    /// Aligned columns below a title.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.title);
        let cells: Vec<Vec<String>> =
            self.rows.iter().map(|r| r.figures.iter().map(|f| figure(*f)).collect()).collect();
        let label_width = self.rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|i| cells.iter().map(|row| row[i].len()).chain([self.columns[i].len()]).max().unwrap_or(0))
            .collect();
        let mut line = |label: &str, cells: &mut dyn Iterator<Item = &str>| {
            let mut out = format!("  {label:<label_width$}");
            for (cell, width) in cells.zip(&widths) {
                let _ = write!(out, "  {cell:>width$}");
            }
            text.push_str(out.trim_end());
            text.push('\n');
        };
        if !self.rows.is_empty() {
            line("", &mut self.columns.iter().copied());
        }
        for (row, cells) in self.rows.iter().zip(&cells) {
            line(&row.label, &mut cells.iter().map(String::as_str));
        }
        for note in &self.notes {
            let _ = writeln!(text, "  ({note})");
        }
        if let Some(error) = &self.error {
            let _ = writeln!(text, "  failed: {error}");
        }
        text
    }
}

/// As many digits as are worth reading.
fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 100.0 || value == 0.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        let mut section = Section::new("rps", "requests", &["requests_per_s", "p50_ms"]);
        section.row("knarr, 1", [Some(1234.5), Some(0.123)]);
        section.row("other, 16", [Some(9.0), None]);
        section.note("a note");
        section
    }

    #[test]
    fn the_table_is_aligned() {
        let expect = "\
rps: requests
             requests_per_s  p50_ms
  knarr, 1             1234    0.12
  other, 16            9.00       -
  (a note)
";
        assert_eq!(section().to_text(), expect);
    }

    #[test]
    fn json_names_every_figure() {
        let json = section().to_json();
        assert_eq!(json["rows"][0], json!({ "label": "knarr, 1", "requests_per_s": 1234.5, "p50_ms": 0.123 }));
        assert_eq!(json["rows"][1]["p50_ms"], Value::Null);
        assert_eq!(json["error"], Value::Null);
    }

    #[test]
    fn a_failure_is_said() {
        let mut failed = Section::new("up", "start", &["median_ms"]);
        failed.error = Some("no root".to_owned());
        assert_eq!(failed.to_text(), "up: start\n  failed: no root\n");
    }

    #[test]
    fn small_figures_have_more_digits() {
        let check = |value: f64, expect: &str| assert_eq!(figure(Some(value)), expect);
        check(0.0, "0");
        check(0.126, "0.13");
        check(12.34, "12.3");
        check(4321.9, "4322");
    }
}
