//! Handles: numbers in place of pointers, so that an invalid one is detected instead of
//! dereferenced.
//!
//! The upper four bits hold the kind. The bits below hold, for requests and configurations, a
//! generation of 28 bits and a slot of 32; for engines, a number that is never reused; for replies,
//! the thread in 24 bits and the order of lending in 36.

use crate::errors::{Code, Fault};

/// The kind of object that a handle refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Engine = 1,
    Config = 2,
    Request = 3,
    Reply = 4,
}

impl Kind {
    const SHIFT: u32 = 60;

    fn of(handle: u64) -> Option<Self> {
        match handle >> Self::SHIFT {
            1 => Some(Kind::Engine),
            2 => Some(Kind::Config),
            3 => Some(Kind::Request),
            4 => Some(Kind::Reply),
            _ => None,
        }
    }

    fn article(self) -> &'static str {
        match self {
            Kind::Engine => "an engine",
            Kind::Config => "a config",
            Kind::Request => "a request",
            Kind::Reply => "a reply",
        }
    }

    /// The name that every function gives an argument of this kind.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Engine => "engine",
            Kind::Config => "config",
            Kind::Request => "request",
            Kind::Reply => "reply",
        }
    }

    pub(crate) fn handle(self, number: u64) -> u64 {
        (self as u64) << Self::SHIFT | number & MAX_NUMBER
    }

    /// Returns the number in a handle of this kind.
    pub(crate) fn number(self, handle: u64) -> Result<u64, Fault> {
        match Self::of(handle) {
            Some(kind) if kind == self => Ok(handle & MAX_NUMBER),
            Some(kind) => Err(self.fault(handle, format!("is {}", kind.article()))),
            None if handle == 0 => Err(self.fault(handle, "is the null handle")),
            None => Err(self.never_made(handle)),
        }
    }

    /// Returns a [`Code::Handle`] fault that says what is wrong with this handle.
    pub(crate) fn fault(self, handle: u64, what: impl std::fmt::Display) -> Fault {
        Fault::new(Code::Handle, self.words(handle, what))
    }

    pub(crate) fn words(self, handle: u64, what: impl std::fmt::Display) -> String {
        format!("{} {handle:#x} {what}", self.name())
    }

    pub(crate) fn freed(self, handle: u64) -> Fault {
        self.fault(handle, "was freed")
    }

    pub(crate) fn never_made(self, handle: u64) -> Fault {
        self.fault(handle, "was never created")
    }
}

const MAX_NUMBER: u64 = (1 << Kind::SHIFT) - 1;

/// A table of values by handle. Each slot has a generation.
#[derive(Debug)]
pub(crate) struct Table<T> {
    kind: Kind,
    slots: Vec<Slot<T>>,
    vacant: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Table<T> {
    const MAX_GENERATION: u32 = (1 << 28) - 1;

    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            slots: Vec::new(),
            vacant: Vec::new(),
        }
    }

    fn handle(&self, index: u32) -> u64 {
        let generation = self.slots[index as usize].generation;
        self.kind
            .handle(u64::from(generation) << 32 | u64::from(index))
    }

    /// # Errors
    /// Fails if the table holds 2³² values.
    pub(crate) fn insert(&mut self, value: T) -> Result<u64, Fault> {
        let value = Some(value);
        let index = match self.vacant.pop() {
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                slot.generation += 1;
                slot.value = value;
                index
            }
            None => {
                let index = u32::try_from(self.slots.len())
                    .map_err(|_| Fault::argument(format!("too many {}s", self.kind.name())))?;
                // Generations start at 1, so that no handle looks like a small number.
                let generation = 1;
                self.slots.push(Slot { generation, value });
                index
            }
        };
        Ok(self.handle(index))
    }

    fn index(&self, handle: u64) -> Result<usize, Fault> {
        let number = self.kind.number(handle)?;
        let (index, generation) = (number as u32 as usize, (number >> 32) as u32);
        let Some(slot) = self.slots.get(index) else {
            return Err(self.kind.never_made(handle));
        };
        if generation == 0 || generation > slot.generation {
            return Err(self.kind.never_made(handle));
        }
        match slot.value.is_some() && slot.generation == generation {
            true => Ok(index),
            false => Err(self.kind.freed(handle)),
        }
    }

    pub(crate) fn get_mut(&mut self, handle: u64) -> Result<&mut T, Fault> {
        let index = self.index(handle)?;
        let value = self.slots[index].value.as_mut();
        value.ok_or_else(|| self.kind.freed(handle))
    }

    pub(crate) fn remove(&mut self, handle: u64) -> Result<T, Fault> {
        let index = self.index(handle)?;
        let slot = &mut self.slots[index];
        // A slot that has been used 2²⁸ times is not used again: the price of handles that are
        // never reused.
        if slot.generation < Self::MAX_GENERATION {
            self.vacant.push(index as u32);
        }
        slot.value.take().ok_or_else(|| self.kind.freed(handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        let fault = result.unwrap_err();
        assert_eq!(fault.code, Code::Handle);
        fault.words
    }

    #[test]
    fn a_handle_is_good_until_it_is_freed() {
        let mut table = Table::new(Kind::Request);
        let (a, b) = (table.insert('a').unwrap(), table.insert('b').unwrap());
        assert_eq!(*table.get_mut(a).unwrap(), 'a');
        assert_eq!(table.remove(a).unwrap(), 'a');
        let c = table.insert('c').unwrap();
        assert_eq!(a as u32, c as u32, "the slot was not reused");
        assert_eq!(words(table.get_mut(a)), format!("request {a:#x} was freed"));
        assert_eq!(words(table.remove(a)), format!("request {a:#x} was freed"));
        assert_eq!(*table.get_mut(b).unwrap(), 'b');
        assert_eq!(*table.get_mut(c).unwrap(), 'c');
    }

    #[test]
    fn what_is_no_handle_of_this_table_is_told_apart() {
        let mut table = Table::new(Kind::Request);
        let a = table.insert(()).unwrap();
        let rows = [
            (0, "request 0x0 is the null handle"),
            (7, "request 0x7 was never created"),
            (u64::MAX, "request 0xffffffffffffffff was never created"),
            (a + 1, "request 0x3000000100000001 was never created"),
            (
                a + (1 << 32),
                "request 0x3000000200000000 was never created",
            ),
            (
                a - (1 << 32),
                "request 0x3000000000000000 was never created",
            ),
            (
                Kind::Engine.handle(1),
                "request 0x1000000000000001 is an engine",
            ),
            (
                Kind::Config.handle(1),
                "request 0x2000000000000001 is a config",
            ),
            (
                Kind::Reply.handle(1),
                "request 0x4000000000000001 is a reply",
            ),
        ];
        for (handle, expected) in rows {
            assert_eq!(words(table.get_mut(handle)), expected);
        }
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_rests() {
        let mut table = Table::new(Kind::Config);
        let a = table.insert(1).unwrap();
        table.slots[0].generation = Table::<u32>::MAX_GENERATION;
        let last = a & !(u64::from(u32::MAX) << 32 & MAX_NUMBER)
            | u64::from(Table::<u32>::MAX_GENERATION) << 32;
        assert_eq!(table.remove(last).unwrap(), 1);
        let b = table.insert(2).unwrap();
        assert_eq!(b as u32, 1, "an exhausted slot was reused");
        assert_eq!(
            words(table.get_mut(last)),
            format!("config {last:#x} was freed")
        );
    }
}
