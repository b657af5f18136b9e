//! The memory of a case: what differs from a base that many cases share. Most cases change a few
//! lines, and only these are handed around.

use super::layout::MEMORY;
use std::sync::Arc;

/// Bytes of a line.
pub const LINE: usize = 64;
/// Lines of a case's memory.
pub const LINES: usize = MEMORY / LINE;

/// Contents to start from.
pub type Base = Arc<[u8; MEMORY]>;

/// A line that is not as in the base. `repr(C)`, since two processes share it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Line {
    /// Its number, below [`LINES`].
    pub number: u32,
    /// What it holds.
    pub bytes: [u8; LINE],
}

/// The pages that belong to a case: see [`super::layout::CONTENTS`].
#[derive(Clone, Debug)]
pub struct Memory {
    base: Base,
    lines: Vec<Line>,
}

impl Memory {
    /// The base itself.
    pub fn new(base: Base) -> Memory {
        Memory { base, lines: Vec::new() }
    }

    /// All zero.
    pub fn zero() -> Memory {
        Memory::new(Arc::new([0; MEMORY]))
    }

    /// A base with changed lines, each number at most once.
    pub fn with_lines(base: Base, lines: Vec<Line>) -> Memory {
        Memory { base, lines }
    }

    /// What it is based on.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The lines that may differ from the base.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Whether both have the very same base, so that only lines can differ.
    pub fn shares_base(&self, other: &Base) -> bool {
        Arc::ptr_eq(&self.base, other)
    }

    /// The byte at an offset below [`MEMORY`].
    pub fn byte(&self, at: usize) -> u8 {
        match self.lines.iter().find(|line| line.number as usize == at / LINE) {
            Some(line) => line.bytes[at % LINE],
            None => self.base[at],
        }
    }

    /// Sets the byte at an offset below [`MEMORY`].
    pub fn set(&mut self, at: usize, byte: u8) {
        let number = at / LINE;
        let known = self.lines.iter().position(|line| line.number as usize == number);
        let line = known.unwrap_or_else(|| {
            let mut bytes = [0; LINE];
            bytes.copy_from_slice(&self.base[number * LINE..(number + 1) * LINE]);
            self.lines.push(Line { number: number as u32, bytes });
            self.lines.len() - 1
        });
        self.lines[line].bytes[at % LINE] = byte;
    }

    /// All bytes.
    pub fn bytes(&self) -> Box<[u8; MEMORY]> {
        let mut bytes = Box::new(*self.base);
        for line in &self.lines {
            let start = line.number as usize * LINE;
            bytes[start..start + LINE].copy_from_slice(&line.bytes);
        }
        bytes
    }
}

/// Whether the contents are the same.
impl PartialEq for Memory {
    fn eq(&self, other: &Memory) -> bool {
        self.shares_base(&other.base) && self.lines == other.lines || self.bytes() == other.bytes()
    }
}

impl Eq for Memory {}

/// Calls `found` with each line of `now` that is not as in `base`, in order. `first` is the number
/// of the first line of the two.
pub(super) fn changed_lines(first: usize, base: &[u8], now: &[u8], mut found: impl FnMut(Line)) {
    if base == now {
        return;
    }
    for (i, (old, new)) in base.chunks_exact(LINE).zip(now.chunks_exact(LINE)).enumerate() {
        if old != new {
            let mut line = Line { number: (first + i) as u32, bytes: [0; LINE] };
            line.bytes.copy_from_slice(new);
            found(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_for_bytes() {
        let mut base = Box::new([0; MEMORY]);
        base.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 7) as u8);
        let mut memory = Memory::new(Arc::new(*base));
        for at in [5, LINE, LINE + 1, MEMORY - 1] {
            memory.set(at, !base[at]);
        }
        assert_eq!(memory.lines().len(), 3);
        let bytes = memory.bytes();
        assert!((0..MEMORY).all(|at| memory.byte(at) == bytes[at]));
        assert_eq!((0..MEMORY).filter(|&at| bytes[at] != base[at]).count(), 4);

        let mut lines = Vec::new();
        changed_lines(0, &base[..], &bytes[..], |line| lines.push(line));
        let again = Memory::with_lines(memory.base().clone(), lines);
        assert_eq!(again, memory);
        // A line that was changed back counts for nothing.
        memory.set(5, base[5]);
        assert_ne!(again, memory);
        memory.set(5, !base[5]);
        memory.set(200, base[200]);
        assert_eq!(again, memory);
        assert_ne!(again, Memory::zero());
    }
}
