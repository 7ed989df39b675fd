//! `cargo bench -p checks`: the parts that handle a request, each measured separately, at the sizes
//! that matter.
//!
//! Heads, chunks and timers are internal to the crate. Their files are included here by path, so no
//! name has to be made public for a benchmark: `proto` depends on no socket and no clock, `wheel`
//! on nothing, and the compiled code is the crate's. Requests are built through the public API.
//! Allocations are counted in addition to times; heads, chunks and timers make none.
//!
//! Bytes or items per second are the throughput of the row above them. `cargo bench -p checks --
//! timers` runs a part.

#[path = "../../src/proto/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "a part of the crate, which has other users"
)]
mod proto;
#[path = "../../src/sched/wheel.rs"]
#[allow(dead_code, reason = "as above")]
mod wheel;

use divan::AllocProfiler;

#[global_allocator]
static COUNTING: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

mod head {
    use std::fmt::Write;

    use divan::counter::BytesCount;
    use divan::{Bencher, black_box};

    use crate::proto::Limits;
    use crate::proto::head::Head;

    /// Six fields are a small server's answer, 30 one behind a few proxies.
    const FIELDS: [usize; 2] = [6, 30];

    fn wire(fields: usize) -> Vec<u8> {
        let mut wire = String::from(
            "HTTP/1.1 200 OK\r\nServer: loopback/1.0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\n\
             Content-Length: 128\r\nCache-Control: no-cache\r\n",
        );
        for i in 5..fields {
            let line = writeln!(wire, "X-Field-{i:02}: some value of a usual length\r");
            line.expect("writing to a String cannot fail");
        }
        wire.push_str("\r\n");
        wire.into_bytes()
    }

    /// Returns a head that was used before, and so has room for as many fields.
    fn warm(fields: usize) -> Head {
        let mut head = Head::default();
        let read = head.read(&mut wire(fields), &mut 0, &Limits::default());
        assert!(read.expect("a head").is_some(), "the head is complete");
        head
    }

    /// As a head usually arrives.
    #[divan::bench(args = FIELDS)]
    fn whole(bencher: Bencher<'_, '_>, fields: usize) {
        let mut wire = wire(fields);
        let (mut head, limits) = (warm(fields), Limits::default());
        bencher
            .counter(BytesCount::of_slice(&wire))
            .bench_local(|| head.read(black_box(&mut wire), &mut 0, &limits));
    }

    /// In pieces of `every` bytes.
    fn in_pieces(bencher: Bencher<'_, '_>, fields: usize, every: usize) {
        let mut wire = wire(fields);
        let (mut head, limits) = (warm(fields), Limits::default());
        let ends: Vec<usize> = (every..wire.len())
            .step_by(every)
            .chain([wire.len()])
            .collect();
        bencher
            .counter(BytesCount::of_slice(&wire))
            .bench_local(|| {
                let mut searched = 0;
                for &end in &ends {
                    let read = head.read(black_box(&mut wire[..end]), &mut searched, &limits);
                    black_box(&read);
                }
            });
    }

    #[divan::bench(args = FIELDS)]
    fn in_pieces_of_100_bytes(bencher: Bencher<'_, '_>, fields: usize) {
        in_pieces(bencher, fields, 100);
    }

    #[divan::bench(args = FIELDS)]
    fn byte_by_byte(bencher: Bencher<'_, '_>, fields: usize) {
        in_pieces(bencher, fields, 1);
    }
}

mod chunks {
    use divan::counter::ItemsCount;
    use divan::{Bencher, black_box};

    use crate::proto::Limits;
    use crate::proto::chunked::Chunked;

    /// Bytes in a chunk, and the number of chunks: the worst that a peer can do, what template
    /// engines flush, and a file. Data is located but not read, so this measures chunks.
    #[divan::bench(args = [(1, 4096), (100, 256), (64 << 10, 16)])]
    fn of_bytes(bencher: Bencher<'_, '_>, (size, count): (usize, usize)) {
        let mut wire = format!("{size:x}\r\n{}\r\n", "x".repeat(size)).repeat(count);
        wire.push_str("0\r\n\r\n");
        let wire = wire.into_bytes();
        let limits = Limits::default();
        bencher.counter(ItemsCount::new(count)).bench_local(|| {
            let (mut chunked, mut at) = (Chunked::new(), 0);
            while !chunked.is_done() {
                let decoded = chunked
                    .decode(black_box(&wire[at..]), &limits)
                    .expect("a chunked body");
                at += decoded.consumed;
                black_box(decoded.content);
            }
        });
    }

