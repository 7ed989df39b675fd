//! What is sent: the queue that senders fill on any thread, and the engine empties.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::body::{BodySource, Supply};
use crate::websocket::Message;
use crate::websocket::frame::{
    MAX_CONTROL, MAX_HEADER, Opcode, copy_masked, header_len, is_sendable, write_header,
};
use crate::websocket::reader::NO_CODE;

/// Sends on a WebSocket, from any thread: from a readback, the handler of another event, or a task.
/// Clones send on the same one.
///
/// It can be used before the WebSocket is open. What is sent until then waits, as does what is sent
/// faster than the connection accepts it, in a queue with a
/// [bound](crate::WebSocket::max_queued).
///
/// ```
/// use httpstream::websocket::SendError;
/// use httpstream::{Context, Flow, Message, WebSocket};
///
/// let chat = WebSocket::new(|_: &mut (), _: Message<'_>, _: &mut Context<'_, ()>| Flow::Stream);
/// let sender = chat.sender();
/// assert_eq!(sender.send("hello"), Ok(()));
/// assert!(sender.queued() > 0, "it is not open yet");
///
/// drop(chat);
/// assert_eq!(sender.send("hello"), Err(SendError::Gone));
/// ```
pub struct WebSocketSender(Arc<Shared>);

/// Why a message is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The queue holds [`max_queued`](crate::WebSocket::max_queued) bytes or more.
    Full,
    /// The WebSocket is over, or is being closed.
    Gone,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too much waits to be sent (max_queued)",
            Self::Gone => "the WebSocket is over",
        })
    }
}

impl StdError for SendError {}

impl WebSocketSender {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.lock().senders += 1;
        Self(Arc::clone(shared))
    }

    /// Queues a message. A text is sent as a text message, and bytes as a binary one:
    /// `sender.send("hello")`, `sender.send(&bytes[..])`. It is sent in one frame, without copying
    /// it if it is owned. [`Message::Close`] does what [`close`](Self::close) does.
    ///
    /// If this is called in a turn of the engine, the message goes out in the same turn.
    ///
    /// # Errors
    /// [`SendError::Full`] if the queue already holds as many bytes as it may. Every message is
    /// accepted if less is queued, however long it is. [`SendError::Gone`] if the WebSocket is
    /// over, or is being closed by either side.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), SendError> {
        let (opcode, payload) = match message.into() {
            Message::Text(text) => (Opcode::Text, text.into_owned().into_bytes()),
            Message::Binary(bytes) => (Opcode::Binary, bytes.into_owned()),
            Message::Close(code, reason) => return self.0.close(code, &reason),
        };
        self.0.push(Frame { opcode, payload })
    }

    /// Queues a ping with a payload of at most 125 bytes; what is longer is cut off (RFC 6455
    /// §5.5.2). The server answers with a pong, which is not passed on.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn ping(&self, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.0.ping(payload.as_ref())
    }

    /// Closes the WebSocket: what is queued is sent, then a Close frame. The server answers it, and
    /// may send messages until then. If it does not answer within ten seconds, the WebSocket ends
    /// with [`Timeout`](crate::ErrorKind::Timeout).
    ///
    /// The usual code is 1000; 3000 to 4999 are for applications (RFC 6455 §7.4). A code that must
    /// not be sent, such as 1005, is left out, with the reason. A reason longer than 123 bytes is
    /// cut off. Has no effect if the WebSocket is being closed. If it is over, and its chain opens
    /// it again, it is closed then.
    pub fn close(&self, code: u16, reason: &str) {
        let _ = self.0.close(code, reason);
    }

    /// Returns how many bytes wait to be sent, frame headers included. They are counted until they
    /// are passed to the connection, and after the end of the WebSocket there are none.
    pub fn queued(&self) -> usize {
        self.0.lock().queued
    }

    /// Waits until a message can be sent: until less than
    /// [`max_queued`](crate::WebSocket::max_queued) is queued.
    ///
    /// # Errors
    /// [`SendError::Gone`] if the WebSocket is over, or is being closed.
    pub async fn room(&self) -> Result<(), SendError> {
        poll_fn(|cx| {
            let mut queue = self.0.lock();
            match queue.check() {
                Err(SendError::Full) => {
                    let waker = cx.waker();
                    let waiting = &mut queue.waiting;
                    if !waiting.iter().any(|it| it.will_wake(waker)) {
                        waiting.push(waker.clone());
                    }
                    Poll::Pending
                }
                result => Poll::Ready(result),
            }
        })
        .await
    }

    /// Returns the subprotocol that the server has chosen, of those that the request has
    /// [offered](crate::WebSocket::protocols). `None` if it has chosen none, or the WebSocket is
    /// not open.
    pub fn protocol(&self) -> Option<String> {
        self.0.lock().protocol.as_deref().map(str::to_owned)
    }
}

