//! Comments and Markdown are wrapped at 100 columns, which rustfmt does not see to.

use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS: usize = 100;

/// Every file below `dir`, without those that are built.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_built = name == "target" || name == "__pycache__" || name.ends_with(".egg-info");
        if is_built || name.starts_with('.') && name != ".ci" {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// What begins a comment line in files of this kind; `None` if they have none.
fn comment_marks(path: &Path) -> Option<&'static [&'static str]> {
    match path.extension().and_then(|ext| ext.to_str()) {
        Some("rs" | "c" | "h") => Some(&["//", "/*", "* "]),
        Some("py" | "toml" | "sh") => Some(&["#"]),
        None if path.ends_with(".ci/run") => Some(&["#"]),
        _ => None,
    }
}

/// The numbers of lines that are too long.
fn too_long(path: &Path, text: &str) -> Vec<usize> {
    let is_markdown = path.extension().is_some_and(|ext| ext == "md");
    let marks = comment_marks(path).unwrap_or_default();
    let mut fenced = false;
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let is_prose = if is_markdown {
            fenced ^= trimmed.starts_with("```");
            // Rows of tables cannot be wrapped.
            !fenced && !trimmed.starts_with('|')
        } else {
            marks.iter().any(|mark| trimmed.starts_with(mark))
        };
        if is_prose && line.chars().count() > COLUMNS {
            found.push(at + 1);
        }
    }
    found
}

#[test]
fn prose_keeps_to_a_hundred_columns() {
    let mut all = Vec::new();
    files(Path::new(env!("CARGO_MANIFEST_DIR")), &mut all);
    assert!(all.len() > 300, "{} files", all.len());
    let mut long = Vec::new();
    for path in all {
        if comment_marks(&path).is_some() || path.extension().is_some_and(|ext| ext == "md") {
            let text = fs::read_to_string(&path).unwrap();
            let lines = too_long(&path, &text);
            long.extend(
                lines
                    .iter()
                    .map(|line| format!("{}:{line}", path.display())),
            );
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn what_is_too_long_is_found() {
    let long = "x".repeat(COLUMNS);
    for (name, text, expected) in [
        ("a.rs", format!("    /// {long}\n// ok\n"), vec![1]),
        ("a.rs", format!("let s = \"{long}\";\n"), vec![]),
        ("a.c", format!("/* {long}\n * {long} */\n"), vec![1, 2]),
        ("a.py", format!("# {long}\nx = '{long}'\n"), vec![1]),
        (".ci/run", format!("#!/bin/sh\n# {long}\n"), vec![2]),
        (
            "a.md",
            format!("{long}y\n| {long} |\n```\n{long}y\n```\n{long}y"),
            vec![1, 6],
        ),
        ("a.json", format!("# {long}"), vec![]),
    ] {
        assert_eq!(too_long(Path::new(name), &text), expected, "{name}");
    }
}
