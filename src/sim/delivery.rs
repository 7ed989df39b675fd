//! How bytes from a server reach the client: whole and on time, or affected by faults.

use std::time::Duration;

use super::connection::ServerEnd;
use super::faults::Fault;
use super::ledger::Closed;
use super::server::{Answer, ConnectionId, End, Incoming, Script, Segment};
use super::world::{Asked, Event, World};

/// A complete response that no request asked for. A client that takes it for the response to its
/// next request is wrong.
const FALSE_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse";
/// Unsolicited bytes that servers have been seen to send. None is a complete response: if one
/// arrived while the next request was already on its way, no client could tell it from the answer.
const NOISE: [&[u8]; 4] = [b"\r\n", b"0\r\n\r\n", b"\0", b"garbage\r\n\r\n"];

/// Unsolicited bytes that arrive while the connection is at rest, and whether the connection ends
/// with them. The client can tell these from any answer, so complete responses may be among them.
const STRAYS: [(&[u8], Option<End>); 7] = [
    (b"", Some(End::Close)),
    (
        b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate",
        Some(End::Close),
    ),
    (b"HTTP/1.1 408 Request Timeout\r\n\r\n", Some(End::Close)),
    (FALSE_ANSWER, None),
    (b"\r\n", None),
    (b"0\r\n\r\n", None),
    (b"HTTP/1.1 100 Continue\r\n\r\n", None),
];

/// The delay between the last bytes and an end that does not arrive together with them.
const END_LAGS: Duration = Duration::from_micros(100);

impl World {
    /// Sends `answer` to `request`, unless it or an earlier answer is held.
    pub(super) fn answer(&mut self, id: ConnectionId, request: &Incoming, answer: Answer) {
        let Some(server) = self.server_mut(id) else {
            return;
        };
        if answer.is_held() || !server.held.is_empty() {
            server.held.push_back((request.clone(), answer));
            return;
        }
        self.send_answer(id, request, answer);
    }

    /// Answers the oldest held request, and the requests behind it that had to wait for that.
    /// Returns false if no request is held.
    pub(super) fn answer_held(&mut self, id: ConnectionId, answer: Answer) -> bool {
        let Some(server) = self.server_mut(id) else {
            return false;
        };
        let Some(first) = server.held.front_mut() else {
            return false;
        };
        first.1 = answer;
        while let Some(server) = self.server_mut(id)
            && server
                .held
                .front()
                .is_some_and(|(_, answer)| !answer.is_held())
            && let Some((request, answer)) = server.held.pop_front()
        {
            self.send_answer(id, &request, answer);
        }
        true
    }

    /// Sends `answer` to `request` after the previous answers, modified by the faults that strike.
    fn send_answer(&mut self, id: ConnectionId, request: &Incoming, answer: Answer) {
        let Some(server) = self.server_mut(id) else {
            return;
        };
        if server.unresponsive || server.closing {
            return;
        }
        let mut script = answer.encode(request);
        let later = self.spoil(&mut script);
        let mut pieces = self.split(script.pieces);
        let switches = script.complete && script.switches;
        let idles = script.complete && script.end.is_none() && !script.switches;
        let strays = idles && script.delimited && self.strikes(Fault::Stray);
        let unsolicited = idles && script.delimited && self.strikes(Fault::Unsolicited);
        // The false answer goes out with the last bytes, or noise follows later.
        let at_once = unsolicited && self.random.chance(300);
        if at_once && let Some(last) = pieces.last_mut() {
            last.bytes.extend_from_slice(FALSE_ANSWER);
        }

        let mut leaves = self.now;
        if let Some(server) = self.server_mut(id) {
            leaves = leaves.max(server.busy_until);
            server.unresponsive = !script.complete;
            server.closing = script.end.is_some();
            server.has_switched = switches;
        }
        let count = pieces.len();
        for (i, piece) in pieces.into_iter().enumerate() {
            leaves += piece.pause;
            let bytes = piece.bytes;
            let last = i + 1 == count;
            let end = match script.end {
                Some((Duration::ZERO, end)) if last && self.strikes(Fault::EndWithData) => {
                    script.end = None;
                    Some(end)
                }
                _ => None,
            };
            self.schedule(leaves, Event::Leaves { id, bytes, end });
        }
        if let Some(server) = self.server_mut(id) {
            server.busy_until = leaves;
        }
        if let Some((pause, end)) = script.end {
            let (bytes, end) = (Vec::new(), Some(end));
            let at = leaves + pause + END_LAGS;
            self.schedule(at, Event::Leaves { id, bytes, end });
        }
        if unsolicited && !at_once {
            let at = leaves + self.random.duration(Duration::from_secs(3));
            let bytes = self.random.pick(&NOISE).to_vec();
            self.schedule(at, Event::Speaks { id, bytes });
        }
        if strays {
            let (bytes, end) = *self.random.pick(&STRAYS);
            let most = *self.random.pick(&[10, 500, 10_000]);
            let pause =
                Duration::from_millis(1) + self.random.duration(Duration::from_millis(most));
            let (at, bytes) = (leaves + pause, bytes.to_vec());
            self.schedule(at, Event::Strays { id, bytes, end });
        }
        if let Some((pause, end)) = later {
            self.schedule(leaves + pause, Event::HangsUp { id, end });
        }
        if idles {
            self.start_idle_timer(id);
        }
    }

