//! docs/EMBEDDING.md shows tested code: each piece is contained line by line in the program that it
//! names.

use std::fs;
use std::path::Path;

#[test]
fn the_recipes_are_cut_from_the_programs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let chapter = fs::read_to_string(root.join("docs/EMBEDDING.md")).unwrap();
    let mut pieces = 0;
    // Every second part is inside of a fence; its first line names the language.
    for fenced in chapter.split("```").skip(1).step_by(2) {
        let Some(("rust" | "c", piece)) = fenced.split_once('\n') else {
            continue;
        };
        let (place, code) = piece.split_once('\n').expect("a comment and code");
        let place = place
            .strip_prefix("// ")
            .expect("a comment that names the program");
        let program = fs::read_to_string(root.join(place)).expect(place);
        assert!(!code.trim().is_empty(), "{place}");
        assert!(program.contains(code), "{place} does not contain: {code}");
        pieces += 1;
    }
    assert!(pieces >= 8, "{pieces}");
}

#[test]
fn each_program_is_named() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let chapter = fs::read_to_string(root.join("docs/EMBEDDING.md")).unwrap();
    for folder in ["examples/embed", "examples/embed/c"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_program = path.is_file() && !name.ends_with(".h");
            let link = format!("(../{folder}/{name})");
            assert!(!is_program || chapter.contains(&link), "{link}");
        }
    }
}
