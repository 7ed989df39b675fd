//! The memory that decoding takes, however long a body is: counted, and compared with what the
//! documentation of `session::Decode` says.

mod counting;

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use httpstream::session::{Decode, Session};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Context, Engine, ErrorKind, Flow, Next, Readback, Reply, Response, Sim};

const KIB: isize = 1024;
const MIB: isize = 1024 * KIB;

/// The length of a body, decoded.
const LEN: usize = 64 << 20;

/// What a response needs without decoders: the buffers of the engine are there.
const REST: isize = 40 * KIB;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// 64 MiB of zeros, with the largest window, by the package brotli of PyPI.
const BROTLI: &[u8] = b"\xcf\xff\xff\x7f\xf8'\x00\xe2\xb1@ \xf7\xfe\x9f\xff\xff\xff\xf0O\x00\xc4a\x01\x80\xee\xfd?\xff\xff\xff\xe1\x9f\x00\x88\xc3\x22\x00\xdd\xfb\x7f\xfe\xff\xff\xc3?\x01\x10\x87\x05\x00\xba\xf7\xff\x03";

/// A frame of zstd with a window of this size (RFC 8878 §3.1.1.1.2), of blocks of 128 KiB, each a
/// repeated byte.
fn zstd(descriptor: u8) -> Vec<u8> {
    let mut frame = b"\x28\xb5\x2f\xfd\x00".to_vec();
    frame.push(descriptor);
    let blocks = LEN >> 17;
    for i in 1..=blocks {
        let is_last = u32::from(i == blocks);
        let header = 128 << 10 << 3 | 1 << 1 | is_last;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(b'x');
    }
    frame
}

/// Streams, and counts the bytes.
struct Counts(Rc<Cell<usize>>);

impl Readback<Option<ErrorKind>> for Counts {
    fn on_head(
        &mut self,
        _: &mut Option<ErrorKind>,
        _: &Response<'_>,
        _: &mut Context<'_, Option<ErrorKind>>,
    ) -> Flow {
        Flow::Stream
    }

    fn on_data(
        &mut self,
        _: &mut Option<ErrorKind>,
        data: &[u8],
        _: &mut Context<'_, Option<ErrorKind>>,
    ) -> Flow {
        self.0.set(self.0.get() + data.len());
        Flow::Stream
    }

    fn on_reply(
        &mut self,
        error: &mut Option<ErrorKind>,
        reply: Reply<'_>,
        _: &mut Context<'_, Option<ErrorKind>>,
    ) -> Next<Option<ErrorKind>> {
        *error = reply.err().map(|error| error.kind());
        Next::done()
    }
}

/// Returns how much memory a body takes at most, how many bytes of it were delivered, and whether
/// it is more than `max_bytes`.
fn peak(coding: &'static str, wire: Vec<u8>, max_bytes: u64) -> (isize, usize, bool) {
    let network = Network::new(1);
    let wire_len = wire.len() as isize;
    network.serve(
        "192.0.2.1:80".parse().unwrap(),
        move |incoming: &Incoming| match incoming.path() {
            "/plain" => Answer::ok("plain"),
            _ => Answer::ok(wire.clone()).header("Content-Encoding", coding),
        },
    );
    let decode = Decode::all().max_bytes(max_bytes);
    let session = Session::builder().decode(decode).build().unwrap();
    let mut engine = Engine::<_, Sim>::on_network(&network, Config::default()).unwrap();
    let mut error = None;
    let (mut before, mut most) = (0, 0);
    let bytes = Rc::new(Cell::new(0));
    for path in ["/plain", "/coded"] {
        bytes.set(0);
        let request = session
            .get(format!("http://192.0.2.1{path}"))
            .build()
            .unwrap();
        engine.submit_to(request, Counts(Rc::clone(&bytes)));
        before = counting::live_bytes();
        counting::take_peak();
        engine.run(&mut error).unwrap();
        most = counting::take_peak();
    }
    // The simulated network has the body up to three times: from the server, and on its way.
    let network_has = 3 * wire_len;
    (
        most - before - network_has,
        bytes.get(),
        error == Some(ErrorKind::TooLarge),
    )
}

#[test]
fn memory_is_bounded_however_long_a_body_is() {
    let plain = vec![0; LEN];
    let (gz, zl) = (gzip(&plain), zlib(&plain));
    let rows = vec![
        ("deflate", zl.clone(), 48 * KIB),
        ("gzip, gzip", gzip(&gz), 2 * 64 * KIB),
        ("deflate, gzip, gzip", gzip(&gzip(&zl)), 3 * 64 * KIB),
        ("gzip", gz, 48 * KIB),
        ("zstd", zstd(0x38), MIB),
        ("zstd", zstd(0x58), 3 * MIB),
        ("zstd", zstd(0x68), 11 * MIB),
        ("br", BROTLI.to_vec(), 25 * MIB),
    ];
    for (coding, wire, bound) in rows {
        let (most, bytes, is_too_large) = peak(coding, wire.clone(), u64::MAX);
        println!("{coding}: {most} bytes of memory, at most {bound}");
        assert_eq!((bytes, is_too_large), (LEN, false), "{coding}");
        assert!(most <= bound + REST, "{coding}: {most}");
        // As much up to a limit.
        let (most, bytes, is_too_large) = peak(coding, wire, 1 << 20);
        assert_eq!((bytes, is_too_large), (1 << 20, true), "{coding}");
        assert!(most <= bound + REST, "{coding}: {most}");
    }
}
