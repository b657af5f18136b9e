//! The bytes of an FXSAVE or XSAVE area.

use super::component::{Layout, registers};
use super::legacy::{load_x87, save_x87};
use crate::families::vector::memory;
use softmmu::{Access, Mmu};
use x86::control::xcr0;
use x86::fpu::MXCSR_MASK;
use x86::{Cpu, Fault};

/// The longest area: the standard format up to PKRU.
const MAX: usize = 2696;

/// An area, and which of its bytes an instruction writes.
pub(super) struct Area {
    bytes: [u8; MAX],
    /// Ranges written, at most: two of x87, MXCSR, XMM, two header words, five components.
    ranges: [(usize, usize); 16],
    count: usize,
}

impl Default for Area {
    fn default() -> Area {
        Area { bytes: [0; MAX], ranges: [(0, 0); 16], count: 0 }
    }
}

/// The header of an area, as XRSTOR checks it.
pub(super) struct Header {
    pub(super) xstate_bv: u64,
    pub(super) xcomp_bv: u64,
    /// Bytes 16 to 23 are not zero.
    pub(super) third_word_set: bool,
    /// Bytes 16 to 63 are not all zero.
    pub(super) reserved_set: bool,
}

impl Header {
    /// Reads the header of the area at `address`.
    pub(super) fn read(mmu: &mut Mmu, address: u64) -> Result<Header, Fault> {
        let mut words = [0u64; 8];
        for (i, word) in words.iter_mut().enumerate() {
            *word = mmu.load(address.wrapping_add(512 + 8 * i as u64))?;
        }
        Ok(Header {
            xstate_bv: words[0],
            xcomp_bv: words[1],
            third_word_set: words[2] != 0,
            reserved_set: words[2..].iter().any(|&w| w != 0),
        })
    }
}

impl Area {
    /// Reads the first `size` bytes.
    pub(super) fn load(
        cpu: &mut Cpu,
        mmu: &mut Mmu,
        address: u64,
        size: usize,
    ) -> Result<Area, Fault> {
        let mut area = Area::default();
        memory::read(cpu, mmu, address, &mut area.bytes[..size.min(MAX)])?;
        Ok(area)
    }

    /// Writes the bytes that were put, all or none; all `size` bytes must be writable.
    pub(super) fn store(
        &self,
        cpu: &mut Cpu,
        mmu: &mut Mmu,
        address: u64,
        size: usize,
    ) -> Result<(), Fault> {
        mmu.probe(address, size, Access::Write)?;
        for &(start, end) in &self.ranges[..self.count] {
            let at = memory::next(cpu, address, start as u64);
            memory::write(cpu, mmu, at, &self.bytes[start..end])?;
        }
        Ok(())
    }

    /// Puts bytes that [`Area::store`] writes.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.extend(offset, offset + bytes.len());
    }

    /// Notes a range, joined to the last one where it goes on from there.
    fn extend(&mut self, start: usize, end: usize) {
        if let Some(last) = self.ranges[..self.count].last_mut()
            && last.1 == start
        {
            last.1 = end;
        } else if let Some(free) = self.ranges.get_mut(self.count) {
            *free = (start, end);
            self.count += 1;
        }
    }

    fn word(&self, offset: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[offset..offset + 8]);
        u64::from_le_bytes(word)
    }

    /// MXCSR and MXCSR_MASK.
    pub(super) fn save_mxcsr(&mut self, cpu: &Cpu) {
        self.put(24, &cpu.mxcsr.to_le_bytes());
        self.put(28, &MXCSR_MASK.to_le_bytes());
    }

    /// MXCSR.
    pub(super) fn mxcsr(&self) -> u32 {
        self.word(24) as u32
    }

    /// Puts the components of `mask`.
    pub(super) fn save(&mut self, cpu: &Cpu, layout: &Layout, mask: u64, wide_pointers: bool) {
        if mask & xcr0::X87 != 0 {
            let (control, stack) = save_x87(cpu, wide_pointers);
            self.put(0, &control);
            for (i, st) in stack.iter().enumerate() {
                self.put(32 + 16 * i, st);
            }
        }
        for piece in vector_pieces(cpu, layout, mask) {
            for (i, &word) in cpu.vector[piece.register].0[piece.words()].iter().enumerate() {
                self.put(piece.offset + 8 * i, &word.to_le_bytes());
            }
        }
        if mask & xcr0::OPMASK != 0 {
            for (i, k) in cpu.opmask.iter().enumerate() {
                self.put(layout.offset(5) + 8 * i, &k.to_le_bytes());
            }
        }
        if mask & xcr0::PKRU != 0 {
            self.put(layout.offset(9), &u64::from(cpu.pkru).to_le_bytes());
        }
    }

    /// Takes the components of `mask` over. MXCSR is left alone.
    pub(super) fn restore(&self, cpu: &mut Cpu, layout: &Layout, mask: u64, wide_pointers: bool) {
        if mask & xcr0::X87 != 0 {
            load_x87(cpu, &self.bytes, wide_pointers);
        }
        for piece in vector_pieces(cpu, layout, mask) {
            for (i, word) in cpu.vector[piece.register].0[piece.words()].iter_mut().enumerate() {
                *word = self.word(piece.offset + 8 * i);
            }
        }
        if mask & xcr0::OPMASK != 0 {
            for (i, k) in cpu.opmask.iter_mut().enumerate() {
                *k = self.word(layout.offset(5) + 8 * i);
            }
        }
        if mask & xcr0::PKRU != 0 {
            cpu.pkru = self.word(layout.offset(9)) as u32;
        }
    }
}

/// A part of a vector register and its place in an area.
#[derive(Clone, Copy)]
struct Piece {
    register: usize,
    first_word: usize,
    count: usize,
    offset: usize,
}

impl Piece {
    fn words(&self) -> std::ops::Range<usize> {
        self.first_word..self.first_word + self.count
    }
}

/// The parts of vector registers that the components of `mask` hold, in the current mode.
fn vector_pieces(cpu: &Cpu, layout: &Layout, mask: u64) -> impl Iterator<Item = Piece> + use<> {
    // Component, first register, how many, first word, how many, offset.
    let count = registers(cpu);
    let upper = if cpu.is_long() { 16 } else { 0 };
    let rows = [
        (xcr0::SSE, 0, count, 0, 2, 160),
        (xcr0::AVX, 0, count, 2, 2, layout.offset(2)),
        (xcr0::ZMM_HI256, 0, count, 4, 4, layout.offset(6)),
        (xcr0::HI16_ZMM, 16, upper, 0, 8, layout.offset(7)),
    ];
    rows.into_iter().filter(move |row| mask & row.0 != 0).flat_map(
        |(_, first, registers, first_word, count, offset)| {
            (0..registers).map(move |i| Piece {
                register: first + i,
                first_word,
                count,
                offset: offset + 8 * count * i,
            })
        },
    )
}
