//! The handshakes between a connected socket and an open link, and the TLS states that they leave
//! behind. All further bytes pass through these.
//!
//! ```text
//!  built with the link          the socket is connected             all are complete
//!  Handshakes [ Tls ] ────────► its first bytes were sent ────────► Layers [ Tls ]
//! ```
//!
//! Handshakes are built before there is a socket. Which of several sockets is connected only shows
//! in its first write, so the first bytes of the first handshake are sent during the dial.

use crate::net::tls::TlsState;

/// The handshakes still to be performed, one after another. Usually there are none, and the type is
/// then a null pointer.
#[derive(Debug, Default)]
pub(crate) struct Handshakes(Option<Box<Stack>>);

#[derive(Debug)]
struct Stack {
    /// The last one is in progress.
    left: Vec<Handshake>,
    /// The layers that completed handshakes have left.
    layers: Layers,
}

/// One handshake with the peer at the other end of the layers so far.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// TLS with the origin (RFC 8446 §4, RFC 5246 §7).
    Tls(TlsState),
}

/// The TLS states that bytes pass through: none, or one for TLS with the origin.
#[derive(Debug, Default)]
pub(crate) struct Layers(Option<TlsState>);

/// The progress of a stack of handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The current handshake has bytes to send.
    Speak,
    /// The current handshake waits for bytes from the peer.
    Hear,
    /// All handshakes are complete.
    Over,
}

impl Handshakes {
    /// Returns an empty stack: a connected socket is an open link.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Returns a stack with TLS only.
    pub(crate) fn tls(tls: TlsState) -> Self {
        Self(Some(Box::new(Stack {
            left: vec![Handshake::Tls(tls)],
            layers: Layers::default(),
        })))
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|stack| stack.left.is_empty())
    }

    /// Returns the next step, after turning completed handshakes into layers.
    pub(crate) fn step(&mut self) -> Step {
        let Some(stack) = &mut self.0 else {
            return Step::Over;
        };
        while let Some(handshake) = stack.left.pop() {
            match handshake {
                Handshake::Tls(tls) if tls.is_established() => {
                    let outer = stack.layers.0.replace(tls);
                    debug_assert!(outer.is_none(), "TLS inside TLS has no layer yet");
                }
                Handshake::Tls(tls) => {
                    let step = if tls.has_outbound() {
                        Step::Speak
                    } else {
                        Step::Hear
                    };
                    stack.left.push(Handshake::Tls(tls));
                    return step;
                }
            }
        }
        Step::Over
    }

    /// Returns the TLS state that bytes pass through now: that of the current handshake, or of the
    /// completed ones.
    #[inline]
    pub(crate) fn tls_state(&self) -> Option<&TlsState> {
        let stack = self.0.as_ref()?;
        match stack.left.last() {
            Some(Handshake::Tls(tls)) => Some(tls),
            None => stack.layers.tls_state(),
        }
    }

    #[inline]
    pub(crate) fn tls_state_mut(&mut self) -> Option<&mut TlsState> {
        let stack = self.0.as_mut()?;
        match stack.left.last_mut() {
            Some(Handshake::Tls(tls)) => Some(tls),
            None => stack.layers.tls_state_mut(),
        }
    }

    /// Returns the layers that remain when all handshakes are complete.
    #[inline]
    pub(crate) fn into_layers(self) -> Layers {
        debug_assert!(self.is_empty(), "all handshakes are complete");
        self.0.map_or_else(Layers::default, |stack| stack.layers)
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
