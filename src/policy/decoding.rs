//! A body's layers of coding, taken off in bounded pieces.
//!
//! Each [`Decoder`] is pulled: it gets input and a room of fixed size, and says how much it took
//! and gave. Its output is the next layer's input, and what the last layer gives is a piece of the
//! body. The layer nearest to the body that can go on is always asked first, so that no layer's
//! output piles up in front of the next, however well a body was compressed.
//!
//! Input that a layer has not taken is kept for it, across a pause and until more has come. What a
//! server controls is bounded: the number of layers, the bytes that each produces, the input that
//! one leaves untaken, and the calls before the engine's turn goes on.

use std::fmt;
use std::io;

use crate::error::{Circumstances, Error, ErrorKind};
use crate::proto::Violation;

/// Takes one layer of coding off a body.
///
/// It is pulled, a bounded piece at a time, so that a body which decodes to gigabytes takes no more
/// memory than one room. It keeps no input: what it has not taken is shown again.
///
/// ```
/// use std::io;
/// use httpstream::policy::{Decoder, Progress};
///
/// struct Rot13;
///
/// impl Decoder for Rot13 {
///     fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
///         let n = input.len().min(room.len());
///         for (to, from) in room.iter_mut().zip(&input[..n]) {
///             *to = match from {
///                 b'a'..=b'm' | b'A'..=b'M' => from + 13,
///                 b'n'..=b'z' | b'N'..=b'Z' => from - 13,
///                 other => *other,
///             };
///         }
///         Ok(Progress { consumed: n, produced: n })
///     }
/// }
/// ```
pub trait Decoder {
    /// Decodes the beginning of `input` into the beginning of `room`, which is not empty. `input`
    /// is empty where all of it was consumed: a decoder that has produced something is asked for
    /// more until it produces nothing.
    ///
    /// What is not consumed is shown again, with what has come behind it. To consume and produce
    /// nothing means that `input` is not enough to go on: where 16 KiB are not, or the input is
    /// over, the body is given up.
    ///
    /// # Errors
    /// The body cannot be decoded. [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) counts as a body
    /// that was cut short, all others as one that is malformed.
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress>;

    /// The input is over, and all of it was consumed. Writes what is left to the beginning of
    /// `room`, a piece at a time, and is called again until it has written 0 bytes. Of a body
    /// without a byte no decoder hears.
    ///
    /// # Errors
    /// As of [`decode`](Self::decode): `UnexpectedEof` where the input ended too soon.
    fn finish(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let _ = room;
        Ok(0)
    }
}

/// What one call of [`Decoder::decode`] came to, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of the input, from its beginning.
    pub consumed: usize,
    /// Written to the room, from its beginning.
    pub produced: usize,
}

/// The most layers of coding that one body may have, the same number as curl's. More only serve
/// to amplify.
pub(crate) const MAX_LAYERS: usize = 5;

/// A layer is given a room of so many bytes; a piece of a body is as long at most.
pub(crate) const ROOM: usize = 16 * 1024;

/// Input that a layer may leave untaken while it asks for more.
const MAX_UNTAKEN: usize = 16 * 1024;

/// Calls of decoders until [`Decoding::decode`] comes back, whether it has a piece or not.
const MAX_CALLS: usize = 32;

/// The decoding of one body.
pub(crate) struct Decoding {
    /// In the order in which they are taken off.
    layers: Vec<Layer>,
    /// The most bytes that any layer may give.
    max_bytes: u64,
    /// Input has come.
    has_begun: bool,
    /// No input follows that which is here.
    input_is_over: bool,
}

/// What came of one call of [`Decoding::decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many bytes of the body stand in the room. There may be more.
    Piece(usize),
    /// Enough was done for now, without a piece. Call again, in another turn.
    Busy,
    /// All input is taken, or kept.
    NeedsInput,
    /// The body is over.
    Done,
}

