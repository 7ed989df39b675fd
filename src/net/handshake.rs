//! What has to be agreed on before a connected socket is an open link, and what is left of it: TLS
//! states, through which everything passes from then on.
//!
//! ```text
//!  built with the link          the socket is connected             the last is over
//!  Handshakes [ Tls ] ────────► its first bytes went out ─────────► Layers [ Tls ]
//! ```
//!
//! They are built before there is a socket: which of several sockets is connected shows in its
//! first write, so the first bytes of the first handshake go out with the dial.

use crate::net::tls::TlsState;

/// Handshakes that are to come, one after the other. Mostly there are none, which is a pointer's
/// place, and no more.
#[derive(Debug, Default)]
pub(crate) struct Handshakes(Option<Box<Stack>>);

#[derive(Debug)]
struct Stack {
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
        Self(Some(Box::new(Stack {
            left: vec![Handshake::Tls(tls)],
            layers: Layers::default(),
        })))
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|stack| stack.left.is_empty())
    }

    /// What is next, those that are over put behind.
    pub(crate) fn step(&mut self) -> Step {
        let Some(stack) = &mut self.0 else {
            return Step::Over;
        };
        while let Some(handshake) = stack.left.pop() {
            match handshake {
                Handshake::Tls(tls) if tls.is_established() => {
                    let outer = stack.layers.0.replace(tls);
                    debug_assert!(outer.is_none(), "TLS inside of TLS has no layer yet");
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

    /// The TLS state that bytes pass through now: that of the handshake under way, or of those
    /// before it.
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

    /// What is left when all are over.
    #[inline]
    pub(crate) fn into_layers(self) -> Layers {
        debug_assert!(self.is_empty(), "all are over");
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
