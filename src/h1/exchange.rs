//! One request and its response: how much of the request has been written, and what happens to the
//! response's body.
//!
//! ```text
//!  Whole ───────────── the last byte is written ─────────────► Sent
//!    ▲  └───── an early response refuses the rest ──────────┐
//!    │                                                      ▼
//!    ├── 100 (Continue), or enough waited ─┐               Cut
//!    │                                     │                ▲
//!  Head ──► AwaitingContinue ──────────────┘                │
//!    └──────────┴───────── a final response came first ─────┘
//! ```
//!
//! A body that is read from a source while it is sent goes through the same states, and may have to
//! wait for its source in between: see [`Upload`].

use http::StatusCode;

use crate::h1::layout::{self, Body, Layout};
use crate::request::Request;

/// One request with its response. `T` is the owner's key for it.
#[derive(Debug)]
pub(crate) struct Exchange<T> {
    pub(crate) tag: T,
    pub(crate) request: Request,
    /// The number of the owner's block of fields that follows the request's own fields.
    block: u16,
    /// Whether the request's `Expect` line, if it has one, is sent.
    expects: bool,
    /// Whether the request caps the speed at which it is written.
    is_capped: bool,
    pub(crate) taking: Taking,
    pub(crate) upload: Upload,
    /// Bytes of the request written so far.
    written: usize,
    /// Total length of the request in bytes; as far as it is known, if its body has a source.
    bytes: usize,
    /// When the request was put on the connection, in microseconds on the owner's clock.
    begun: u64,
    pub(crate) times: Times,
}

/// How far a request has been written; [`Exchange::written`] returns the bytes.
///
/// The body of a request may have a source, from which it is read while it is sent. The owner then
/// holds the bytes, and says how many there are. Such a request has states of its own, in this same
/// enum, so that others are told apart by one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    // First those in which there is something to write.
    /// The whole request is being written.
    Whole,
    /// The head is being written. The body waits for a 100 (Continue) (RFC 9110 §10.1.1).
    Head,
    /// As [`Head`](Self::Head), of a request whose body has a source.
    SuppliedHead,
    /// It is being written, and its source has more bytes, or may have.
    SupplyOpen,
    /// Its source has no more bytes. The last ones may still have to be written.
    SupplyEnded,
    /// The whole request has been written.
    Sent,
    /// The head has been written, and the body is waiting.
    AwaitingContinue,
    /// As [`AwaitingContinue`](Self::AwaitingContinue), of a request whose body has a source.
    SupplyAwaitsContinue,
    /// Everything has been written, and its source has nothing yet.
    SupplyWaiting,
    /// Nothing more will be written: the peer has refused the rest.
    Cut,
}

/// The part of a request that can be written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Going {
    /// The bytes up to `writable`, of which `written` have been written. `body` is whether they
    /// include the body.
    Out {
        body: Body,
        written: usize,
        writable: usize,
    },
    /// What the owner holds of a request whose body has a source.
    Supply,
    /// Nothing: it has been written, or is waiting.
    Nothing,
    /// Nothing, now or later: the peer has refused the rest.
    Refused,
}

/// How a write changed the state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    /// Not at all: there was nothing left to write.
    None,
    /// More is still to be written.
    Partly,
    /// Its body now waits for a 100 (Continue).
    AwaitsContinue,
    /// Everything that was read from the source of its body has been written.
    NeedsSupply,
    /// It has been written completely.
    Sent,
}

/// What happens to the body of the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Taking {
    /// It is collected.
    #[default]
    Collect,
    /// It is passed on piece by piece.
    Stream,
    /// It is read to its end and dropped.
    Discard,
}

/// When each step was completed, in microseconds after the request was put on the connection, plus
/// one. 0 means "not (yet)".
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) resolve: u32,
    pub(crate) connect: u32,
    pub(crate) tls: u32,
    pub(crate) sent: u32,
    pub(crate) first_byte: u32,
}