/// Why a body cannot be decoded.
#[derive(Debug)]
pub(crate) enum Undecodable {
    /// A decoder says so.
    Failed(io::Error),
    /// It was cut short: input is left that is not enough for its decoder.
    CutShort,
    /// It passed the limit.
    TooLarge { limit: u64, seen: u64 },
    /// A decoder takes nothing of the input that it has, and gives nothing.
    Stuck,
    /// A decoder counts more bytes than there are.
    Miscounted,
    /// It has more layers than [`MAX_LAYERS`].
    TooManyLayers(usize),
}

struct Layer {
    decoder: Box<dyn Decoder>,
    /// What it has not taken yet.
    input: Untaken,
    /// Its input is not enough for it to go on.
    is_stalled: bool,
    /// It gave something when it was asked last, and may hold back more.
    may_have_more: bool,
    /// It has given all that it had.
    is_finished: bool,
    /// Bytes that it has given.
    produced: u64,
}

impl Decoding {
    /// Takes `decoders` off in this order.
    pub(crate) fn new(decoders: Vec<Box<dyn Decoder>>) -> Result<Self, Undecodable> {
        if decoders.len() > MAX_LAYERS {
            return Err(Undecodable::TooManyLayers(decoders.len()));
        }
        let layer = |decoder| Layer {
            decoder,
            input: Untaken::default(),
            is_stalled: false,
            may_have_more: false,
            is_finished: false,
            produced: 0,
        };
        Ok(Self {
            layers: decoders.into_iter().map(layer).collect(),
            max_bytes: u64::MAX,
            has_begun: false,
            input_is_over: false,
        })
    }

    /// Bounds what each layer may give: the body is collected.
    pub(crate) fn limit(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
    }

    /// Decodes on, into `room`, what was kept and then `input`, from which it takes what it has
    /// used. Call it until it [needs input](Step::NeedsInput): all of `input` is taken then.
    pub(crate) fn decode(
        &mut self,
        input: &mut &[u8],
        room: &mut [u8],
    ) -> Result<Step, Undecodable> {
        let last = self.layers.len() - 1;
        self.has_begun |= !input.is_empty();
        for _ in 0..MAX_CALLS {
            let Some(layer) = self.next_layer(input) else {
                return Ok(if self.layers[last].is_finished {
                    Step::Done
                } else {
                    Step::NeedsInput
                });
            };
            let produced = self.ask(layer, input, room)?;
            if layer == last && produced > 0 {
                return Ok(Step::Piece(produced));
            }
        }
        Ok(Step::Busy)
    }

    /// Keeps what is left of an input whose buffer is needed for something else, as in a pause.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        self.has_begun |= !rest.is_empty();
        self.layers[0].input.push(rest);
    }

    /// No more input follows. Call [`decode`](Self::decode) until it is [done](Step::Done).
    pub(crate) fn end_input(&mut self) {
        self.input_is_over = true;
        if !self.has_begun {
            // A body without a byte has no coding, whatever its fields say: some servers answer so.
            for layer in &mut self.layers {
                layer.is_finished = true;
            }
        }
        // It is asked once more, now that this is all there is.
        self.layers[0].is_stalled = false;
    }

    /// The layer to ask next: of those that can go on, the one nearest to the body.
    fn next_layer(&self, input: &[u8]) -> Option<usize> {
        (0..self.layers.len()).rev().find(|&i| {
            let layer = &self.layers[i];
            let more = i == 0 && !input.is_empty();
            match (layer.input.is_empty(), layer.is_stalled) {
                _ if layer.is_finished => false,
                _ if layer.may_have_more => true,
                (true, _) => more || self.is_over_before(i),
                (false, is_stalled) => !is_stalled || more,
            }
        })
    }

    /// Whether nothing comes to the input of layer `i` any more.
    fn is_over_before(&self, i: usize) -> bool {
        match i.checked_sub(1) {
            Some(before) => self.layers[before].is_finished,
            None => self.input_is_over,
        }
    }

    /// Asks layer `i`, and returns how much it gave: to `room` if it is the last one, else to the
    /// next layer.
    fn ask(&mut self, i: usize, input: &mut &[u8], room: &mut [u8]) -> Result<usize, Undecodable> {
        let is_over = self.is_over_before(i);
        let (layers, next) = self.layers.split_at_mut(i + 1);
        let (layer, next) = (&mut layers[i], next.first_mut());
        let mut next = next.map(|next| (&mut next.is_stalled, &mut next.input));
        let room = match &mut next {
            Some((_, input)) => input.room(),
            None => room,
        };
        let wire = (i == 0).then_some(input);
        let has_wire = wire.as_ref().is_some_and(|wire| !wire.is_empty());
        let produced = if has_wire || !layer.input.is_empty() || layer.may_have_more {
            layer.decode(wire, room, is_over)?
        } else {
            layer.finish(room)?
        };
        layer.produced += produced as u64;
        if layer.produced > self.max_bytes {
            return Err(Undecodable::TooLarge {
                limit: self.max_bytes,
                seen: layer.produced,
            });
        }
        if let Some((is_stalled, input)) = next {
            input.fill(produced);
            // More has come, or it knows now that nothing does.
            *is_stalled &= produced == 0 && !layer.is_finished;
        }
        Ok(produced)
    }
}

