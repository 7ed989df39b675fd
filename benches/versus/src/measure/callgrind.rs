//! Reads callgrind's output, and attributes the instructions.
//!
//! The rule: a function belongs to the crate with which its name begins, which for a method of a
//! trait is the crate of the type. Functions of the standard library or libc (and the allocator's
//! counting) belong to their callers, in proportion to the instructions of the calls. So a `memcpy`
//! called by rustls counts for rustls, and one called by a client counts for the client.

use std::collections::HashMap;

/// rustls, its provider, and their dependencies.
const TLS_CRATES: [&str; 6] = [
    "rustls",
    "ring",
    "webpki",
    "rustls_pki_types",
    "untrusted",
    "subtle",
];
const LENT_CRATES: [&str; 5] = ["core", "alloc", "std", "hashbrown", "compiler_builtins"];

/// Enough for the shares of lent functions to settle: their callers are at most a few calls away.
const PASSES: usize = 64;

/// Instructions of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Instructions {
    pub(crate) all: f64,
    /// Those of rustls and its provider.
    pub(crate) tls: f64,
}

#[derive(Default)]
struct Function {
    own: u64,
    /// The instructions of the calls, by caller.
    callers: HashMap<usize, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Tls,
    Caller,
    Other,
}

/// Returns `None` if the text is not callgrind's.
pub(crate) fn read(text: &str) -> Option<Instructions> {
    let mut names: HashMap<String, String> = HashMap::new();
    let mut ids: HashMap<String, usize> = HashMap::new();
    let mut functions: Vec<Function> = Vec::new();
    let (mut current, mut called, mut is_call) = (None, None, false);
    let mut total = None;
    for line in text.lines() {
        if let Some((key, value)) = line.split_once('=') {
            match key {
                "fn" | "cfn" => {
                    let name = uncompressed(&mut names, value)?;
                    let id = *ids.entry(name).or_insert_with(|| {
                        functions.push(Function::default());
                        functions.len() - 1
                    });
                    match key {
                        "fn" => current = Some(id),
                        _ => called = Some(id),
                    }
                }
                "calls" => is_call = true,
                _ => {}
            }
        } else if let Some(count) = line
            .strip_prefix("totals: ")
            .or_else(|| line.strip_prefix("summary: "))
        {
            total = count.trim().parse::<u64>().ok().or(total);
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost: u64 = line.split(' ').nth(1).map_or(Some(0), |n| n.parse().ok())?;
            match (is_call, current, called) {
                (true, Some(caller), Some(callee)) if caller != callee => {
                    *functions[callee].callers.entry(caller).or_default() += cost;
                }
                (true, _, _) => {}
                (false, Some(current), _) => functions[current].own += cost,
                (false, None, _) => return None,
            }
            is_call = false;
        }
    }
    let mut owners = vec![Owner::Other; functions.len()];
    for (name, id) in &ids {
        owners[*id] = owner(name);
    }
    let tls = functions
        .iter()
        .zip(tls_shares(&functions, &owners))
        .map(|(function, share)| function.own as f64 * share)
        .sum();
    let all = total? as f64;
    Some(Instructions { all, tls })
}

/// `(12) name` the first time, `(12)` later.
fn uncompressed(names: &mut HashMap<String, String>, value: &str) -> Option<String> {
    let (id, name) = value.split_once(')')?;
    if name.is_empty() {
        return names.get(id).cloned();
    }
    names.insert(id.to_owned(), name.trim().to_owned());
    Some(name.trim().to_owned())
}

/// Returns the share of each function that is rustls's.
fn tls_shares(functions: &[Function], owners: &[Owner]) -> Vec<f64> {
    let mut shares: Vec<f64> = owners
        .iter()
        .map(|owner| f64::from(u8::from(*owner == Owner::Tls)))
        .collect();
    for _ in 0..PASSES {
        for (id, function) in functions.iter().enumerate() {
            if owners[id] != Owner::Caller {
                continue;
            }
            let called: u64 = function.callers.values().sum();
            let by_tls: f64 = function
                .callers
                .iter()
                .map(|(&caller, &count)| shares[caller] * count as f64)
                .sum();
            shares[id] = by_tls / called.max(1) as f64;
        }
    }
    shares
}

fn owner(name: &str) -> Owner {
    if name.starts_with("ring_core_") {
        return Owner::Tls;
    }
    if name.contains("versus::meter::") {
        return Owner::Caller;
    }
    let path = name.trim_start_matches(|c: char| "<&*([".contains(c));
    let path = path
        .trim_start_matches("mut ")
        .trim_start_matches("dyn ")
        .trim_start_matches("const ");
    match path.split_once("::") {
        None => Owner::Caller,
        Some((first, _)) if TLS_CRATES.contains(&first) => Owner::Tls,
        Some((first, _)) if LENT_CRATES.contains(&first) => Owner::Caller,
        Some(_) => Owner::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `client` calls rustls and `memcpy`; rustls calls `memcpy` three times as much, and a vector
    /// that calls it, too.
    const WRITTEN: &str = "\
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir
summary: 1000

fl=(1) src/lib.rs
fn=(1) httpstream::engine::turn
10 100
+2 50
cfi=(2) rustls.rs
cfn=(2) <rustls::conn::Connection as core::fmt::Debug>::fmt
calls=3 20
12 750
cfn=(3) memcpy
calls=1 0
* 100

fn=(2)
20 350
cfn=(3)
calls=3 0
21 200
cfn=(4) alloc::raw_vec::grow
calls=1 0
22 200

fn=(3)
0 400

fn=(4)
0 100
cfn=(3)
calls=1 0
1 100

totals: 1000
";

    #[test]
    fn what_is_lent_is_its_callers() {
        let read = read(WRITTEN).expect("callgrind's output");
        assert_eq!(read.all, 1000.0);
        // 350 of its own, all of the vector's 100, and three of four calls of memcpy.
        assert!(
            (read.tls - (350.0 + 100.0 + 300.0)).abs() < 1e-6,
            "{read:?}"
        );
    }

    #[test]
    fn a_name_tells_the_crate() {
        for (name, expected) in [
            ("rustls::msgs::deframer::pop", Owner::Tls),
            ("<rustls::Tls13 as rustls::Suite>::x", Owner::Tls),
            ("ring_core_0_17_14__aes_gcm_enc", Owner::Tls),
            ("tokio_rustls::common::Stream<IO,C>::read_io", Owner::Other),
            ("<&mut hyper::Conn as core::fmt::Debug>::fmt", Owner::Other),
            ("core::ptr::drop_in_place<rustls::X>", Owner::Caller),
            (
                "<versus::meter::Counting as GlobalAlloc>::alloc",
                Owner::Caller,
            ),
            ("__memcpy_avx_unaligned_erms", Owner::Caller),
        ] {
            assert!(owner(name) == expected, "{name}");
        }
    }

    #[test]
    fn what_callgrind_did_not_write_is_none() {
        assert_eq!(read("no such file"), None);
        assert_eq!(read("fn=(1)\n1 2\n"), None);
    }
}
