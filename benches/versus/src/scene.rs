//! The clients, and the scenes in which they are compared.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::job::{Client, Workload};

/// In the order of the tables.
pub(crate) const CLIENTS: [Client; 9] = [
    Client::Floor,
    Client::Httpstream,
    Client::HyperConn,
    Client::HyperUtil,
    Client::Reqwest,
    Client::CurlMulti,
    Client::MioHttpc,
    Client::Ureq,
    Client::Wrk,
];

/// The parts that can be selected.
pub(crate) const ONLY: [&str; 14] = [
    "small",
    "chunked",
    "fields",
    "large",
    "huge",
    "huge-streamed",
    "close",
    "tls",
    "pipelined",
    "delayed",
    "held",
    "timers",
    "growth",
    "transfers",
];

/// The number of pipelined requests on each connection.
pub(crate) const DEPTH: usize = 16;

impl Client {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Client::Floor => "floor",
            Client::Httpstream => "httpstream",
            Client::HyperConn => "hyper-conn",
            Client::HyperUtil => "hyper-util",
            Client::Reqwest => "reqwest",
            Client::CurlMulti => "curl-multi",
            Client::MioHttpc => "mio-httpc",
            Client::Ureq => "ureq",
            Client::Wrk => "wrk",
        }
    }
}

impl Workload {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Small => "small",
            Workload::Chunked => "chunked",
            Workload::Fields => "fields",
            Workload::Large => "large",
            Workload::Huge => "huge",
            Workload::HugeStreamed => "huge-streamed",
            Workload::Close => "close",
            Workload::Tls => "tls",
            Workload::Pipelined { .. } => "pipelined",
            Workload::Delayed => "delayed",
            Workload::Held => "held",
        }
    }

    /// Returns the title in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Workload::Small => "small",
            Workload::Chunked => "chunked",
            Workload::Fields => "30 fields",
            Workload::Large => "64 KiB",
            Workload::Huge => "1 MiB collected",
            Workload::HugeStreamed => "1 MiB streamed",
            Workload::Close => "connection per request",
            Workload::Tls => "https",
            Workload::Pipelined { .. } => "pipelined",
            Workload::Delayed => "delayed by 1 ms",
            Workload::Held => "held",
        }
    }
}

/// A workload at a concurrency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Scene {
    pub(crate) workload: Workload,
    /// The number of requests in flight at once, or of connections if they are pipelined.
    pub(crate) connections: usize,
}

impl Scene {
    pub(crate) const fn new(workload: Workload, connections: usize) -> Self {
        Self {
            workload,
            connections,
        }
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = self.connections;
        match self.workload {
            Workload::Pipelined { depth } => {
                write!(f, "{depth} pipelined on each of {connections}")
            }
            workload => write!(f, "{}, C={connections}", workload.title()),
        }
    }
}

pub(crate) const SMALL_1: Scene = Scene::new(Workload::Small, 1);
pub(crate) const SMALL_50: Scene = Scene::new(Workload::Small, 50);
pub(crate) const SMALL_1000: Scene = Scene::new(Workload::Small, 1000);
pub(crate) const CHUNKED: Scene = Scene::new(Workload::Chunked, 50);
pub(crate) const FIELDS: Scene = Scene::new(Workload::Fields, 50);
pub(crate) const LARGE: Scene = Scene::new(Workload::Large, 50);
pub(crate) const HUGE: Scene = Scene::new(Workload::Huge, 4);
pub(crate) const HUGE_STREAMED: Scene = Scene::new(Workload::HugeStreamed, 4);
pub(crate) const CLOSE: Scene = Scene::new(Workload::Close, 50);
pub(crate) const TLS: Scene = Scene::new(Workload::Tls, 50);
pub(crate) const DELAYED: Scene = Scene::new(Workload::Delayed, 50);
/// About as many requests in flight as there are connections in scenes without pipelining.
pub(crate) const PIPELINED: Scene = Scene::new(Workload::Pipelined { depth: DEPTH }, 4);