impl Layer {
    /// `wire` is there for the first layer: what comes behind its kept input. `is_over`: that is
    /// all there is.
    fn decode(
        &mut self,
        wire: Option<&mut &[u8]>,
        room: &mut [u8],
        is_over: bool,
    ) -> Result<usize, Undecodable> {
        let mut nothing: &[u8] = &[];
        let wire = wire.unwrap_or(&mut nothing);
        let is_kept = !self.input.is_empty();
        if is_kept && self.is_stalled {
            // It has to see more in one piece.
            let (more, rest) = wire.split_at(wire.len().min(ROOM));
            self.input.push(more);
            *wire = rest;
        }
        let input = if is_kept { self.input.bytes() } else { *wire };
        let (step, seen) = (self.decoder.decode(input, room)?, input.len());
        if step.consumed > seen || step.produced > room.len() {
            return Err(Undecodable::Miscounted);
        }
        self.may_have_more = step.produced > 0;
        self.is_stalled = step == Progress::default() && seen > 0;
        if self.is_stalled {
            let sees_all = !is_kept || wire.is_empty();
            if is_over && sees_all {
                return Err(Undecodable::CutShort);
            }
            if seen >= MAX_UNTAKEN {
                return Err(Undecodable::Stuck);
            }
        }
        if is_kept {
            self.input.take(step.consumed);
        } else if self.is_stalled {
            // The wire's buffer is used for something else by the time more has come.
            self.input.push(wire);
            *wire = &[];
        } else {
            *wire = &wire[step.consumed..];
        }
        Ok(step.produced)
    }

    fn finish(&mut self, room: &mut [u8]) -> Result<usize, Undecodable> {
        let produced = self.decoder.finish(room)?;
        if produced > room.len() {
            return Err(Undecodable::Miscounted);
        }
        self.is_finished = produced == 0;
        Ok(produced)
    }
}

/// The input of a layer that it has not taken, in a buffer that is cleared once where it grows.
#[derive(Default)]
struct Untaken {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

impl Untaken {
    fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn take(&mut self, n: usize) {
        self.start += n;
    }

    /// Room behind what is there, for the layer before this one.
    fn room(&mut self) -> &mut [u8] {
        self.make_room(ROOM);
        &mut self.buf[self.end..self.end + ROOM]
    }

    /// So many bytes of the room were written.
    fn fill(&mut self, n: usize) {
        self.end += n;
    }