impl Clone for WebSocketSender {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for WebSocketSender {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.senders -= 1;
        let is_last = queue.senders == 0 && queue.is_unread;
        drop(queue);
        if is_last {
            let _ = self.0.close(1000, "");
        }
    }
}

impl fmt::Debug for WebSocketSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketSender")
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

/// The queue of one WebSocket, shared by its senders, its readback and its source.
pub(super) struct Shared(Mutex<Queue>);

pub(super) struct Queue {
    stage: Stage,
    /// How to close it as soon as it is open again: it was closed in between.
    closes_next: Option<Box<(u16, String)>>,
    /// What is to be sent. `None` if there is nothing.
    outgoing: Option<Box<Frames>>,
    /// The bytes of all data frames, pings included, as far as they have not been written.
    queued: usize,
    pub(super) max_queued: usize,
    masks: Masks,
    /// Wakes the engine. It is there when the engine has found nothing to send.
    engine: Option<Waker>,
    /// Tasks that wait for room.
    waiting: Vec<Waker>,
    protocol: Option<Box<str>>,
    senders: usize,
    /// Nobody reads any more, so the end of the senders is the end of the WebSocket.
    is_unread: bool,
}

/// How many pings are answered at most while nothing can be sent. Of more, the last ones are: a
/// single answer to the last one would do (RFC 6455 §5.5.3), but some servers count. A server that
/// floods us with pings makes nothing grow.
const MAX_PONGS: usize = 16;

/// The frames that are to be sent.
#[derive(Default)]
struct Frames {
    waiting: VecDeque<Frame>,
    /// The payloads of the pings that are to be answered, at most [`MAX_PONGS`].
    pongs: VecDeque<Vec<u8>>,
    /// The frame that is being written.
    current: Option<Current>,
}

impl Frames {
    /// Returns the frame that is being written, or begins the next one.
    fn current(&mut self, masks: &mut Masks) -> Option<&mut Current> {
        if self.current.is_none() {
            // A control frame may come between messages, and a pong is not to wait for them.
            let pong = self.pongs.pop_front().map(|payload| Frame {
                opcode: Opcode::Pong,
                payload,
            });
            let frame = pong.or_else(|| self.waiting.pop_front())?;
            self.current = Some(Current::new(frame, masks.next()));
        }
        self.current.as_mut()
    }

    /// Returns whether the frame that is being written, if any, is a Close frame.
    fn is_closing(&self) -> bool {
        let is_close = |current: &Current| current.frame.opcode == Opcode::Close;
        self.current.as_ref().is_some_and(is_close)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not open yet, or open.
    Open,
    /// A Close frame is queued, behind which nothing is sent.
    Closing,
    /// The Close frame is on its way.
    Closed,
    /// The connection has ended.
    Over,
}

/// A frame that is to be sent.
struct Frame {
    opcode: Opcode,
    payload: Vec<u8>,
}

impl Frame {
    fn len(&self) -> usize {
        header_len(self.payload.len()) + self.payload.len()
    }
}

/// A frame that is being written.
struct Current {
    header: [u8; MAX_HEADER],
    header_len: usize,
    mask: [u8; 4],
    frame: Frame,
    /// The bytes that have been written, of header and payload.
    written: usize,
}

impl Current {
    fn new(frame: Frame, mask: [u8; 4]) -> Self {
        let mut header = [0; MAX_HEADER];
        let header_len = write_header(frame.opcode, frame.payload.len(), mask, &mut header);
        Self {
            header,
            header_len,
            mask,
            frame,
            written: 0,
        }
    }

    fn is_written(&self) -> bool {
        self.written == self.header_len + self.frame.payload.len()
    }