    /// The same for a collected body, whose chunks are moved together: its bytes are copied. The
    /// source is made anew each time.
    #[divan::bench(args = [(1, 4096), (100, 256), (4 << 10, 16)])]
    fn collected_of_bytes(bencher: Bencher<'_, '_>, (size, count): (usize, usize)) {
        let mut wire = format!("{size:x}\r\n{}\r\n", "x".repeat(size)).repeat(count);
        wire.push_str("0\r\n\r\n");
        let limits = Limits::default();
        bencher
            .counter(ItemsCount::new(count))
            .with_inputs(|| wire.clone().into_bytes())
            .bench_local_refs(|wire| {
                let (collected, result) = Chunked::new().collect(black_box(wire), 0, &limits);
                result.expect("a chunked body");
                assert_eq!(collected.len, size * count);
                collected
            });
    }
}

/// With this many other timers, due within an hour.
mod timers {
    use divan::Bencher;
    use divan::counter::ItemsCount;

    use crate::wheel::{TimerId, Wheel};

    const AMONG: [usize; 2] = [1_000, 1_000_000];
    /// In ticks, which the engine uses as milliseconds.
    const HOUR: u64 = 3_600_000;
    /// The number of operations in a measured step, so that reading the clock does not count.
    const BATCH: usize = 1_000;

    /// splitmix64: the same in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % bound
        }
    }

    fn armed(random: &mut Random, among: usize) -> (Wheel<u32>, Vec<TimerId>) {
        let mut wheel = Wheel::new();
        let ids = (0..among as u32)
            .map(|key| wheel.arm(random.below(HOUR), key))
            .collect();
        (wheel, ids)
    }

    /// Makes room for another batch, so that growing is not measured.
    fn make_room(wheel: &mut Wheel<u32>) {
        let ids: Vec<TimerId> = (0..BATCH).map(|_| wheel.arm(HOUR, 0)).collect();
        for id in ids {
            wheel.cancel(id);
        }
    }

    /// The deadline of a request that is soon answered.
    #[divan::bench(args = AMONG)]
    fn arm_and_soon_cancel(bencher: Bencher<'_, '_>, among: usize) {
        let mut random = Random(1);
        let (mut wheel, _others) = armed(&mut random, among);
        make_room(&mut wheel);
        let due: Vec<u64> = (0..BATCH).map(|_| random.below(HOUR)).collect();
        let mut ids = Vec::with_capacity(BATCH);
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            ids.extend(due.iter().map(|&due| wheel.arm(due, 0)));
            for id in ids.drain(..) {
                wheel.cancel(id);
            }
        });
    }

    /// At random places in memory: with a million timers, this measures memory.
    #[divan::bench(args = AMONG)]
    fn cancel_any_and_arm(bencher: Bencher<'_, '_>, among: usize) {
        let mut random = Random(1);
        let (mut wheel, mut ids) = armed(&mut random, among);
        bencher
            .with_inputs(|| {
                let any = |_| (random.below(among as u64) as usize, random.below(HOUR));
                (0..BATCH).map(any).collect::<Vec<_>>()
            })
            .input_counter(|_| ItemsCount::new(BATCH))
            .bench_local_refs(|batch| {
                for &mut (at, due) in batch {
                    wheel.cancel(ids[at]);
                    ids[at] = wheel.arm(due, at as u32);
                }
            });
    }

    /// Takes out what is due, one tick after another, and arms it again: each timer is
    /// redistributed on its way down the levels.
    #[divan::bench(args = AMONG)]
    fn expire_and_arm(bencher: Bencher<'_, '_>, among: usize) {
        let mut random = Random(1);
        let (mut wheel, _ids) = armed(&mut random, among);
        let mut now = 0;
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            for _ in 0..BATCH {
                let key = loop {
                    match wheel.expire(now) {
                        Some(key) => break key,
                        None => now = wheel.next_tick().expect("timers are armed"),
                    }
                };
                wheel.arm(now + 1 + random.below(HOUR), key);
            }
        });
    }
}

mod building {
    use httpstream::{Error, Request};

    const URL: &str = "http://example.com/rooms/42/messages?since=1700000000";

    #[divan::bench]
    fn get() -> Result<Request, Error> {
        Request::get(URL).build()
    }

    #[divan::bench]
    fn get_with_4_fields() -> Result<Request, Error> {
        Request::get(URL)
            .header("Accept", "application/json")
            .header("Cookie", "session=0123456789abcdef")
            .header("Referer", "http://example.com/")
            .header("X-Requested-With", "XMLHttpRequest")
            .build()
    }

    #[divan::bench]
    fn get_with_query() -> Result<Request, Error> {
        Request::get("http://example.com/search")
            .query([("q", "good morning"), ("lang", "de"), ("page", "2")])
            .build()
    }

    #[divan::bench]
    fn post_form() -> Result<Request, Error> {
        Request::post(URL)
            .form([("to", "42"), ("text", "good morning")])
            .build()
    }
}