    fn push(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.buf[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    fn make_room(&mut self, n: usize) {
        if self.buf.len() - self.end < n {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buf.len() < self.end + n {
            self.buf.resize(self.end + n, 0);
        }
    }
}

impl From<io::Error> for Undecodable {
    fn from(error: io::Error) -> Self {
        Undecodable::Failed(error)
    }
}

impl Undecodable {
    /// As the readback is told.
    pub(crate) fn into_error(self, at: Circumstances) -> Error {
        const MALFORMED: ErrorKind = ErrorKind::Malformed;
        match self {
            Undecodable::Failed(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Error::from_io(ErrorKind::Truncated, error, at)
            }
            Undecodable::Failed(error) => Error::from_io(MALFORMED, error, at),
            Undecodable::CutShort => {
                let why = "the body ended inside of its coding";
                Error::from_text(ErrorKind::Truncated, why.to_owned(), at)
            }
            Undecodable::TooLarge { limit, seen } => {
                Error::from_violation(Violation::BodyTooLarge { limit, seen }, at)
            }
            Undecodable::Stuck => {
                let why = "a decoder takes nothing of the body, and gives nothing";
                Error::from_text(MALFORMED, why.to_owned(), at)
            }
            Undecodable::Miscounted => {
                let why = "a decoder counts more bytes than there are";
                Error::from_text(MALFORMED, why.to_owned(), at)
            }
            Undecodable::TooManyLayers(count) => {
                let why = format!("the body has {count} layers of coding, more than {MAX_LAYERS}");
                Error::from_text(MALFORMED, why, at)
            }
        }
    }
}

impl fmt::Debug for Decoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoding")
            .field("layers", &self.layers.len())
            .field("input_is_over", &self.input_is_over)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::error::{Phase, Sent};
    use crate::proto::testing::{Random, feeds};

    struct Identity;
    impl Decoder for Identity {
        fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
            let n = input.len().min(room.len());
            room[..n].copy_from_slice(&input[..n]);
            Ok(Progress {
                consumed: n,
                produced: n,
            })
        }
    }

    struct Xor(u8);
    impl Decoder for Xor {
        fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
            let step = Identity.decode(input, room)?;
            room[..step.produced].iter_mut().for_each(|b| *b ^= self.0);
            Ok(step)
        }
    }

    /// Gives each byte as many times.
    struct Times {
        times: u64,
        left: Option<(u8, u64)>,
    }
    impl Times {
        fn new(times: u64) -> Self {
            Self { times, left: None }
        }
        fn write(&mut self, room: &mut [u8]) -> usize {
            let Some((byte, left)) = &mut self.left else {
                return 0;
            };
            let n = usize::try_from(*left).unwrap_or(usize::MAX).min(room.len());
            room[..n].fill(*byte);
            *left -= n as u64;
            if *left == 0 {
                self.left = None;
            }
            n
        }
    }
    impl Decoder for Times {
        fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
            let mut step = Progress::default();
            while step.produced < room.len() {
                if self.left.is_none() {
                    let Some(byte) = input.get(step.consumed) else {
                        break;
                    };
                    step.consumed += 1;
                    self.left = Some((*byte, self.times));
                }
                step.produced += self.write(&mut room[step.produced..]);
            }
            Ok(step)
        }
        fn finish(&mut self, room: &mut [u8]) -> io::Result<usize> {
            Ok(self.write(room))
        }
    }