    /// Writes as much as there is room for, and returns how much that is.
    fn write(&mut self, room: &mut [u8]) -> usize {
        let header = &self.header[self.written.min(self.header_len)..self.header_len];
        let of_header = header.len().min(room.len());
        room[..of_header].copy_from_slice(&header[..of_header]);
        self.written += of_header;
        let room = &mut room[of_header..];
        let at = self.written - self.header_len.min(self.written);
        let of_payload = match self.written < self.header_len {
            true => 0,
            false => room.len().min(self.frame.payload.len() - at),
        };
        let piece = &self.frame.payload[at..at + of_payload];
        copy_masked(&mut room[..of_payload], piece, self.mask, at);
        self.written += of_payload;
        of_header + of_payload
    }
}

/// The masks of one connection.
///
/// They must not be predictable from the ones before (RFC 6455 §10.3), so they are a keyed hash of
/// a counter. The keys come from the engine, and in a simulation from its seed.
#[derive(Default)]
struct Masks {
    keys: [u64; 2],
    drawn: u64,
}

impl Masks {
    fn next(&mut self) -> [u8; 4] {
        self.drawn += 1;
        let mut hasher = DefaultHasher::new();
        (self.keys, self.drawn).hash(&mut hasher);
        (hasher.finish() as u32).to_be_bytes()
    }
}

impl Queue {
    /// Returns whether a message is accepted.
    fn check(&self) -> Result<(), SendError> {
        match self.stage {
            Stage::Open if self.queued < self.max_queued => Ok(()),
            Stage::Open => Err(SendError::Full),
            Stage::Closing | Stage::Closed | Stage::Over => Err(SendError::Gone),
        }
    }

    fn push(&mut self, frame: Frame) {
        let frames = self.outgoing.get_or_insert_default();
        frames.waiting.push_back(frame);
    }

    /// Queues a Close frame, behind which nothing is sent.
    fn push_close(&mut self, code: u16, reason: &str) {
        let mut payload = Vec::new();
        if is_sendable(code) {
            payload.extend(code.to_be_bytes());
            let mut end = reason.len().min(MAX_CONTROL - payload.len());
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            payload.extend_from_slice(&reason.as_bytes()[..end]);
        }
        let opcode = Opcode::Close;
        self.push(Frame { opcode, payload });
        self.stage = Stage::Closing;
    }

    /// Drops the frames that are not being written.
    fn drop_frames(&mut self) {
        let Some(frames) = &mut self.outgoing else {
            return;
        };
        frames.pongs = VecDeque::new();
        for frame in std::mem::take(&mut frames.waiting) {
            if frame.opcode != Opcode::Close {
                self.queued -= frame.len();
            }
        }
    }

    /// Writes as much as there is room for, and returns how much that is.
    fn write(&mut self, room: &mut [u8]) -> usize {
        let mut written = 0;
        let Some(frames) = &mut self.outgoing else {
            return 0;
        };
        while written < room.len() {
            let Some(current) = frames.current(&mut self.masks) else {
                self.outgoing = None;
                break;
            };
            let n = current.write(&mut room[written..]);
            written += n;
            let opcode = current.frame.opcode;
            if opcode != Opcode::Pong && opcode != Opcode::Close {
                self.queued -= n;
            }
            if current.is_written() {
                frames.current = None;
                if opcode == Opcode::Close {
                    self.outgoing = None;
                    self.stage = Stage::Closed;
                    break;
                }
            }
        }
        written
    }

    /// Takes the tasks that wait for room, to be woken.
    fn take_waiting(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.waiting).into_iter()
    }
}

