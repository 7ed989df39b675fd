//! The keys of delayed chains. Each key has one holder.
//!
//! A chain holds its key from when the step with the key is started or returned until that step
//! begins: its request is on its way, or its call runs. Both tables are trees, which grow without
//! moving all their entries in one turn.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::engine::chain::ChainKey;

/// The keys that the chains of one engine hold. In most programs there are none.
#[derive(Default)]
pub(super) struct Keys {
    holders: BTreeMap<Cow<'static, str>, ChainKey>,
    names: BTreeMap<ChainKey, Cow<'static, str>>,
}

impl Keys {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Makes a chain the holder of the key `name`, instead of one that it may hold. Returns the
    /// former holder, if that is another chain.
    pub(super) fn take(&mut self, key: ChainKey, name: Cow<'static, str>) -> Option<ChainKey> {
        self.release(key);
        let former = self.holders.insert(name.clone(), key);
        if let Some(former) = former {
            self.names.remove(&former);
        }
        self.names.insert(key, name);
        former
    }

    /// Forgets the key that a chain holds, if it holds one.
    #[inline]
    pub(super) fn release(&mut self, key: ChainKey) {
        if !self.is_empty()
            && let Some(name) = self.names.remove(&key)
        {
            self.holders.remove(&name);
        }
    }

    /// Returns whether a chain holds a key.
    pub(super) fn has_one(&self, key: ChainKey) -> bool {
        self.names.contains_key(&key)
    }

    /// Returns the chain that holds a key.
    pub(super) fn holder(&self, name: &str) -> Option<ChainKey> {
        self.holders.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_holder_and_a_chain_one_key() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(1, "a".into()), None);
        assert_eq!(keys.take(2, "b".into()), None);
        assert_eq!(keys.take(3, "a".into()), Some(1));
        // The former holder holds nothing that it could release.
        keys.release(1);
        assert_eq!((keys.holder("a"), keys.holder("b")), (Some(3), Some(2)));
        assert_eq!(keys.take(3, "a".into()), None, "its own key");
        assert_eq!(keys.take(3, "b".into()), Some(2));
        assert_eq!((keys.holder("a"), keys.holder("b")), (None, Some(3)));
        keys.release(3);
        keys.release(3);
        assert_eq!(keys.holder("b"), None);
        assert!(keys.is_empty() && keys.holders.is_empty());
    }
}

#[cfg(all(test, feature = "sim"))]
mod engine_tests {
    use std::time::Duration;

    use crate::sim::{Answer, Incoming, Network};
    use crate::{Config, Context, Engine, Next, Request, Sim};

    #[test]
    fn nothing_is_kept_of_keys_and_deadlines_that_no_chain_has() {
        let network = Network::new(1);
        network.serve("192.0.2.1:80".parse().unwrap(), |_: &Incoming| {
            Answer::ok("")
        });
        let mut engine = Engine::<u32, Sim>::on_network(&network, Config::default()).unwrap();
        let get = || Request::get("http://192.0.2.1/").build().unwrap();
        for number in 0..1000 {
            let call = |calls: &mut u32, cx: &mut Context<'_, u32>| {
                *calls += 1;
                cx.done()
            };
            let next = match number % 5 {
                0 => Next::call(call),
                1 => Next::send(get()),
                2 => Next::wait(),
                3 => Next::task(std::future::pending()),
                _ => Next::call(move |_: &mut u32, _: &mut Context<'_, u32>| {
                    // One more step with a key and a deadline, in the same chain.
                    let next = Next::send(get()).after(Duration::from_secs(1));
                    next.key("next").chain_timeout(Duration::from_secs(10))
                }),
            };
            let next = next.after(Duration::from_millis(number));
            let next = next.key(format!("key {}", number % 300));
            engine.start(next.chain_timeout(Duration::from_secs(10)));
        }
        let mut calls = 0;
        engine
            .advance(&mut calls, Duration::from_millis(1))
            .unwrap();
        assert_eq!(engine.core.chains.keys.names.len(), 300);
        assert_eq!(engine.core.chains.keys.holders.len(), 300);
        engine.run(&mut calls).unwrap();
        assert!(calls > 0);
        let chains = &engine.core.chains;
        assert!(!chains.has_terms());
        assert!(chains.keys.holders.is_empty() && chains.keys.names.is_empty());
        engine.close_idle();
        assert_eq!(engine.core.timers.len(), 0);
    }
}
