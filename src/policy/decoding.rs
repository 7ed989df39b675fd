//! Removes the layers of coding from a body, in bounded pieces.
//!
//! Each [`Decoder`] is pulled: it is given input and an output buffer of fixed size, the room, and
//! returns how much it consumed and produced. Its output is the next layer's input, and the output
//! of the last layer is a piece of the body. The layer nearest to the body that can make progress
//! is always called first, so no layer's output piles up in front of the next, however well a body
//! was compressed.
//!
//! Input that a layer has not consumed is kept for it, across a pause and until more has arrived.
//! Everything that a server controls is bounded: the number of layers, the bytes that each
//! produces, the bytes received in all, the input that a layer leaves unconsumed, and the calls
//! before the engine's turn continues.

use std::fmt;
use std::io;

use crate::error::{Circumstances, Error, ErrorKind};
use crate::proto::Violation;

/// Removes one layer of coding from a body.
///
/// A decoder is pulled, one bounded piece at a time, so a body that decodes to gigabytes takes no
/// more memory than one output buffer. It keeps no input: bytes that it has not consumed are passed
/// to it again.
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
    /// is empty if all of it was consumed: a decoder that has produced something is called again
    /// until it produces nothing.
    ///
    /// Unconsumed bytes are passed again, followed by any that have arrived since. Consuming and
    /// producing nothing means that `input` is too short to make progress. If that happens with 16
    /// KiB of input, or when the input has ended, the body is given up.
    ///
    /// # Errors
    /// The body cannot be decoded. [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) means that the
    /// body was cut short, any other error that it is malformed.
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress>;

    /// Called when the input has ended and all of it was consumed. Writes the rest of the output to
    /// the beginning of `room`, one piece at a time; it is called again until it has written 0
    /// bytes. Decoders are not called at all for an empty body.
    ///
    /// # Errors
    /// As [`decode`](Self::decode): `UnexpectedEof` if the input ended too early.
    fn finish(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let _ = room;
        Ok(0)
    }
}

/// The result of one call of [`Decoder::decode`], in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes consumed from the beginning of the input.
    pub consumed: usize,
    /// Bytes written to the beginning of the room.
    pub produced: usize,
}

/// The most layers of coding that a body may have, as in curl. More would only serve to amplify.
pub(crate) const MAX_LAYERS: usize = 5;

/// Size of the output buffer of a layer, and thus the longest piece of a body.
pub(crate) const ROOM: usize = 16 * 1024;

/// The most input that a layer may leave unconsumed while it asks for more.
const MAX_UNCONSUMED: usize = 16 * 1024;

/// The most calls of decoders in one call of [`Decoding::decode`], whether or not they yield a
/// piece.
const MAX_CALLS: usize = 32;

/// The least work that a call of a decoder counts as, in bytes. A decoder may return single bytes.
const LEAST_WORK: usize = 256;

/// The work that a byte of input counts as, if it yields less. Tables of codes cost the most for
/// their length, and may be followed by nothing.
const WORK_OF_INPUT: usize = 4;

/// How many more bytes may be received than twice the limit for the body: a coding adds a little to
/// bytes that it cannot compress. What goes beyond is padding, which would otherwise have no end.
const MAX_OVERHEAD: u64 = 64 * 1024;

/// The decoding of one body.
pub(crate) struct Decoding {
    /// In the order in which they are removed.
    layers: Vec<Layer>,
    limit: Limit,
    /// Bytes of input received so far.
    received: u64,
    /// Work done since [`take_work`](Self::take_work) was last called, in bytes.
    work: usize,
    /// Whether any input has arrived.
    has_begun: bool,
    /// Whether no more input will arrive.
    input_is_over: bool,
}

/// The result of one call of [`Decoding::decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This many bytes of the body are in the room. There may be more.
    Piece(usize),
    /// Enough work was done for now, without a piece. Call again, in another turn.
    Busy,
    /// All input has been consumed or kept.
    NeedsInput,
    /// The body is complete.
    Done,
}