impl<T> Exchange<T> {
    /// Creates an exchange of which nothing has been written. `block` is the fields sent with the
    /// request, and `number` is the owner's number for them. `expects` is whether its `Expect`
    /// line, if it has one, is sent.
    #[inline(always)]
    pub(crate) fn new(
        tag: T,
        request: Request,
        (number, block): (u16, &[u8]),
        expects: bool,
        begun: u64,
    ) -> Self {
        let expects = expects && request.expects_continue();
        let bytes = layout::len_of(&request, block, expects);
        Self {
            tag,
            block: number,
            expects,
            is_capped: false,
            taking: Taking::Collect,
            upload: if expects { Upload::Head } else { Upload::Whole },
            written: 0,
            bytes,
            begun,
            times: Times::default(),
            request,
        }
    }

    /// Gives the body a source. `bytes` of the request, its head included, can be written before
    /// the source is read further.
    pub(crate) fn begin_supply(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.upload = match self.upload {
            Upload::Head => Upload::SuppliedHead,
            _ => Upload::SupplyOpen,
        };
    }

    /// Leaves out the `Expect` line, because there is no body to wait. Has an effect only before
    /// [`begin_supply`](Self::begin_supply).
    pub(crate) fn omit_expect(&mut self) {
        (self.expects, self.upload) = (false, Upload::Whole);
    }

    /// Records how many bytes of the request can be written before its source is read further, and
    /// what can be said of the source.
    pub(crate) fn on_supply(&mut self, bytes: usize, upload: Upload) {
        self.bytes = bytes;
        self.upload = upload;
    }

    /// Returns whether the owner holds the bytes that can be written now.
    pub(crate) fn is_supplied(&self) -> bool {
        matches!(
            self.upload,
            Upload::SuppliedHead | Upload::SupplyOpen | Upload::SupplyEnded
        )
    }

    /// Returns whether the request is held up by the source of its body, not by the peer.
    pub(crate) fn waits_for_supply(&self) -> bool {
        self.upload == Upload::SupplyWaiting
    }

    /// Caps the speed at which the request is written, if it says so. Before, there is no cap.
    pub(crate) fn cap_upload(&mut self) {
        let speeds = self.request.speeds();
        self.is_capped = speeds.is_some_and(|speeds| speeds.upload.is_some());
    }

    /// Returns the parts that outlive the exchange: the request, when it was put on the connection,
    /// and when its steps were completed.
    #[inline(always)]
    pub(crate) fn into_parts(self) -> (Request, u64, Times) {
        (self.request, self.begun, self.times)
    }

    /// Returns when the request was put on the connection, in microseconds on the owner's clock.
    #[inline]
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    /// Returns the part of the request that can be written now.
    #[inline(always)]
    pub(crate) fn going(&self) -> Going {
        if self.upload != Upload::Whole {
            return self.going_in_parts();
        }
        Going::Out {
            body: Body::Included,
            written: self.written,
            writable: self.bytes,
        }
    }

    fn going_in_parts(&self) -> Going {
        match self.upload {
            Upload::Whole | Upload::Head => Going::Out {
                body: Body::HeldBack,
                written: self.written,
                writable: self.writable(),
            },
            Upload::SuppliedHead | Upload::SupplyOpen | Upload::SupplyEnded => Going::Supply,
            Upload::SupplyAwaitsContinue
            | Upload::SupplyWaiting
            | Upload::AwaitingContinue
            | Upload::Sent => Going::Nothing,
            Upload::Cut => Going::Refused,
        }
    }

    /// Returns the slices that may be written now, including bytes already written.
    #[inline(always)]
    pub(crate) fn layout<'a>(&'a self, block: impl FnOnce(u16) -> &'a [u8]) -> Layout<'a> {
        let body = match self.upload {
            Upload::Head | Upload::AwaitingContinue => Body::HeldBack,
            _ => Body::Included,
        };
        Layout::new(&self.request, block(self.block), self.expects, body)
    }

    /// Returns how many bytes may be written now, including those already written.
    #[inline]
    pub(crate) fn writable(&self) -> usize {
        match self.upload {
            Upload::Head | Upload::AwaitingContinue => self.bytes - self.request.wire_body().len(),
            _ => self.bytes,
        }
    }

