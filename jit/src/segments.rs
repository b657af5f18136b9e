//! Code segments: instruction pointers are offsets in one, so that what is keyed by them depends
//! on its base and limit too.

use hashbrown::HashMap;
use x86::Cpu;
use x86::mode::ModeKey;

/// Code segments kept before everything is dropped. A program for real mode has dozens.
const MAX_SEGMENTS: usize = 1 << 12;

/// Base and limit of CS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct CodeSegment {
    pub(crate) base: u64,
    /// The last valid offset.
    pub(crate) limit: u64,
}

impl CodeSegment {
    /// 64-bit mode, or 4 GiB from address 0: nothing to add and nothing to check. Number 0.
    pub(crate) const FLAT: CodeSegment = CodeSegment { base: 0, limit: u64::MAX };

    /// The one in force.
    #[inline(always)]
    pub(crate) fn of(cpu: &Cpu) -> CodeSegment {
        if cpu.key.0 & ModeKey::FLAT != 0 {
            return CodeSegment::FLAT;
        }
        let cs = cpu.cs();
        CodeSegment { base: cs.base, limit: u64::from(cs.limit) }
    }

    /// The linear address of `rip`.
    #[inline(always)]
    pub(crate) fn linear(&self, rip: u64) -> u64 {
        if *self == CodeSegment::FLAT { rip } else { self.base.wrapping_add(rip) & 0xFFFF_FFFF }
    }
}

/// The code segments that were seen, numbered.
#[derive(Debug)]
pub(crate) struct CodeSegments {
    numbers: HashMap<CodeSegment, u32>,
    last: (CodeSegment, u32),
}

impl Default for CodeSegments {
    fn default() -> CodeSegments {
        let flat = CodeSegment::FLAT;
        CodeSegments { numbers: HashMap::from_iter([(flat, 0)]), last: (flat, 0) }
    }
}

impl CodeSegments {
    /// The segment's number; none where there is no room for another one.
    #[inline(always)]
    pub(crate) fn number(&mut self, segment: CodeSegment) -> Option<u32> {
        if self.last.0 != segment {
            self.last = (segment, self.find(segment)?);
        }
        Some(self.last.1)
    }

    /// The segment's number, if it has one.
    #[inline]
    pub(crate) fn known(&self, segment: CodeSegment) -> Option<u32> {
        if self.last.0 == segment {
            return Some(self.last.1);
        }
        if segment == CodeSegment::FLAT {
            return Some(0);
        }
        self.numbers.get(&segment).copied()
    }

    fn find(&mut self, segment: CodeSegment) -> Option<u32> {
        let next = self.numbers.len() as u32;
        if let Some(number) = self.known(segment) {
            return Some(number);
        }
        if self.numbers.len() >= MAX_SEGMENTS {
            return None;
        }
        self.numbers.insert(segment, next);
        Some(next)
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        *self = CodeSegments::default();
    }
}