/// The most bytes that any layer may produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Of a body that is collected: [`Limits::max_body_bytes`](crate::Limits::max_body_bytes).
    Collected(u64),
    /// Of a streamed body, as its policy says.
    Streamed(u64),
}

impl Limit {
    fn bytes(self) -> u64 {
        match self {
            Limit::Collected(bytes) | Limit::Streamed(bytes) => bytes,
        }
    }

    /// Returns the error of a layer that has `seen` bytes, if these are too many.
    fn check(self, seen: u64) -> Result<(), Undecodable> {
        match seen > self.bytes() {
            true => Err(Undecodable::TooLarge { limit: self, seen }),
            false => Ok(()),
        }
    }

    fn check_received(self, received: u64) -> Result<(), Undecodable> {
        let most = self.bytes().saturating_mul(2).saturating_add(MAX_OVERHEAD);
        match received > most {
            true => self.check(received),
            false => Ok(()),
        }
    }

    fn exceeded(self, seen: u64) -> Violation {
        match self {
            Limit::Collected(limit) => Violation::BodyTooLarge { limit, seen },
            Limit::Streamed(limit) => Violation::DecodedTooLarge { limit, seen },
        }
    }
}

/// Why a body cannot be decoded.
#[derive(Debug)]
pub(crate) enum Undecodable {
    /// A decoder returned an error.
    Failed(io::Error),
    /// The body was cut short: the remaining input is too short for its decoder.
    CutShort,
    /// A layer exceeded the limit.
    TooLarge { limit: Limit, seen: u64 },
    /// A decoder neither consumes its input nor produces output.
    Stuck,
    /// A decoder reports more bytes than there are.
    Miscounted,
    /// The body has more layers than [`MAX_LAYERS`].
    TooManyLayers(usize),
}

struct Layer {
    decoder: Box<dyn Decoder>,
    /// Input that it has not consumed yet.
    input: Unconsumed,
    /// Its input is too short to make progress.
    is_stalled: bool,
    /// It produced something in its last call, and may hold back more.
    may_have_more: bool,
    /// It has produced everything.
    is_finished: bool,
    /// Bytes produced so far.
    produced: u64,
}

impl Decoding {
    /// Removes `decoders` in this order. `max_bytes` is the limit for a body that is streamed.
    pub(crate) fn new(
        decoders: Vec<Box<dyn Decoder>>,
        max_bytes: u64,
    ) -> Result<Self, Undecodable> {
        if decoders.len() > MAX_LAYERS {
            return Err(Undecodable::TooManyLayers(decoders.len()));
        }
        let layer = |decoder| Layer {
            decoder,
            input: Unconsumed::default(),
            is_stalled: false,
            may_have_more: false,
            is_finished: false,
            produced: 0,
        };
        Ok(Self {
            layers: decoders.into_iter().map(layer).collect(),
            limit: Limit::Streamed(max_bytes),
            received: 0,
            work: 0,
            has_begun: false,
            input_is_over: false,
        })
    }

    /// Limits how much each layer may produce, for a body that is collected.
    pub(crate) fn limit(&mut self, max_bytes: u64) {
        self.limit = Limit::Collected(max_bytes);
    }

    /// Returns how much work was done since the last call, in bytes: what the decoders of all
    /// layers have produced, or more where they have consumed much for little.
    pub(crate) fn take_work(&mut self) -> usize {
        std::mem::take(&mut self.work)
    }

    /// Continues decoding into `room`, first the kept input and then `input`, which is advanced
    /// past the bytes consumed. Call it until it [needs input](Step::NeedsInput); all of `input`
    /// has then been consumed or kept.
    pub(crate) fn decode(
        &mut self,
        input: &mut &[u8],
        room: &mut [u8],
    ) -> Result<Step, Undecodable> {
        self.has_begun |= !input.is_empty();
        let before = input.len();
        let step = self.step(input, room)?;
        self.received += (before - input.len()) as u64;
        self.limit.check_received(self.received)?;
        Ok(step)
    }