    /// Makes a byte of so many; what is less it does not take.
    struct Groups(usize);
    impl Decoder for Groups {
        fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
            let groups = input.chunks_exact(self.0).take(room.len());
            let mut step = Progress::default();
            for (group, to) in groups.zip(room) {
                *to = group[0];
                step.consumed += self.0;
                step.produced += 1;
            }
            Ok(step)
        }
    }

    /// Keeps all until the end, and gives it backwards, so many bytes at a time.
    struct Backwards(Vec<u8>, usize);
    impl Decoder for Backwards {
        fn decode(&mut self, input: &[u8], _: &mut [u8]) -> io::Result<Progress> {
            self.0.extend_from_slice(input);
            Ok(Progress {
                consumed: input.len(),
                produced: 0,
            })
        }
        fn finish(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(self.1);
            for to in &mut room[..n] {
                *to = self.0.pop().unwrap();
            }
            Ok(n)
        }
    }

    /// Counts its calls, and says this each time.
    struct Says(Progress, Rc<Cell<usize>>);
    impl Decoder for Says {
        fn decode(&mut self, _: &[u8], _: &mut [u8]) -> io::Result<Progress> {
            self.1.set(self.1.get() + 1);
            Ok(self.0)
        }
        fn finish(&mut self, room: &mut [u8]) -> io::Result<usize> {
            Ok(room.len() + 1)
        }
    }

    struct Fails(io::ErrorKind);
    impl Decoder for Fails {
        fn decode(&mut self, input: &[u8], _: &mut [u8]) -> io::Result<Progress> {
            match input[0] {
                b'!' => Err(self.0.into()),
                _ => Ok(Progress {
                    consumed: 1,
                    produced: 0,
                }),
            }
        }
        fn finish(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    type Layers = Vec<Box<dyn Decoder>>;

    /// All that comes of a body which comes in these pieces, in rooms of this size. At every
    /// `pause`th piece of output what is left of the input is kept, as in a pause.
    fn decoded(
        layers: Layers,
        max_bytes: u64,
        feed: &[&[u8]],
        (room, pause): (usize, usize),
    ) -> Result<Vec<u8>, Undecodable> {
        let mut decoding = Decoding::new(layers)?;
        decoding.limit(max_bytes);
        let mut room = vec![0; room];
        let (mut body, mut pieces) = (Vec::new(), 0);
        let inputs = feed.iter().map(|piece| (*piece, false));
        for (mut input, is_end) in inputs.chain([(&[][..], true)]) {
            if is_end {
                decoding.end_input();
            }
            loop {
                match decoding.decode(&mut input, &mut room)? {
                    Step::Piece(n) => {
                        body.extend_from_slice(&room[..n]);
                        pieces += 1;
                        if pause > 0 && pieces % pause == 0 {
                            decoding.keep(input);
                            input = &[];
                        }
                    }
                    Step::Busy => {}
                    Step::NeedsInput => {
                        assert!(input.is_empty() && !is_end);
                        break;
                    }
                    Step::Done => {
                        assert!(is_end);
                        break;
                    }
                }
            }
        }
        Ok(body)
    }

    const ALL: u64 = u64::MAX;

    #[test]
    fn layers_are_taken_off_at_every_split() {
        let wire = b"The quick brown fox jumps!!!";
        let twice: Vec<u8> = wire.iter().flat_map(|&b| [b, b]).collect();
        let backwards: Vec<u8> = wire.iter().rev().copied().collect();
        let one = |decoder: Box<dyn Decoder>| vec![decoder];
        type Row<'a> = (&'a str, &'a dyn Fn() -> Layers, Vec<u8>);
        #[rustfmt::skip]
        let rows: &[Row<'_>] = &[
            ("identity", &|| one(Box::new(Identity)), wire.to_vec()),
            ("xor twice", &|| vec![Box::new(Xor(7)), Box::new(Xor(7))], wire.to_vec()),
            ("doubled", &|| one(Box::new(Times::new(2))), twice.clone()),
            ("doubled and halved", &|| vec![Box::new(Times::new(2)), Box::new(Groups(2))], wire.to_vec()),
            ("in groups of four", &|| one(Box::new(Groups(4))), wire.iter().step_by(4).copied().collect()),
            ("in groups of groups", &|| vec![Box::new(Groups(2)), Box::new(Groups(7))], wire.iter().step_by(14).copied().collect()),
            ("given at the end", &|| one(Box::new(Backwards(Vec::new(), 3))), backwards.clone()),
            ("given at the end, twice", &|| vec![Box::new(Backwards(Vec::new(), 5)), Box::new(Backwards(Vec::new(), 2))], wire.to_vec()),
            ("given at the end, in groups", &|| vec![Box::new(Backwards(Vec::new(), 3)), Box::new(Groups(4))], backwards.iter().step_by(4).copied().collect()),
            ("as many layers as there may be", &|| (0..MAX_LAYERS).map(|_| Box::new(Identity) as _).collect(), wire.to_vec()),
        ];
        for (why, layers, expected) in rows {
            for feed in feeds(wire) {
                for around in [(7, 0), (8, 1), (9, 2), (64, 0), (64, 1)] {
                    let found = decoded(layers(), ALL, &feed, around);
                    assert_eq!(found.expect(why), *expected, "{why}: {feed:?}");
                }
            }
            let empty = decoded(layers(), ALL, &[], (8, 0));
            assert_eq!(empty.expect(why), b"", "{why}");
        }
    }

    #[test]
    fn long_bodies_pass_in_bounded_pieces() {
        let mut random = Random::new(29);
        let wire: Vec<u8> = (0..300_000).map(|_| random.byte()).collect();
        for round in 0..20 {
            let layers: Layers = vec![
                Box::new(Xor(3)),
                Box::new(Times::new(4)),
                Box::new(Identity),
                Box::new(Groups(4)),
                Box::new(Xor(3)),
            ];
            let feed: Vec<_> = match round {
                0 => vec![&wire[..]],
                1 => wire.chunks(ROOM).collect(),
                2 => wire.chunks(ROOM + 1).collect(),
                _ => wire.chunks(1 + random.below(70_000)).collect(),
            };
            let room = 1 + random.below(2 * ROOM);
            let found = decoded(layers, ALL, &feed, (room, round % 4)).expect("decodes");
            assert!(found == wire, "round {round}");
        }
    }

    #[test]
    fn what_a_layer_leaves_is_bounded() {
        // A byte less is always seen. What has come behind it may be seen as well, up to a room.
        for (group, passes) in [(MAX_UNTAKEN - 1, true), (MAX_UNTAKEN + ROOM + 1, false)] {
            let wire = vec![b'x'; 4 * group];
            for cut in [1000, ROOM, 3 * ROOM] {
                for before in [false, true] {
                    let mut layers: Layers = vec![Box::new(Groups(group))];
                    if before {
                        layers.insert(0, Box::new(Identity));
                    }
                    let feed: Vec<_> = wire.chunks(cut).collect();
                    match (decoded(layers, ALL, &feed, (100, 0)), passes) {
                        (Ok(body), true) => assert_eq!(body, b"xxxx"),
                        // Seen in one piece, more than may be left untaken is enough.
                        (Ok(_), false) => assert!(cut > group && !before),
                        (Err(Undecodable::Stuck), false) => {}
                        (found, _) => panic!("{group} {cut} {before}: {found:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_decoder_that_goes_nowhere_is_an_error_and_no_loop() {
        let calls = Rc::new(Cell::new(0));
        let says = |consumed, produced| -> Layers {
            let step = Progress { consumed, produced };
            vec![Box::new(Says(step, Rc::clone(&calls)))]
        };
        let wire = [0; 100_000];
        let found = decoded(says(0, 0), ALL, &[&wire], (64, 0));
        assert!(matches!(found, Err(Undecodable::Stuck)), "{found:?}");
        assert_eq!(calls.take(), 1);
        let pieces: Vec<_> = wire.chunks(1000).collect();
        let found = decoded(says(0, 0), ALL, &pieces, (64, 0));
        assert!(matches!(found, Err(Undecodable::Stuck)), "{found:?}");
        assert!(calls.take() < 20);
        let found = decoded(says(0, 0), ALL, &[b"abc"], (64, 0));
        assert!(matches!(found, Err(Undecodable::CutShort)), "{found:?}");
        // It takes nothing, and gives for ever.
        let found = decoded(says(0, 1), 1000, &[b"abc"], (64, 0));
        assert!(
            matches!(
                found,
                Err(Undecodable::TooLarge {
                    limit: 1000,
                    seen: 1001
                })
            ),
            "{found:?}"
        );
        for (consumed, produced) in [(4, 0), (0, 65), (usize::MAX, usize::MAX)] {
            let found = decoded(says(consumed, produced), ALL, &[b"abc"], (64, 0));
            assert!(matches!(found, Err(Undecodable::Miscounted)), "{found:?}");
        }
        // `finish` of it counts too many as well.
        let found = decoded(says(3, 0), ALL, &[b"abc"], (64, 0));
        assert!(matches!(found, Err(Undecodable::Miscounted)), "{found:?}");
    }

    #[test]
    fn the_limit_holds_for_every_layer() {
        let bomb = || Box::new(Times::new(1 << 40));
        let rows: [(&str, Layers); 3] = [
            ("alone", vec![bomb()]),
            (
                "in front of one that gives nothing",
                vec![bomb(), Box::new(Backwards(Vec::new(), 1))],
            ),
            ("behind another", vec![Box::new(Times::new(100)), bomb()]),
        ];
        for (why, layers) in rows {
            let found = decoded(layers, 1 << 20, &[b"x"], (4096, 0));
            let Err(Undecodable::TooLarge { limit, seen }) = found else {
                panic!("{why}: {found:?}");
            };
            assert_eq!(limit, 1 << 20, "{why}");
            assert!(seen <= limit + ROOM as u64, "{why}: {seen}");
        }
        for (limit, fits) in [(99, false), (100, true)] {
            let found = decoded(vec![Box::new(Times::new(100))], limit, &[b"x"], (64, 0));
            assert_eq!(found.is_ok(), fits);
        }
    }

    #[test]
    fn one_call_does_a_bounded_amount_of_work() {
        let layers: Layers = vec![
            Box::new(Times::new(1 << 40)),
            Box::new(Backwards(Vec::new(), 1)),
        ];
        let mut decoding = Decoding::new(layers).unwrap();
        let (mut input, mut room) = (&b"x"[..], [0; 64]);
        for _ in 0..10 {
            let step = decoding.decode(&mut input, &mut room).unwrap();
            assert_eq!(step, Step::Busy);
        }
        assert!(decoding.layers[0].produced <= (10 * MAX_CALLS * ROOM) as u64);
    }

    #[test]
    fn a_body_that_is_cut_short_is_told_from_one_that_is_wrong() {
        for feed in feeds(b"abcde") {
            let found = decoded(vec![Box::new(Groups(2))], ALL, &feed, (8, 0));
            assert!(matches!(found, Err(Undecodable::CutShort)), "{found:?}");
            let behind: Layers = vec![Box::new(Identity), Box::new(Groups(2))];
            let found = decoded(behind, ALL, &feed, (8, 0));
            assert!(matches!(found, Err(Undecodable::CutShort)), "{found:?}");
        }
        let at = || Circumstances {
            phase: Phase::Body,
            sent: Sent::Yes,
            resend_is_safe: true,
            reused: false,
            attempts: 1,
            origin: None,
            request: None,
            status: None,
            partial_body: Vec::new(),
        };
        let fails = |kind, wire: &[u8]| {
            let found = decoded(vec![Box::new(Fails(kind))], ALL, &[wire], (8, 0));
            found.expect_err("it fails").into_error(at())
        };
        let invalid = io::ErrorKind::InvalidData;
        for (error, kind) in [
            (fails(invalid, b"a!"), ErrorKind::Malformed),
            (
                fails(io::ErrorKind::UnexpectedEof, b"!"),
                ErrorKind::Truncated,
            ),
            (fails(invalid, b"abc"), ErrorKind::Truncated),
            (Undecodable::CutShort.into_error(at()), ErrorKind::Truncated),
            (Undecodable::Stuck.into_error(at()), ErrorKind::Malformed),
            (
                Undecodable::Miscounted.into_error(at()),
                ErrorKind::Malformed,
            ),
            (
                Undecodable::TooLarge { limit: 1, seen: 2 }.into_error(at()),
                ErrorKind::TooLarge,
            ),
        ] {
            assert_eq!(error.kind(), kind, "{error:#}");
            assert!(std::error::Error::source(&error).is_some());
        }
    }

    #[test]
    fn layers_are_counted() {
        let layers: Layers = (0..=MAX_LAYERS).map(|_| Box::new(Identity) as _).collect();
        let error = Decoding::new(layers).expect_err("one too many");
        assert!(matches!(error, Undecodable::TooManyLayers(6)));
    }
}