    /// Returns how many bytes of the request have been written.
    #[inline]
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Returns whether the request caps the speed at which it is written. If so, it is written only
    /// at the front, and alone.
    #[inline]
    pub(crate) fn is_capped(&self) -> bool {
        self.is_capped
    }

    /// Returns whether part of the request can be written now.
    #[inline]
    pub(crate) fn has_unwritten(&self) -> bool {
        matches!(
            self.upload,
            Upload::Whole
                | Upload::Head
                | Upload::SuppliedHead
                | Upload::SupplyOpen
                | Upload::SupplyEnded
        )
    }

    #[inline]
    pub(crate) fn is_sent(&self) -> bool {
        self.upload == Upload::Sent
    }

    /// Returns whether any byte of the response has arrived.
    #[inline]
    pub(crate) fn is_answered(&self) -> bool {
        self.times.first_byte > 0
    }

    /// Records that up to `bytes` more have been written, and returns how many of them belong to
    /// this request. `is_flushed` means that no bytes written earlier are still buffered on the way
    /// to the socket, so a request that has been written completely counts as sent.
    #[inline]
    pub(crate) fn on_written(
        &mut self,
        bytes: usize,
        is_flushed: bool,
        now: u64,
    ) -> (usize, Advance) {
        if self.upload != Upload::Whole {
            return self.on_part_written(bytes, is_flushed, now);
        }
        let taken = bytes.min(self.bytes - self.written);
        self.written += taken;
        if self.written < self.bytes || !is_flushed {
            return (taken, Advance::Partly);
        }
        self.upload = Upload::Sent;
        self.times.sent = self.since(now);
        (taken, Advance::Sent)
    }

    /// Does what [`on_written`](Self::on_written) does, where what can be written now need not be
    /// all of the request.
    fn on_part_written(&mut self, bytes: usize, is_flushed: bool, now: u64) -> (usize, Advance) {
        if !self.has_unwritten() {
            return (0, Advance::None);
        }
        let writable = self.writable();
        let taken = bytes.min(writable - self.written);
        self.written += taken;
        if self.written < writable || !is_flushed {
            return (taken, Advance::Partly);
        }
        let advance = match self.upload {
            Upload::SupplyOpen => Advance::NeedsSupply,
            Upload::SuppliedHead => {
                self.upload = Upload::SupplyAwaitsContinue;
                Advance::AwaitsContinue
            }
            Upload::SupplyEnded => {
                self.upload = Upload::Sent;
                self.times.sent = self.since(now);
                Advance::Sent
            }
            _ => {
                self.upload = Upload::AwaitingContinue;
                Advance::AwaitsContinue
            }
        };
        (taken, advance)
    }

    /// Records that a byte of the response has arrived.
    #[inline]
    pub(crate) fn on_answered(&mut self, now: u64) {
        if self.times.first_byte == 0 {
            self.times.first_byte = self.since(now);
        }
    }

    /// Lets a waiting body follow its head. Returns false if the body was not waiting.
    pub(crate) fn go_on(&mut self) -> bool {
        self.upload = match self.upload {
            Upload::Head | Upload::AwaitingContinue => Upload::Whole,
            Upload::SuppliedHead | Upload::SupplyAwaitsContinue => Upload::SupplyOpen,
            _ => return false,
        };
        true
    }

    /// Returns whether the body waits for a 100 (Continue), or is going to.
    fn is_held(&self) -> bool {
        matches!(
            self.upload,
            Upload::Head
                | Upload::AwaitingContinue
                | Upload::SuppliedHead
                | Upload::SupplyAwaitsContinue
        )
    }

    /// Returns whether the head has been written and the body waits for a 100 (Continue).
    pub(crate) fn awaits_continue(&self) -> bool {
        matches!(
            self.upload,
            Upload::AwaitingContinue | Upload::SupplyAwaitsContinue
        )
    }

