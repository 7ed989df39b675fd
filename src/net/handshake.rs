//! What has to be agreed on before a connected socket is an open link, and what is left of it: TLS
//! TLS states, through which everything passes from then on.
//!
//! ```text
//!  built with the link          the socket is connected             the last is over
//!  Handshakes [ Tls ] ────────► its first bytes went out ─────────► Layers [ Tls ]
//! ```
//!
//! They are built before there is a socket: which of several sockets is connected shows in its first
//! write, so the first bytes of the first handshake go out with the dial.

use crate::net::tls::TlsState;

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
    Tls(TlsState),
}

/// The TLS states that bytes pass through: none, or TLS with the origin.
#[derive(Debug, Default)]
pub(crate) struct Layers(Option<TlsState>);

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
    pub(crate) fn tls(tls: TlsState) -> Self {
        Self {
            left: vec![Handshake::Tls(tls)],
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
                Some(Handshake::Tls(tls)) if tls.is_established() => {
                    let Some(Handshake::Tls(tls)) = self.left.pop() else {
                        return Step::Over;
                    };
                    self.layers.0 = Some(tls);
                }
                Some(Handshake::Tls(tls)) if tls.has_outbound() => return Step::Speak,
                Some(Handshake::Tls(_)) => return Step::Hear,
            }
        }
    }

    /// The TLS state that bytes pass through now: that of the handshake under way, or of those before
    /// it.
    pub(crate) fn tls_state(&self) -> Option<&TlsState> {
        match self.left.last() {
            Some(Handshake::Tls(tls)) => Some(tls),
            None => self.layers.tls_state(),
        }
    }

    pub(crate) fn tls_state_mut(&mut self) -> Option<&mut TlsState> {
        match self.left.last_mut() {
            Some(Handshake::Tls(tls)) => Some(tls),
            None => self.layers.tls_state_mut(),
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
    pub(crate) fn tls_state(&self) -> Option<&TlsState> {
        self.0.as_ref()
    }

    #[inline]
    pub(crate) fn tls_state_mut(&mut self) -> Option<&mut TlsState> {
        self.0.as_mut()
    }
}