    /// Applies the faults of a server, at most one of them. The return value is set if the server
    /// hangs up spontaneously later: how long after the last byte, and how.
    fn spoil(&mut self, script: &mut Script) -> Option<(Duration, End)> {
        let nothing = |end| (0, Some((Duration::ZERO, end)));
        let length: usize = script.pieces.iter().map(|piece| piece.bytes.len()).sum();
        let (keep, end) = if self.strikes(Fault::Silence) {
            (0, None)
        } else if self.strikes(Fault::ResetBefore) {
            nothing(End::Reset)
        } else if self.strikes(Fault::CloseBefore) {
            nothing(End::Close)
        } else if length > 1 && self.strikes(Fault::ResetDuring) {
            let keep = self.random.between(1, length - 1);
            (keep, Some((Duration::ZERO, End::Reset)))
        } else if length > 1 && self.strikes(Fault::CloseDuring) {
            let keep = self.random.between(1, length - 1);
            // A body delimited by the end of the connection would seem to be complete.
            let end = if script.delimited {
                End::Close
            } else {
                End::Reset
            };
            (keep, Some((Duration::ZERO, end)))
        } else {
            return self.hang_up_after(script);
        };
        let mut left = keep;
        for piece in &mut script.pieces {
            piece.bytes.truncate(left);
            left -= piece.bytes.len();
        }
        script.pieces.retain(|piece| !piece.bytes.is_empty());
        script.complete = false;
        script.end = end;
        None
    }

    fn hang_up_after(&mut self, script: &mut Script) -> Option<(Duration, End)> {
        if script.end.is_some() {
            return None;
        }
        let end = if self.strikes(Fault::ResetAfter) {
            End::Reset
        } else if self.strikes(Fault::CloseAfter) {
            End::Close
        } else {
            return None;
        };
        if self.random.chance(500) {
            script.end = Some((Duration::ZERO, end));
            return None;
        }
        let most = *self.random.pick(&[10, 1000, 10_000]);
        let pause = self.random.duration(Duration::from_millis(most));
        Some((pause, end))
    }

    /// Cuts pieces at any byte where [`Fault::Split`] strikes.
    fn split(&mut self, pieces: Vec<Segment>) -> Vec<Segment> {
        let mut cut = Vec::with_capacity(pieces.len());
        for piece in pieces {
            if piece.bytes.len() < 2 || !self.strikes(Fault::Split) {
                cut.push(piece);
                continue;
            }
            let mut rest = piece.bytes.as_slice();
            let mut pause = piece.pause;
            for length in self.lengths_of_cuts(rest.len()) {
                let (bytes, behind) = rest.split_at(length);
                let bytes = bytes.to_vec();
                cut.push(Segment { pause, bytes });
                rest = behind;
                pause = if self.random.chance(250) {
                    Duration::ZERO
                } else {
                    self.random.duration(Duration::from_millis(2))
                };
            }
        }
        cut
    }

