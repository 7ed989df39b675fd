//! Stdout, which several downloads may write to. Their bodies come one after the other: a download
//! that finds stdout taken is paused, and resumed when its turn comes.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::mem;

use httpstream::{ChainId, Context};

#[derive(Default)]
pub(crate) struct Stdout {
    /// The chain whose body is being written.
    holder: Option<ChainId>,
    waiting: VecDeque<ChainId>,
    /// What others have to say when that body has ended.
    later: Vec<u8>,
}

impl Stdout {
    pub(crate) fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// Returns whether it is the turn of `chain`. Otherwise the chain must pause, and is resumed
    /// when it is.
    pub(crate) fn enter(&mut self, chain: ChainId) -> bool {
        if self.holder.is_none() {
            self.holder = Some(chain);
        }
        let is_holder = self.holder == Some(chain);
        if !is_holder && !self.waiting.contains(&chain) {
            self.waiting.push_back(chain);
        }
        is_holder
    }

    /// Writes a piece of the body whose turn it is.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::stdout().write_all(bytes)
    }

    /// Writes what is no body: at once, or when the current body of another chain has ended.
    pub(crate) fn say(&mut self, chain: ChainId, text: &[u8]) -> io::Result<()> {
        match self.holder {
            Some(holder) if holder != chain => {
                self.later.extend_from_slice(text);
                Ok(())
            }
            _ => {
                let mut stdout = io::stdout();
                stdout.write_all(text).and_then(|()| stdout.flush())
            }
        }
    }

    /// Ends the turn of `chain`, or its wait for one.
    pub(crate) fn leave<S>(&mut self, chain: ChainId, cx: &mut Context<'_, S>) {
        self.waiting.retain(|waiting| *waiting != chain);
        if self.holder != Some(chain) {
            return;
        }
        // If stdout is closed, nobody reads it, and the next body will find that out.
        let later = mem::take(&mut self.later);
        let _ = io::stdout().write_all(&later);
        self.holder = self.waiting.pop_front();
        if let Some(next) = self.holder {
            cx.resume(next);
        }
    }
}
