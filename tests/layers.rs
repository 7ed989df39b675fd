//! Each module at the top of `src`, be it a file or a folder, imports only modules of the layers
//! below it, and the methods of the engine call only down the list in `engine/mod.rs`.
//!
//! The sources are read as text, without comments, strings and test modules. An import is any path
//! that begins with `crate::`, nested braces included, or that reaches the root through `super::`.
//! `lib.rs` is above all modules: it may only be used for the names that it re-exports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the bottom up. A module may import those of the layers below its own, and none
/// of its own layer. Modules that do not exist yet already have their place.
const LAYERS: &[&[&str]] = &[
    &[
        "generation",
        "id",
        "io_error",
        "proto",
        "sched",
        "timeouts",
        "tls",
    ],
    &["resolver", "route"],
    &["request"],
    &["error"],
    &["builder"],
    // Requests with their responses, without a socket.
    &["h1"],
    &["net"],
    &["response", "sim"],
    &["policy"],
    // Sources of request bodies, whose trailers are a policy's fields.
    &["body"],
    &["config"],
    &["engine"],
    // Edges, which no other module imports.
    &["backlog", "embed", "session"],
    &["events", "lines", "save", "websocket"],
];

/// Modules that are below another one, but that it must not import.
const APART: &[(&str, &[&str])] = &[("net", &["builder", "request"])];

#[test]
fn rooms_import_downwards_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
    let names = re_exports(&lib);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in sources(&src) {
        let shown = path.strip_prefix(&src).unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let file = File::new(shown, &text);
        seen += imports(&file).len();
        wrong.extend(violations(&file, &names));
    }
    assert!(
        seen > 200,
        "only {seen} imports found: is the parser broken?"
    );
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn what_points_upwards_is_found_with_its_line() {
    let sample = r##"
//! Comments name crate::engine as they like; so does `use crate::engine::Engine`.
use std::{fmt, io};
use crate::{
    resolver::Wake,
    engine::{Engine, chains::{ChainKey, Marks}},
    error,
};
pub(crate) use crate::proto::{Origin, head::{self, Head}};
/* use crate::engine::Turn; /* nested */ use crate::engine::Turn; */
fn f<'a>(text: &'a str) -> crate::embed::Told<'a> {
    let _ = ("crate::engine", r#"a " crate::engine"#, b'"', '"', '\'', "\" crate::engine");
    crate::net::readiness::WAKE; super::sim::now(); crate::request::Request; crate::Mode::x()
}
mod inner {
    use super::Local;
    use super::super::session::Session;
}
#[cfg(test)]
mod tests {
    use crate::engine::Engine;
    mod deep { fn f() { crate::embed::told() } }
}
fn after() { crate::unheard::of(); crate::Unknown }
#[cfg(all(test, feature = "tls"))]
mod more_tests { use crate::engine::Engine; }
"##;
    let names = re_exports("pub use engine::{Engine, Mode}; pub use error::Error; pub use http;");
    let found = violations(&File::new("net/poll.rs", sample), &names);
    assert_eq!(
        found,
        [
            "src/net/poll.rs:6: net imports engine, which is not below it",
            "src/net/poll.rs:11: net imports embed, which is not below it",
            "src/net/poll.rs:13: net imports request, which it must not use",
            "src/net/poll.rs:13: net imports engine, which is not below it",
            "src/net/poll.rs:24: net imports unheard, which is in no layer",
            "src/net/poll.rs:24: net imports Unknown, which is in no layer",
        ]
    );
    // If `super` is the root, a module follows it.
    for root in ["net.rs", "net/mod.rs"] {
        let found = violations(&File::new(root, sample), &names).join("\n");
        assert!(found.contains(":13: net imports sim,"), "{found}");
        assert!(found.contains(":17: net imports session,"), "{found}");
        assert!(!found.contains("Local"), "{found}");
    }
    let found = violations(&File::new("new_room.rs", ""), &names);
    assert_eq!(found, ["src/new_room.rs: new_room is in no layer"]);
    let found = violations(&File::new("route.rs", "use crate::resolver::Wake;"), &names);
    assert_eq!(found.len(), 1, "an import within a layer: {found:?}");
    let found = violations(
        &File::new("engine/mod.rs", "use crate::{engine::a, sim::b};"),
        &names,
    );
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_engine_calls_down_its_list_only() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine");
    let read = |name: &str| fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
    let map = read("mod");
    let list: Vec<&str> = map.lines().filter_map(listed).collect();
    let texts: Vec<String> = list.iter().map(|name| read(name)).collect();
    let files: Vec<_> = texts
        .iter()
        .map(|text| without_tests(tokens(text)))
        .collect();
    let (calls, wrong) = calls_upwards(&list, &files);
    assert!(
        calls > 150,
        "only {calls} calls found: is the parser broken?"
    );
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));

    let is_told = |module: &&str| {
        map.lines()
            .any(|line| line.starts_with("//!") && line.contains(&format!("`{module}`")))
    };
    let modules = map
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let untold: Vec<_> = modules.filter(|module| !is_told(module)).collect();
    assert!(
        untold.is_empty(),
        "not on the list in engine/mod.rs: {untold:?}"
    );
}