    /// Returns the lengths of the pieces into which `length` bytes are cut: either a few pieces of
    /// any length, or up to 64 single bytes with the rest around them.
    fn lengths_of_cuts(&mut self, length: usize) -> Vec<usize> {
        let mut places: Vec<usize> = if self.random.chance(125) {
            let from = self.random.between(1, length - 1);
            (from..length.min(from + 64)).collect()
        } else {
            let count = self.random.between(1, 4);
            (0..count)
                .map(|_| self.random.between(1, length - 1))
                .collect()
        };
        places.push(length);
        places.sort_unstable();
        places.dedup();
        let mut from = 0;
        places
            .into_iter()
            .map(|at| at - std::mem::replace(&mut from, at))
            .collect()
    }

    /// Lets bytes leave the server, and the server's end of the connection after them if `end` is
    /// set.
    pub(super) fn leave(
        &mut self,
        id: ConnectionId,
        bytes: Vec<u8>,
        end: Option<End>,
        asked: Asked,
    ) {
        let Some(server) = self.server_mut(id) else {
            return;
        };
        if server.ended {
            return;
        }
        // Closing a socket with unread data sends a reset instead of an end of file.
        let end = match end {
            Some(End::Close) if server.leaves_unread || !server.unread.is_empty() => {
                Some(End::Reset)
            }
            end => end,
        };
        self.end_server(id, end);
        self.travel(id, bytes, end, asked);
    }

    /// Ends the connection at the server if `end` is set.
    fn end_server(&mut self, id: ConnectionId, end: Option<End>) {
        let now = self.now;
        if let (Some(end), Some(server)) = (end, self.server_mut(id)) {
            server.closing = true;
            server.ended = true;
            let how = match end {
                End::Close => Closed::ByServer,
                End::Reset => Closed::ResetByServer,
            };
            self.record_end(id, now, how);
        }
    }

    /// Delivers unsolicited bytes if the client can tell them from any answer. Otherwise, they are
    /// not sent.
    pub(super) fn stray(&mut self, id: ConnectionId, bytes: &[u8], end: Option<End>) {
        if self.is_live(id) && self.is_noticeable(id) {
            self.note_stray(id);
            self.end_server(id, end);
            self.on_client_arrival(id, bytes, end);
        }
    }

    /// Lets unsolicited bytes leave the server, unless it is answering. Inside an answer, no client
    /// could tell them from the answer itself.
    pub(super) fn speak(&mut self, id: ConnectionId, bytes: Vec<u8>) {
        let now = self.now;
        let idle = |server: &mut ServerEnd| server.busy_until <= now && !server.unresponsive;
        if self.server_mut(id).is_some_and(idle) {
            self.leave(id, bytes, None, Asked::No);
        }
    }

    /// Lets the server end the connection spontaneously. In the middle of a body delimited by the
    /// end of the connection, this is a reset, as with [`Fault::CloseDuring`], because the body
    /// would seem to be complete.
    pub(super) fn hang_up_by_chance(&mut self, id: ConnectionId, end: End) {
        let now = self.now;
        let cuts = |server: &mut ServerEnd| server.closing && server.busy_until > now;
        let end = if self.server_mut(id).is_some_and(cuts) {
            End::Reset
        } else {
            end
        };
        self.hang_up(id, end);
    }

    /// Lets the server end the connection now, whatever it is doing.
    pub(super) fn hang_up(&mut self, id: ConnectionId, end: End) {
        self.leave(id, Vec::new(), Some(end), Asked::No);
    }

    /// Resets the connection: bytes have arrived on a connection that the server has ended.
    pub(super) fn reset_late(&mut self, id: ConnectionId) {
        self.travel(id, Vec::new(), Some(End::Reset), Asked::No);
    }

    /// Schedules the arrival at the client. Nothing overtakes what left the server earlier.
    fn travel(&mut self, id: ConnectionId, bytes: Vec<u8>, end: Option<End>, asked: Asked) {
        let arrives = self.now + self.transit();
        if let Some(server) = self.server_mut(id) {
            server.downlink = server.downlink.max(arrives);
            let at = server.downlink;
            let event = Event::ToClient {
                id,
                bytes,
                end,
                asked,
            };
            self.schedule(at, event);
        }
    }
}