    fn step(&mut self, input: &mut &[u8], room: &mut [u8]) -> Result<Step, Undecodable> {
        let last = self.layers.len() - 1;
        for _ in 0..MAX_CALLS {
            let Some(layer) = self.next_layer(input) else {
                return Ok(if self.layers[last].is_finished {
                    Step::Done
                } else {
                    Step::NeedsInput
                });
            };
            let Progress { consumed, produced } = self.ask(layer, input, room)?;
            self.work += produced.max(LEAST_WORK).max(WORK_OF_INPUT * consumed);
            if layer == last && produced > 0 {
                return Ok(Step::Piece(produced));
            }
        }
        Ok(Step::Busy)
    }

    /// Keeps the rest of an input whose buffer is needed for something else, as in a pause.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        self.has_begun |= !rest.is_empty();
        // Checked when decoding goes on.
        self.received += rest.len() as u64;
        self.layers[0].input.push(rest);
    }

    /// Declares that no more input follows. Then call [`decode`](Self::decode) until it is
    /// [done](Step::Done).
    pub(crate) fn end_input(&mut self) {
        self.input_is_over = true;
        if !self.has_begun {
            // An empty body has no coding, whatever its fields say. Some servers send such
            // responses.
            for layer in &mut self.layers {
                layer.is_finished = true;
            }
        }
        // It is called once more, now that no further input will come.
        self.layers[0].is_stalled = false;
    }

    /// Returns the layer to call next: among those that can make progress, the one nearest to the
    /// body.
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

    /// Whether no more input will come to layer `i`.
    fn is_over_before(&self, i: usize) -> bool {
        match i.checked_sub(1) {
            Some(before) => self.layers[before].is_finished,
            None => self.input_is_over,
        }
    }

    /// Calls layer `i` and returns how much it consumed and produced. The output goes to `room` if
    /// it is the last layer, otherwise to the next layer.
    fn ask(
        &mut self,
        i: usize,
        input: &mut &[u8],
        room: &mut [u8],
    ) -> Result<Progress, Undecodable> {
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
        let progress = if has_wire || !layer.input.is_empty() || layer.may_have_more {
            layer.decode(wire, room, is_over)?
        } else {
            Progress {
                consumed: 0,
                produced: layer.finish(room)?,
            }
        };
        let produced = progress.produced;
        layer.produced += produced as u64;
        self.limit.check(layer.produced)?;
        if let Some((is_stalled, input)) = next {
            input.fill(produced);
            // More input has arrived, or the layer now learns that none will.
            *is_stalled &= produced == 0 && !layer.is_finished;
        }
        Ok(progress)
    }
}