#[test]
fn a_call_upwards_is_found_with_its_line() {
    let texts = [
        "impl<S> Engine<S> { fn turn(&mut self) { self.core.begin(); self.low() } fn end() {} }",
        "impl<N> Core<N> {\nfn begin(&mut self) { helper(|fail| self\n.end()) }\nfn end() {} }",
        "impl Other { fn turn() { self.begin() } }\n\
         impl Core<()> { fn low() { core . begin(); self.end() } }\n\
         impl<S> Engine<S> { fn low() { self.turn(); self.core.low() } }\n\
         use crate::engine::{Engine, Stats}; use crate::engine::b::Go; use crate::engine::parts;",
    ];
    let files: Vec<_> = texts.iter().map(|text| tokens(text)).collect();
    let (calls, wrong) = calls_upwards(&["a", "b", "c"], &files);
    assert_eq!(calls, 8);
    assert_eq!(
        wrong,
        [
            "src/engine/c.rs:2: calls begin, which is in b",
            "src/engine/c.rs:2: calls end, which is in b",
            "src/engine/c.rs:3: calls turn, which is in a",
            "src/engine/c.rs:4: imports b, which is in b",
        ]
    );
    let twice = [
        "impl Core<()> { fn a() {} }",
        "impl<N> Core<N> { fn a() {} }",
    ];
    let files: Vec<_> = twice.iter().map(|text| tokens(text)).collect();
    let (_, wrong) = calls_upwards(&["a", "b"], &files);
    assert_eq!(wrong, ["Core::a is in two files"]);
    assert_eq!(listed("//! - `turn`: one"), Some("turn"));
    assert_eq!(listed("//! The `parts`: none"), None);
}

#[test]
fn each_room_has_one_place() {
    let mut seen = BTreeSet::new();
    for room in LAYERS.iter().copied().flatten() {
        assert!(seen.insert(room), "{room} is listed twice");
    }
}

/// Returns the file that a line of the engine's map puts on the list.
fn listed(line: &str) -> Option<&str> {
    Some(line.strip_prefix("//! - `")?.split_once('`')?.0)
}

