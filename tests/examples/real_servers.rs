//! `get`, fetching many files from real servers on loopback.
#![cfg(unix)]

use crate::servers;

use std::fs;
use std::net::SocketAddr;

use servers::{Nginx, Python, TempDir, Tree, example, run};

/// Fetches the whole tree, compares it, and returns the last line that `get` printed about it.
fn fetch(tree: &Tree, server: SocketAddr, args: &[&str]) -> Summary {
    let dir = TempDir::new();
    let (list, copy) = (dir.path().join("list"), dir.path().join("copy"));
    fs::write(&list, tree.urls(server)).expect("writable");
    let mut command = example("get");
    command.args(["-Z", "--timeout", "40", "--list"]).arg(&list);
    let ended = run(command.arg("--tree").arg(&copy).args(args));
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    tree.compare(&copy);
    let summary = Summary(ended.stderr.lines().last().unwrap_or_default().to_owned());
    println!("{summary:?}");
    assert_eq!(summary.before("bytes in"), tree.bytes(), "{summary:?}");
    summary
}

#[derive(Debug)]
struct Summary(String);

impl Summary {
    /// Returns the number in front of `words`.
    fn before(&self, words: &str) -> usize {
        let (front, _) = self.0.split_once(words).expect("words of the last line");
        let number = front.split_whitespace().last();
        number.and_then(|n| n.parse().ok()).expect("a number")
    }

    fn opened(&self) -> usize {
        self.before("connections opened")
    }

    fn reused(&self) -> usize {
        self.before("requests on reused connections")
    }
}

fn skip(tool: &str) {
    println!("skipped: {tool} is not installed");
}

#[test]
fn nginx_hands_out_a_tree_over_kept_connections_while_it_reloads() {
    let tree = Tree::get();
    let Some(nginx) = Nginx::start(&tree) else {
        return skip("nginx");
    };
    let reloads = nginx.reload_during(|| {
        let summary = fetch(&tree, nginx.addr, &["--connections", "8"]);
        assert!(summary.reused() > summary.opened(), "{summary:?}");
    });
    assert!(reloads >= 3, "only {reloads} reloads");
}

#[test]
fn nginx_hands_out_a_tree_over_closed_connections_while_it_reloads() {
    let tree = Tree::get();
    let Some(nginx) = Nginx::start(&tree) else {
        return skip("nginx");
    };
    let reloads = nginx.reload_during(|| {
        let summary = fetch(&tree, nginx.addr, &["--connections", "8", "--close"]);
        assert_eq!(summary.reused(), 0, "{summary:?}");
    });
    assert!(reloads >= 3, "only {reloads} reloads");
}

/// The length of its listen queue: with more connections, clients would wait for their SYN to be
/// sent again.
const PYTHONS: &[&str] = &["--connections", "5"];

#[test]
fn python_hands_out_a_tree_over_kept_connections() {
    let tree = Tree::get();
    let Some(python) = Python::start(&tree) else {
        return skip("python3");
    };
    let summary = fetch(&tree, python.addr, PYTHONS);
    if python.keeps_alive {
        assert_eq!(summary.opened(), 5, "{summary:?}");
    }
}

#[test]
fn python_hands_out_a_tree_over_closed_connections() {
    let tree = Tree::get();
    let Some(python) = Python::start(&tree) else {
        return skip("python3");
    };
    let summary = fetch(&tree, python.addr, &[PYTHONS, &["--close"]].concat());
    assert_eq!(summary.reused(), 0, "{summary:?}");
}