    /// Records the final head, and returns what it means for a request that has not been written
    /// completely.
    #[inline]
    pub(super) fn on_head(&mut self, status: StatusCode) -> Early {
        if self.upload == Upload::Sent {
            return Early::No;
        }
        let is_held = self.is_held();
        // The body has not been sent, so the server cannot have acted on it.
        if is_held && status == StatusCode::EXPECTATION_FAILED {
            return Early::ExpectRefused;
        }
        if is_held || status.is_client_error() || status.is_server_error() {
            self.upload = Upload::Cut;
        }
        Early::Yes
    }

    /// Returns the microseconds since the request was put on the connection, plus one because 0
    /// means "not yet".
    #[inline]
    pub(crate) fn since(&self, now: u64) -> u32 {
        let micros = now.saturating_sub(self.begun);
        u32::try_from(micros + 1).unwrap_or(u32::MAX)
    }
}

/// Whether a response arrived before its request was written completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Early {
    No,
    Yes,
    /// The response is a 417 (Expectation Failed), and the body was never sent.
    ExpectRefused,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] = b"User-Agent: x\r\n\r\n";

    fn exchange(expects: bool) -> Exchange<()> {
        let request = Request::post("http://a.example/")
            .header("Expect", "100-continue")
            .body("0123456789")
            .build()
            .unwrap();
        Exchange::new((), request, (0, BLOCK), expects, 100)
    }

    fn wire(exchange: &Exchange<()>) -> String {
        let layout = exchange.layout(|_| BLOCK);
        let bytes = layout.parts().concat();
        assert_eq!(bytes.len(), exchange.writable());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_request_is_sent_when_its_last_byte_is_flushed() {
        let mut exchange = exchange(false);
        let all = exchange.writable();
        assert!(
            !wire(&exchange).contains("Expect"),
            "the body does not wait"
        );
        assert_eq!(exchange.on_written(all - 1, true, 105).0, all - 1);
        assert_eq!(
            (exchange.upload, exchange.written(), exchange.times.sent),
            (Upload::Whole, all - 1, 0)
        );
        assert_eq!(
            exchange.on_written(9, false, 106).0,
            1,
            "the rest belongs to another request"
        );
        assert!(exchange.has_unwritten(), "the bytes have not been flushed");
        assert_eq!(exchange.on_written(0, true, 107).0, 0);
        assert_eq!((exchange.upload, exchange.times.sent), (Upload::Sent, 8));
        assert_eq!(exchange.on_head(StatusCode::BAD_REQUEST), Early::No);
    }

    #[test]
    fn a_body_waits_for_a_100_and_follows_it() {
        let mut exchange = exchange(true);
        let head = wire(&exchange);
        assert!(head.contains("Expect: 100-continue\r\n") && head.ends_with("\r\n\r\n"));
        assert_eq!(exchange.on_written(head.len(), true, 101).0, head.len());
        assert_eq!(exchange.upload, Upload::AwaitingContinue);
        assert!(!exchange.has_unwritten());
        assert!(exchange.go_on());
        assert_eq!(
            (exchange.upload, exchange.written()),
            (Upload::Whole, head.len())
        );
        assert_eq!(wire(&exchange), format!("{head}0123456789"));
        assert!(!exchange.go_on(), "the body no longer waits");
        assert_eq!(exchange.on_written(10, true, 102).0, 10);
        assert!(exchange.is_sent());
    }

    #[test]
    fn an_early_response_cuts_what_it_refuses() {
        let rows = [
            (true, 200, Early::Yes, Upload::Cut),
            (true, 417, Early::ExpectRefused, Upload::Head),
            (true, 413, Early::Yes, Upload::Cut),
            (false, 200, Early::Yes, Upload::Whole),
            (false, 417, Early::Yes, Upload::Cut),
            (false, 503, Early::Yes, Upload::Cut),
        ];
        for (expects, status, early, upload) in rows {
            let mut exchange = exchange(expects);
            exchange.on_written(5, true, 101);
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(exchange.on_head(status), early, "{expects} {status}");
            assert_eq!(exchange.upload, upload, "{expects} {status}");
            assert_eq!(exchange.written(), 5);
        }
    }
}
