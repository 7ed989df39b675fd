//! What reaches a server: the bytes of requests, and the client's end of the connection.

use std::rc::Rc;
use std::time::Duration;

use super::connection::{Connection, EarlyAnswer};
use super::ledger::{Closed, Misuse};
use super::reader::{Head, Item};
use super::server::{Answer, ConnectionId, End, Incoming};
use super::world::{Call, Event, Site, World};

impl World {
    pub(super) fn on_server_arrival(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.note("to server", id.0, bytes.len());
        let Some(server) = self.server_mut(id) else {
            return;
        };
        if server.ended {
            return self.reset_late(id);
        }
        if let Some((_, every)) = server.pace {
            let waits = !server.unread.is_empty();
            server.unread.extend(bytes);
            server.idle_since += 1;
            if !waits {
                self.schedule(self.now + every, Event::ServerReads { id });
            }
            return;
        }
        self.serve_bytes(id, bytes);
    }

    /// Lets a server with a pace read the next bytes that have arrived.
    pub(super) fn on_server_reads(&mut self, id: ConnectionId) {
        let Some(server) = self.server_mut(id).filter(|server| !server.ended) else {
            return;
        };
        let Some((most, every)) = server.pace else {
            return;
        };
        let taken = server.unread.len().min(most);
        let bytes: Vec<u8> = server.unread.drain(..taken).collect();
        let waits = !server.unread.is_empty();
        self.serve_bytes(id, &bytes);
        if waits {
            self.schedule(self.now + every, Event::ServerReads { id });
        }
    }

    fn serve_bytes(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(server) = self.server_mut(id) else {
            return;
        };
        let taken = if server.closing {
            0
        } else {
            bytes.len().min(server.appetite.unwrap_or(usize::MAX))
        };
        if let Some(appetite) = &mut server.appetite {
            *appetite -= taken.min(*appetite);
        }
        server.leaves_unread |= taken < bytes.len();
        server.idle_since += 1;
        server.reader.feed(&bytes[..taken]);
        if taken > 0 {
            self.change(id, |client| client.on_taken(taken));
            self.reading = Some(id);
        }
    }

    /// Returns the next call to make to a server, if any.
    pub(super) fn take_call(&mut self) -> Option<Call> {
        if let Some(call) = self.calls.pop_front() {
            return Some(call);
        }
        let id = self.reading?;
        let call = self.read_request(id);
        if call.is_none() {
            self.reading = None;
        }
        call
    }

    /// Continues to read what the client sent, up to the next point at which the server is called.
    fn read_request(&mut self, id: ConnectionId) -> Option<Call> {
        loop {
            let now = self.now;
            let connection = self.connections.get_mut(&id)?;
            let Some(Site::Serves(service)) = self.sites.get(&connection.addr) else {
                return None;
            };
            let server = service.server.clone();
            let end = &mut connection.server;
            if end.closing {
                end.leaves_unread |= end.reader.pending() > 0;
                return None;
            }
            if end.has_switched {
                let bytes = end.reader.take_rest();
                let is_empty = bytes.is_empty();
                self.note_bytes(&bytes);
                return (!is_empty).then_some(Call::Data { id, server, bytes });
            }
            match end.reader.next_item() {
                Ok(None) => return None,
                Ok(Some(Item::Head(head))) => {
                    let request = incoming(id, connection, head, now);
                    return Some(Call::Head {
                        id,
                        server,
                        request,
                    });
                }
                Ok(Some(Item::Body(body, trailers))) => {
                    let (mut request, early) = end.current.take()?;
                    request.bytes.extend_from_slice(&body);
                    request.trailers = trailers;
                    request.at = now;
                    end.requests += 1;
                    let request = Rc::new(request);
                    self.ledger.requests.push(request.clone());
                    if let Some(served) = self.ledger.connections.get_mut(&id) {
                        served.requests += 1;
                    }
                    self.note("request", id.0, request.bytes.len());
                    if early == EarlyAnswer::None {
                        return Some(Call::Request {
                            id,
                            server,
                            request,
                        });
                    }
                    self.start_idle_timer(id);
                }
                Err(malformed) => {
                    let connection = id;
                    let why = malformed.0;
                    self.misuses
                        .push(Misuse::MalformedRequest { connection, why });
                    self.hang_up(id, End::Reset);
                    return None;
                }
            }
        }
    }

    /// Processes the server's reaction to a head, which may be an answer.
    pub(super) fn on_head_seen(
        &mut self,
        id: ConnectionId,
        request: Incoming,
        answer: Option<Answer>,
    ) {
        let early = match answer {
            Some(answer) => {
                self.answer(id, &request, answer);
                EarlyAnswer::Sent
            }
            None => EarlyAnswer::None,
        };
        if let Some(server) = self.server_mut(id) {
            server.current = Some((request, early));
        }
    }

    pub(super) fn on_client_closed(&mut self, id: ConnectionId, end: End) {
        let now = self.now;
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        self.note("client closed", id.0, end as usize);
        let unfinished = connection.server.unfinished();
        if let Some(served) = self.ledger.connections.get_mut(&id) {
            served.unfinished = unfinished;
        }
        let how = match end {
            End::Close => Closed::ByClient,
            End::Reset => Closed::ResetByClient,
        };
        self.record_end(id, now, how);
        if let Some(Site::Serves(service)) = self.sites.get(&connection.addr)
            && !connection.server.stopped
        {
            let server = service.server.clone();
            self.calls.push_back(Call::Closed { id, server });
        }
    }

    /// Records who ended a connection. The first to do so counts, even if the other side has not
    /// noticed yet.
    pub(super) fn record_end(&mut self, id: ConnectionId, at: Duration, how: Closed) {
        if let Some(served) = self.ledger.connections.get_mut(&id) {
            served.closed.get_or_insert((at, how));
        }
    }

    pub(super) fn on_idle_timeout(&mut self, id: ConnectionId, idle_since: u64) {
        if let Some(connection) = self.connections.get(&id) {
            let server = &connection.server;
            if server.idle_since == idle_since && server.is_idle(self.now) {
                self.hang_up(id, End::Close);
            }
        }
    }

    /// Starts the server's idle timer, which runs from the end of what the server is sending.
    pub(super) fn start_idle_timer(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let Some(Site::Serves(service)) = self.sites.get(&connection.addr) else {
            return;
        };
        let Some(timeout) = service.idle_timeout else {
            return;
        };
        connection.server.idle_since += 1;
        let idle_since = connection.server.idle_since;
        let at = connection.server.busy_until.max(self.now) + timeout;
        self.schedule(at, Event::IdleTimeout { id, idle_since });
    }
}

fn incoming(id: ConnectionId, connection: &Connection, head: Head, now: Duration) -> Incoming {
    Incoming {
        connection: id,
        server: connection.addr,
        https: connection.https,
        number: connection.server.requests,
        pipelined: connection.server.busy_until > now
            || connection.server.unresponsive
            || !connection.server.held.is_empty(),
        at: now,
        method: head.method,
        target: head.target,
        headers: head.headers,
        head_len: head.bytes.len(),
        bytes: head.bytes,
        trailers: Vec::new(),
    }
}