/// Finds the calls of methods of `Core` and `Engine` on themselves, and the imports among the files
/// of the list. Returns their number, and those that go from a file to one above it.
fn calls_upwards(list: &[&str], files: &[Vec<Token<'_>>]) -> (usize, Vec<String>) {
    let mut places = BTreeMap::new();
    let mut wrong = Vec::new();
    for (place, tokens) in files.iter().enumerate() {
        for (of, name) in methods(tokens) {
            if places.insert((of, name), place).is_some() {
                wrong.push(format!("{of}::{name} is in two files"));
            }
        }
    }
    let mut calls = 0;
    for (place, tokens) in files.iter().enumerate() {
        let mut told = |line: usize, what: &str, callee: usize| {
            calls += 1;
            if callee < place {
                let (path, above) = (list[place], list[callee]);
                wrong.push(format!(
                    "src/engine/{path}.rs:{line}: {what}, which is in {above}"
                ));
            }
        };
        let of = owners(tokens);
        for (at, call) in tokens.windows(4).enumerate() {
            let of = match call[0].text {
                "self" => of[at],
                "core" => Some("Core"),
                _ => None,
            };
            let Some(of) = of.filter(|_| call[1].text == "." && call[3].text == "(") else {
                continue;
            };
            let Token { text: name, line } = call[2];
            if let Some(callee) = places.get(&(of, name)) {
                told(line, &format!("calls {name}"), *callee);
            }
        }
        for import in tokens.windows(5) {
            let texts = [
                import[0].text,
                import[1].text,
                import[2].text,
                import[3].text,
            ];
            let Token { text: name, line } = import[4];
            if texts == ["crate", "::", "engine", "::"]
                && let Some(callee) = list.iter().position(|file| *file == name)
            {
                told(line, &format!("imports {name}"), callee);
            }
        }
    }
    (calls, wrong)
}

/// Returns, for each token, whether it is among the methods of `Core`, of `Engine`, or of neither.
fn owners(tokens: &[Token<'_>]) -> Vec<Option<&'static str>> {
    let mut owners = Vec::new();
    let (mut depth, mut owner) = (0, None);
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "impl" if depth == 0 => {
                let mut header = tokens[at..].iter().take_while(|token| token.text != "{");
                owner = header.find_map(|token| match token.text {
                    "Core" => Some("Core"),
                    "Engine" => Some("Engine"),
                    _ => None,
                });
            }
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        owners.push(owner.filter(|_| depth > 0));
    }
    owners
}

/// Returns the methods that a file adds to `Core` or `Engine`, and to which of them.
fn methods<'a>(tokens: &[Token<'a>]) -> Vec<(&'static str, &'a str)> {
    let mut found = Vec::new();
    let mut depth = 0;
    for (at, owner) in owners(tokens).into_iter().enumerate() {
        match tokens[at].text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "fn" if depth == 1 => found.extend(owner.map(|of| (of, tokens[at + 1].text))),
            _ => {}
        }
    }
    found
}

/// A file of a module, reduced to code, and without its test modules.
struct File<'a> {
    /// Relative to `src`.
    path: &'a str,
    room: &'a str,
    /// How many modules it is in, including itself.
    depth: usize,
    tokens: Vec<Token<'a>>,
}

impl<'a> File<'a> {
    fn new(path: &'a str, text: &'a str) -> Self {
        let stem = path.strip_suffix(".rs").unwrap();
        let module = stem.strip_suffix("/mod").unwrap_or(stem);
        Self {
            path,
            room: module.split('/').next().unwrap(),
            depth: module.split('/').count(),
            tokens: without_tests(tokens(text)),
        }
    }
}

/// A word, `::`, or any other single character.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// An item of the crate's root that a file names.
struct Import<'a> {
    name: &'a str,
    line: usize,
}

fn layer_of(room: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&room))
}

fn violations(file: &File<'_>, re_exports: &BTreeMap<&str, &str>) -> Vec<String> {
    let (path, room) = (file.path, file.room);
    let Some(own) = layer_of(room) else {
        return vec![format!("src/{path}: {room} is in no layer")];
    };
    let apart: Vec<_> = APART.iter().filter(|(of, _)| *of == room).collect();
    let judge = |import: Import<'_>| {
        let other = re_exports.get(import.name).unwrap_or(&import.name);
        let why = match layer_of(other) {
            _ if *other == room => return None,
            None => "which is in no layer",
            Some(layer) if layer >= own => "which is not below it",
            Some(_) if apart.iter().any(|(_, rooms)| rooms.contains(other)) => {
                "which it must not use"
            }
            Some(_) => return None,
        };
        let line = import.line;
        Some(format!("src/{path}:{line}: {room} imports {other}, {why}"))
    };
    imports(file).into_iter().filter_map(judge).collect()
}

/// Returns the names that `lib.rs` re-exports, and the module that each comes from.
fn re_exports(lib: &str) -> BTreeMap<&str, &str> {
    let tokens = without_tests(tokens(lib));
    let mut names = BTreeMap::new();
    for at in 0..tokens.len() {
        let is_use = tokens[at].text == "use" && at > 0 && tokens[at - 1].text == "pub";
        if !is_use || tokens.get(at + 2).is_none_or(|t| t.text != "::") {
            continue;
        }
        let shown = tokens[at + 3..].iter().take_while(|t| t.text != ";");
        for name in shown.filter(|t| is_word(t.text)) {
            names.insert(name.text, tokens[at + 1].text);
        }
    }
    names
}