impl Shared {
    pub(super) fn new(max_queued: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Queue {
            stage: Stage::Open,
            outgoing: None,
            queued: 0,
            max_queued,
            masks: Masks::default(),
            engine: None,
            waiting: Vec::new(),
            protocol: None,
            closes_next: None,
            senders: 0,
            is_unread: false,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the engine, if it has found nothing to send. Not under the lock, because that may run
    /// code of the host.
    fn wake(mut queue: MutexGuard<'_, Queue>) {
        let engine = queue.engine.take();
        drop(queue);
        if let Some(engine) = engine {
            engine.wake();
        }
    }

    fn push(&self, frame: Frame) -> Result<(), SendError> {
        let mut queue = self.lock();
        queue.check()?;
        queue.queued += frame.len();
        queue.push(frame);
        Self::wake(queue);
        Ok(())
    }

    pub(super) fn ping(&self, payload: &[u8]) -> Result<(), SendError> {
        let payload = payload[..payload.len().min(MAX_CONTROL)].to_vec();
        let opcode = Opcode::Ping;
        self.push(Frame { opcode, payload })
    }

    fn close(&self, code: u16, reason: &str) -> Result<(), SendError> {
        let mut queue = self.lock();
        if queue.stage != Stage::Open {
            if queue.stage == Stage::Over {
                queue.closes_next = Some(Box::new((code, reason.to_owned())));
            }
            return Err(SendError::Gone);
        }
        queue.push_close(code, reason);
        let waiting = queue.take_waiting();
        Self::wake(queue);
        waiting.for_each(Waker::wake);
        Ok(())
    }

    /// Begins to send on a connection that is open now. What is left over from another one, if this
    /// is not the first, is never sent.
    pub(super) fn open(&self, keys: [u64; 2], protocol: Option<&str>) {
        let mut queue = self.lock();
        if queue.stage == Stage::Over {
            queue.stage = Stage::Open;
            if let Some(close) = queue.closes_next.take() {
                queue.push_close(close.0, &close.1);
            }
        }
        queue.masks = Masks { keys, drawn: 0 };
        queue.protocol = protocol.map(Box::from);
    }

    /// Answers a ping.
    pub(super) fn pong(&self, payload: &[u8]) {
        let mut queue = self.lock();
        if let Stage::Open | Stage::Closing = queue.stage {
            let pongs = &mut queue.outgoing.get_or_insert_default().pongs;
            if pongs.len() == MAX_PONGS {
                pongs.pop_front();
            }
            pongs.push_back(payload.to_vec());
            Self::wake(queue);
        }
    }

    /// Closes at once, because the server has closed with this code or has broken the protocol:
    /// what is queued is dropped. Has no effect if a Close frame has been sent.
    ///
    /// Returns false if the Close frame cannot be sent yet, because another frame is only partly
    /// written.
    pub(super) fn close_now(&self, code: u16) -> bool {
        let mut queue = self.lock();
        if let Stage::Closed | Stage::Over = queue.stage {
            return true;
        }
        let frames = queue.outgoing.as_deref();
        let is_in_frame = frames.is_some_and(|frames| frames.current.is_some());
        if !frames.is_some_and(Frames::is_closing) {
            queue.drop_frames();
            queue.push_close(if code == NO_CODE { 0 } else { code }, "");
        }
        let waiting = queue.take_waiting();
        Self::wake(queue);
        waiting.for_each(Waker::wake);
        !is_in_frame
    }

    /// Ends the WebSocket: its connection has ended, or it will never be opened.
    pub(super) fn end(&self) {
        let mut queue = self.lock();
        queue.stage = Stage::Over;
        (queue.outgoing, queue.queued, queue.protocol) = (None, 0, None);
        let engine = queue.engine.take();
        let waiting = queue.take_waiting();
        drop(queue);
        drop(engine);
        waiting.for_each(Waker::wake);
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().stage == Stage::Over
    }

    /// Records that messages are not read any more. The WebSocket is closed with its last sender.
    pub(super) fn on_unread(&self) {
        let mut queue = self.lock();
        queue.is_unread = true;
        let is_last = queue.senders == 0;
        drop(queue);
        if is_last {
            let _ = self.close(1000, "");
        }
    }
}

/// The source that the engine pulls from.
pub(super) struct Outgoing(pub(super) Arc<Shared>);

impl BodySource for Outgoing {
    fn size(&self) -> Option<u64> {
        None
    }

    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
        let mut queue = self.0.lock();
        if queue.stage == Stage::Closed {
            return Ok(Supply::End);
        }
        let written = queue.write(room);
        if written == 0 {
            queue.engine = Some(waker.clone());
            return Ok(Supply::Wait);
        }
        let has_room = queue.queued < queue.max_queued;
        let waiting = has_room.then(|| queue.take_waiting());
        drop(queue);
        waiting.into_iter().flatten().for_each(Waker::wake);
        Ok(Supply::Bytes(written))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A frame as it was read: opcode and payload.
    type Seen = (u8, Vec<u8>);

    /// Takes frames from the beginning of `wire`, which a server would be sent.
    fn unmask(mut wire: &[u8]) -> Vec<Seen> {
        let mut seen = Vec::new();
        while let [first, second, rest @ ..] = wire {
            assert_eq!((first & 0xf0, second & 0x80), (0x80, 0x80));
            let (len, rest) = match second & 0x7f {
                126 => (
                    u16::from_be_bytes(rest[..2].try_into().unwrap()).into(),
                    &rest[2..],
                ),
                127 => (
                    u64::from_be_bytes(rest[..8].try_into().unwrap()),
                    &rest[8..],
                ),
                len => (len.into(), rest),
            };
            let (mask, rest) = rest.split_at(4);
            let (payload, rest) = rest.split_at(len as usize);
            let bytes = payload.iter().zip(mask.iter().cycle());
            seen.push((first & 0xf, bytes.map(|(byte, mask)| byte ^ mask).collect()));
            wire = rest;
        }
        assert!(wire.is_empty());
        seen
    }

    /// Reads everything, with `most` bytes of room. Returns it, and what ends it.
    fn drain(shared: &Arc<Shared>, most: usize, waker: &Waker) -> (Vec<u8>, Supply) {
        let mut wire = Vec::new();
        let mut room = vec![0; most];
        loop {
            match Outgoing(Arc::clone(shared)).read(&mut room, waker).unwrap() {
                Supply::Bytes(n) => wire.extend_from_slice(&room[..n]),
                end => return (wire, end),
            }
        }
    }

    fn seen(shared: &Arc<Shared>) -> Vec<Seen> {
        unmask(&drain(shared, 100, Waker::noop()).0)
    }

    fn text(text: &str) -> Seen {
        (1, text.as_bytes().to_vec())
    }

    #[test]
    fn frames_are_the_same_whatever_room_there_is() {
        let lens = [0, 1, 125, 126, 300, 65_535, 65_536, 70_000];
        let mut wires = Vec::new();
        for room in [1, 2, 3, 7, 13, 14, 15, 1000, 1 << 20] {
            let shared = Shared::new(1 << 20);
            let sender = WebSocketSender::new(&shared);
            shared.open([1, 2], None);
            for len in lens {
                sender.send(vec![len as u8; len]).unwrap();
            }
            sender.close(1000, "bye");
            let (wire, end) = drain(&shared, room, Waker::noop());
            assert_eq!((end, sender.queued()), (Supply::End, 0));
            wires.push(wire);
        }
        let mut expected: Vec<Seen> = lens.map(|len| (2, vec![len as u8; len])).into();
        expected.push((8, b"\x03\xe8bye".to_vec()));
        assert_eq!(unmask(&wires[0]), expected);
        assert!(
            wires.iter().all(|wire| *wire == wires[0]),
            "equal keys, equal masks"
        );
    }

    #[test]
    fn masks_depend_on_the_keys_and_differ() {
        let masks = |keys| {
            let mut masks = Masks { keys, drawn: 0 };
            std::array::from_fn::<_, 100, _>(|_| masks.next())
        };
        let (one, other) = (masks([1, 2]), masks([1, 3]));
        assert_eq!(one, masks([1, 2]));
        let mut all = [one, other].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 200);
    }

    #[test]
    fn a_message_is_accepted_until_the_queue_is_full() {
        let shared = Shared::new(100);
        let sender = WebSocketSender::new(&shared);
        assert_eq!(sender.send(vec![0; 93]), Ok(()));
        assert_eq!(sender.queued(), 99);
        // Less than the bound is queued, so it does not matter how long this one is.
        assert_eq!(sender.send(vec![0; 1000]), Ok(()));
        assert_eq!(sender.send("x"), Err(SendError::Full));
        assert_eq!(sender.ping("x"), Err(SendError::Full));
        let mut room = [0; 1008];
        let mut outgoing = Outgoing(Arc::clone(&shared));
        let read = outgoing.read(&mut room, Waker::noop()).unwrap();
        assert_eq!((read, sender.queued()), (Supply::Bytes(1008), 99));
        assert_eq!(sender.send("x"), Ok(()));
    }

    #[test]
    fn the_engine_is_woken_once_it_has_found_nothing() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let shared = Shared::new(100);
        let sender = WebSocketSender::new(&shared);
        sender.send("before it is open").unwrap();
        shared.open([1, 2], Some("chat"));
        assert_eq!(sender.protocol().as_deref(), Some("chat"));
        assert_eq!(drain(&shared, 100, &waker).1, Supply::Wait);
        for expected in 1..4 {
            sender.send("a").unwrap();
            sender.send("b").unwrap();
            assert_eq!(count.0.load(Ordering::SeqCst), expected);
            assert_eq!(
                unmask(&drain(&shared, 100, &waker).0),
                [text("a"), text("b")]
            );
        }
        shared.pong(b"x");
        assert_eq!(count.0.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn pongs_come_before_messages_and_only_the_last_are_sent() {
        let shared = Shared::new(1000);
        let sender = WebSocketSender::new(&shared);
        sender.send("a").unwrap();
        sender.send("b").unwrap();
        for i in 0..100 {
            shared.pong(&[i]);
        }
        let mut expected: Vec<_> = (84..100).map(|i| (10, vec![i])).collect();
        expected.extend([text("a"), text("b")]);
        assert_eq!(seen(&shared), expected);
        assert_eq!(sender.queued(), 0);
    }

    #[test]
    fn a_close_between_two_connections_closes_the_next_one() {
        let shared = Shared::new(1000);
        let sender = WebSocketSender::new(&shared);
        shared.end();
        sender.close(1000, "bye");
        assert_eq!(sender.send("x"), Err(SendError::Gone));
        shared.open([1, 2], None);
        assert_eq!(seen(&shared), [(8, vec![3, 232, b'b', b'y', b'e'])]);
        assert_eq!(sender.send("x"), Err(SendError::Gone));
        // The one after that is open.
        shared.end();
        shared.open([1, 2], None);
        assert_eq!(sender.send("x"), Ok(()));
    }

    #[test]
    fn a_frame_that_has_begun_is_completed() {
        let shared = Shared::new(1000);
        let sender = WebSocketSender::new(&shared);
        sender.send("hello").unwrap();
        sender.send("dropped").unwrap();
        let mut outgoing = Outgoing(Arc::clone(&shared));
        let mut wire = [0; 8];
        let read = outgoing.read(&mut wire, Waker::noop()).unwrap();
        assert_eq!(read, Supply::Bytes(8));
        shared.pong(b"dropped, too");
        assert!(!shared.close_now(1001));
        let (rest, end) = drain(&shared, 100, Waker::noop());
        assert_eq!((end, sender.queued()), (Supply::End, 0));
        let wire = [&wire[..], &rest].concat();
        assert_eq!(unmask(&wire), [text("hello"), (8, vec![3, 233])]);
        assert_eq!(sender.send("x"), Err(SendError::Gone));
    }

    #[test]
    fn close_frames_have_what_may_be_sent() {
        let long = "ä".repeat(100);
        let cut = [&[3, 232][..], "ä".repeat(61).as_bytes()].concat();
        let rows: [(u16, &str, &[u8]); 5] = [
            (1000, "", &[3, 232]),
            (4000, "x", &[15, 160, b'x']),
            (1005, "left out", &[]),
            (0, "left out", &[]),
            (1000, &long, &cut),
        ];
        for (code, reason, payload) in rows {
            let shared = Shared::new(100);
            let sender = WebSocketSender::new(&shared);
            sender.close(code, reason);
            sender.close(1001, "a second one");
            assert_eq!(sender.send("x"), Err(SendError::Gone));
            assert_eq!(seen(&shared), [(8, payload.to_vec())], "{code} {reason}");
        }
        // The server's code is repeated, and so is its absence.
        for (code, payload) in [(1001, &[3, 233][..]), (NO_CODE, &[])] {
            let shared = Shared::new(100);
            assert!(shared.close_now(code));
            assert_eq!(seen(&shared), [(8, payload.to_vec())]);
        }
    }

    #[test]
    fn what_is_over_can_be_opened_again() {
        let shared = Shared::new(100);
        let sender = WebSocketSender::new(&shared);
        sender.send("never sent").unwrap();
        shared.end();
        assert!(shared.is_over());
        assert_eq!(
            (sender.send("x"), sender.queued()),
            (Err(SendError::Gone), 0)
        );
        shared.open([1, 2], None);
        sender.send("sent").unwrap();
        assert_eq!(seen(&shared), [text("sent")]);
    }

    #[test]
    fn the_last_sender_closes_only_what_is_not_read() {
        let shared = Shared::new(100);
        let (one, other) = (WebSocketSender::new(&shared), WebSocketSender::new(&shared));
        drop(one.clone());
        shared.on_unread();
        drop(one);
        assert_eq!(seen(&shared), []);
        drop(other);
        assert_eq!(seen(&shared), [(8, vec![3, 232])]);

        let shared = Shared::new(100);
        drop(WebSocketSender::new(&shared));
        assert_eq!(seen(&shared), []);
        shared.on_unread();
        assert_eq!(seen(&shared), [(8, vec![3, 232])]);
    }
}