impl Layer {
    /// For the first layer, `wire` is the input that follows its kept input. `is_over` means that
    /// no more will come.
    fn decode(
        &mut self,
        wire: Option<&mut &[u8]>,
        room: &mut [u8],
        is_over: bool,
    ) -> Result<Progress, Undecodable> {
        let mut nothing: &[u8] = &[];
        let wire = wire.unwrap_or(&mut nothing);
        let is_kept = !self.input.is_empty();
        if is_kept && self.is_stalled {
            // It has to see more input in one piece.
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
            if seen >= MAX_UNCONSUMED {
                return Err(Undecodable::Stuck);
            }
        }
        if is_kept {
            self.input.take(step.consumed);
        } else if self.is_stalled {
            // The wire's buffer will have been reused by the time more input arrives.
            self.input.push(wire);
            *wire = &[];
        } else {
            *wire = &wire[step.consumed..];
        }
        Ok(step)
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

/// The unconsumed input of a layer. Its buffer is zeroed only when it grows.
#[derive(Default)]
struct Unconsumed {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

impl Unconsumed {
    fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn take(&mut self, n: usize) {
        self.start += n;
    }

    /// Returns free space after the content, for the layer before this one.
    fn room(&mut self) -> &mut [u8] {
        self.make_room(ROOM);
        &mut self.buf[self.end..self.end + ROOM]
    }

    /// Adds the first `n` bytes of the free space to the content.
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
    /// Converts it to the error for the readback.
    pub(crate) fn into_error(self, at: Circumstances) -> Error {
        const MALFORMED: ErrorKind = ErrorKind::Malformed;
        match self {
            Undecodable::Failed(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Error::from_io(ErrorKind::Truncated, error, at)
            }
            Undecodable::Failed(error) => Error::from_io(MALFORMED, error, at),
            Undecodable::CutShort => {
                let why = "the body ended within its coding";
                Error::from_text(ErrorKind::Truncated, why.to_owned(), at)
            }
            Undecodable::TooLarge { limit, seen } => {
                Error::from_violation(limit.exceeded(seen), at)
            }
            Undecodable::Stuck => {
                let why = "a decoder neither consumes nor produces anything";
                Error::from_text(MALFORMED, why.to_owned(), at)
            }
            Undecodable::Miscounted => {
                let why = "a decoder reported more bytes than there are";
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

    /// Produces each byte this many times.
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

    /// Produces one byte for each group of this size, and does not consume an incomplete group.
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

    /// Keeps everything until the end, then produces it backwards, this many bytes at a time.
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

    /// Counts its calls, and always returns the same result.
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

    /// Returns everything decoded from a body that arrives in these pieces, with rooms of this
    /// size. At every `pause`th piece of output the rest of the input is kept, as in a pause.
    fn decoded(
        layers: Layers,
        max_bytes: u64,
        feed: &[&[u8]],
        (room, pause): (usize, usize),
    ) -> Result<Vec<u8>, Undecodable> {
        let mut decoding = Decoding::new(layers, max_bytes)?;
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
            ("produced at the end", &|| one(Box::new(Backwards(Vec::new(), 3))), backwards.clone()),
            ("produced at the end, twice", &|| vec![Box::new(Backwards(Vec::new(), 5)), Box::new(Backwards(Vec::new(), 2))], wire.to_vec()),
            ("produced at the end, in groups", &|| vec![Box::new(Backwards(Vec::new(), 3)), Box::new(Groups(4))], backwards.iter().step_by(4).copied().collect()),
            ("the most layers allowed", &|| (0..MAX_LAYERS).map(|_| Box::new(Identity) as _).collect(), wire.to_vec()),
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
        // One byte less always fits. Bytes after it may be visible too, up to the size of a room.
        for (group, passes) in [
            (MAX_UNCONSUMED - 1, true),
            (MAX_UNCONSUMED + ROOM + 1, false),
        ] {
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
                        // A group may exceed the limit if it is visible in one piece.
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
        // It consumes nothing and produces without end.
        let found = decoded(says(0, 1), 1000, &[b"abc"], (64, 0));
        assert!(
            matches!(
                found,
                Err(Undecodable::TooLarge {
                    limit: Limit::Streamed(1000),
                    seen: 1001
                })
            ),
            "{found:?}"
        );
        for (consumed, produced) in [(4, 0), (0, 65), (usize::MAX, usize::MAX)] {
            let found = decoded(says(consumed, produced), ALL, &[b"abc"], (64, 0));
            assert!(matches!(found, Err(Undecodable::Miscounted)), "{found:?}");
        }
        // Its `finish` reports too many bytes as well.
        let found = decoded(says(3, 0), ALL, &[b"abc"], (64, 0));
        assert!(matches!(found, Err(Undecodable::Miscounted)), "{found:?}");
    }

    #[test]
    fn the_limit_holds_for_every_layer() {
        let bomb = || Box::new(Times::new(1 << 40));
        let rows: [(&str, Layers); 3] = [
            ("alone", vec![bomb()]),
            (
                "in front of one that produces nothing",
                vec![bomb(), Box::new(Backwards(Vec::new(), 1))],
            ),
            ("behind another", vec![Box::new(Times::new(100)), bomb()]),
        ];
        for (why, layers) in rows {
            let found = decoded(layers, 1 << 20, &[b"x"], (4096, 0));
            let Err(Undecodable::TooLarge { limit, seen }) = found else {
                panic!("{why}: {found:?}");
            };
            assert_eq!(limit, Limit::Streamed(1 << 20), "{why}");
            assert!(seen <= limit.bytes() + ROOM as u64, "{why}: {seen}");
        }
        for (limit, fits) in [(99, false), (100, true)] {
            let found = decoded(vec![Box::new(Times::new(100))], limit, &[b"x"], (64, 0));
            assert_eq!(found.is_ok(), fits);
        }
    }

    #[test]
    fn the_limit_for_what_is_received_leaves_room_for_a_coding() {
        struct Ignores;
        impl Decoder for Ignores {
            fn decode(&mut self, input: &[u8], _: &mut [u8]) -> io::Result<Progress> {
                Ok(Progress {
                    consumed: input.len(),
                    produced: 0,
                })
            }
        }
        let most = 2 * 1000 + MAX_OVERHEAD as usize;
        for (len, fits) in [(most, true), (most + 1, false)] {
            let wire = vec![b'x'; len];
            for (cut, pause) in [(len, 0), (1000, 0), (1, 0)] {
                let feed: Vec<_> = wire.chunks(cut).collect();
                match decoded(vec![Box::new(Ignores)], 1000, &feed, (64, pause)) {
                    Ok(body) => assert!(fits && body.is_empty(), "{len} {cut}"),
                    Err(Undecodable::TooLarge { limit, seen }) => {
                        assert!(!fits, "{len} {cut}");
                        assert_eq!((limit, seen), (Limit::Streamed(1000), len as u64));
                    }
                    Err(other) => panic!("{len} {cut}: {other:?}"),
                }
            }
        }
        // What a pause keeps is counted, too.
        let mut decoding = Decoding::new(vec![Box::new(Ignores)], 1000).unwrap();
        let wire = vec![b'x'; most];
        decoding.keep(&wire);
        let mut room = [0; 64];
        let step = decoding.decode(&mut &[][..], &mut room).unwrap();
        assert_eq!(step, Step::NeedsInput);
        assert!(decoding.decode(&mut &b"x"[..], &mut room).is_err());
        // Without a limit, there is none.
        let wire = vec![b'x'; 1 << 20];
        assert!(decoded(vec![Box::new(Ignores)], ALL, &[&wire], (64, 0)).is_ok());
    }

    #[test]
    fn the_work_of_all_layers_counts() {
        let layers: Layers = vec![
            Box::new(Times::new(1 << 40)),
            Box::new(Backwards(Vec::new(), 1)),
        ];
        let mut decoding = Decoding::new(layers, ALL).unwrap();
        let (mut input, mut room) = (&b"x"[..], [0; 64]);
        let step = decoding.decode(&mut input, &mut room).unwrap();
        assert_eq!(step, Step::Busy);
        // Every other call is that of the second layer, which consumes what the first produced.
        let expected = MAX_CALLS / 2 * (ROOM + WORK_OF_INPUT * ROOM);
        assert_eq!((decoding.take_work(), decoding.take_work()), (expected, 0));
    }

    #[test]
    fn one_call_does_a_bounded_amount_of_work() {
        let layers: Layers = vec![
            Box::new(Times::new(1 << 40)),
            Box::new(Backwards(Vec::new(), 1)),
        ];
        let mut decoding = Decoding::new(layers, ALL).unwrap();
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
                Limit::Collected(1).check(2).unwrap_err().into_error(at()),
                ErrorKind::TooLarge,
            ),
            (
                Limit::Streamed(1).check(2).unwrap_err().into_error(at()),
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
        let error = Decoding::new(layers, ALL).expect_err("one too many");
        assert!(matches!(error, Undecodable::TooManyLayers(6)));
    }
}
