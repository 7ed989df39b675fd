//! What has to be agreed on before a connected socket is an open link, and what is left of it: TLS
//! sessions, through which everything passes from then on.
//!
//! ```text
//!  built with the link          the socket is connected             the last is over
//!  Handshakes [ Tls ] ────────► its first bytes went out ─────────► Layers [ Tls ]
//! ```
//!
//! They are built before there is a socket: which of several sockets is connected shows in its first
//! write, so the first bytes of the first handshake go out with the dial.

use crate::net::tls::Session;

/// Handshakes that are to come, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    /// The one under way is the last.
    left: Vec<Handshake>,
    /// What those before it have left.
    layers: Layers,
}

/// One agreement with whoever is at the other end of what is there so far.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// TLS with the origin (RFC 8446 §4, RFC 5246 §7).
    Tls(Session),
}

/// The sessions that bytes pass through: none, or TLS with the origin.
#[derive(Debug, Default)]
pub(crate) struct Layers(Option<Session>);

/// Where a stack of handshakes stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The one under way has something to say.
    Speak,
    /// It waits for an answer.
    Hear,
    /// All are over.
    Over,
}

impl Handshakes {
    /// None: a connected socket is an open link.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// TLS alone.
    pub(crate) fn tls(session: Session) -> Self {
        Self {
            left: vec![Handshake::Tls(session)],
            layers: Layers::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// What is next, those that are over put behind.
    pub(crate) fn step(&mut self) -> Step {
        loop {
            match self.left.last() {
                None => return Step::Over,
                Some(Handshake::Tls(session)) if session.is_established() => {
                    let Some(Handshake::Tls(session)) = self.left.pop() else {
                        return Step::Over;
                    };
                    self.layers.0 = Some(session);
                }
                Some(Handshake::Tls(session)) if session.has_outbound() => return Step::Speak,
                Some(Handshake::Tls(_)) => return Step::Hear,
            }
        }
    }

    /// The session that bytes pass through now: that of the handshake under way, or of those before
    /// it.
    pub(crate) fn session(&self) -> Option<&Session> {
        match self.left.last() {
            Some(Handshake::Tls(session)) => Some(session),
            None => self.layers.session(),
        }
    }

    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        match self.left.last_mut() {
            Some(Handshake::Tls(session)) => Some(session),
            None => self.layers.session_mut(),
        }
    }

    /// What is left when all are over.
    pub(crate) fn into_layers(self) -> Layers {
        debug_assert!(self.left.is_empty(), "all are over");
        self.layers
    }
}

impl Layers {
    #[inline]
    pub(crate) fn session(&self) -> Option<&Session> {
        self.0.as_ref()
    }

    #[inline]
    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        self.0.as_mut()
    }
}