fn imports<'a>(file: &File<'a>) -> Vec<Import<'a>> {
    let tokens = &file.tokens;
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut found = Vec::new();
    let mut braces = 0;
    // The brace depth of each open inline module.
    let mut inline = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match text(at) {
            "{" => {
                if at > 1 && text(at - 2) == "mod" {
                    inline.push(braces);
                }
                braces += 1;
            }
            "}" => {
                braces -= 1;
                inline.pop_if(|outside| *outside == braces);
            }
            "crate" if text(at + 1) == "::" => at = branches(tokens, at + 2, &mut found) - 1,
            "super" if text(at + 1) == "::" => {
                let mut ups = 1;
                while text(at + 2 * ups) == "super" {
                    ups += 1;
                }
                at += 2 * ups;
                if ups == file.depth + inline.len() {
                    at = branches(tokens, at, &mut found);
                }
                at -= 1;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Records the first word of a path, or of each path in braces. Returns the position after it.
fn branches<'a>(tokens: &[Token<'a>], start: usize, found: &mut Vec<Import<'a>>) -> usize {
    let mut at = start;
    let mut depth = 0;
    let mut is_first = true;
    while let Some(&Token { text, line }) = tokens.get(at) {
        match text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => is_first = true,
            name if is_first && is_word(name) => {
                found.push(Import { name, line });
                is_first = false;
            }
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Removes the modules that are compiled for tests only.
fn without_tests(tokens: Vec<Token<'_>>) -> Vec<Token<'_>> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_attribute = ["#", "[", "cfg", "("]
            .iter()
            .enumerate()
            .all(|(i, part)| text(at + i) == *part);
        let is_test = text(at + 4) == "test" || text(at + 4) == "all" && text(at + 6) == "test";
        if is_attribute && is_test {
            let end = end_of_module(&tokens, at);
            if end > at {
                at = end;
                continue;
            }
        }
        kept.push(tokens[at]);
        at += 1;
    }
    kept
}

/// Returns the end of the inline module whose attributes begin at `start`, or `start` if there is
/// none.
fn end_of_module(tokens: &[Token<'_>], start: usize) -> usize {
    let mut depth = 0;
    let mut is_module = false;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.text {
            "mod" if depth == 0 => is_module = true,
            ";" if depth == 0 => return start,
            "{" if depth == 0 && !is_module => return start,
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth -= 1,
            _ => {}
        }
        if token.text == "}" && depth == 0 {
            return at + 1;
        }
    }
    start
}

/// Splits code into tokens, without white space, comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let rest = &text[at..];
        let first = rest.chars().next().unwrap();
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = literal(rest) {
            length
        } else {
            let length = match rest.find(|c: char| !c.is_alphanumeric() && c != '_') {
                Some(0) if rest.starts_with("::") => 2,
                Some(0) => first.len_utf8(),
                end => end.unwrap_or(rest.len()),
            };
            if !first.is_whitespace() {
                let text = &rest[..length];
                tokens.push(Token { text, line });
            }
            length
        };
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    loop {
        let here = rest.get(at..).unwrap_or_default();
        let step = match here.find(['/', '*']) {
            None => return rest.len(),
            Some(skipped) if skipped > 0 => skipped,
            _ if here.starts_with("/*") => {
                depth += 1;
                2
            }
            _ if here.starts_with("*/") => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
}

/// Returns the length of the string, character or lifetime that `rest` begins with.
fn literal(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    let (letters, body) = rest.split_at(prefix);
    if letters.ends_with('r') {
        let hashes = body.find(|c| c != '#')?;
        let inside = body[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(prefix + hashes + 1 + inside.find(&end)? + end.len());
    }
    if let Some(inside) = body.strip_prefix('"') {
        return Some(prefix + 1 + quoted(inside, '"')?);
    }
    let inside = body.strip_prefix('\'')?;
    let mut characters = inside.chars();
    let (first, second) = (characters.next()?, characters.next());
    Some(match first {
        '\\' => prefix + 1 + quoted(inside, '\'')?,
        _ if second == Some('\'') => prefix + 2 + first.len_utf8(),
        _ => {
            let end = inside.find(|c: char| !c.is_alphanumeric() && c != '_');
            prefix + 1 + end.unwrap_or(inside.len())
        }
    })
}

/// Returns the position after the first `end` without a backslash in front of it.
fn quoted(inside: &str, end: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == end => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    None
}

/// Returns all source files that contain more than tests.
fn sources(src: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.file_name().unwrap().to_str().unwrap() {
                "tests" | "tests.rs" => {}
                "lib.rs" if path.parent() == Some(src) => {}
                _ if path.is_dir() => folders.push(path),
                name if name.ends_with(".rs") => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
