//! Page walks for people: every entry on the way, without touching accessed or dirty flags.
//! For post-mortems and debuggers.

use std::fmt;

use x86::control::cr4;

use crate::mmu::Mmu;
use crate::paging::PagingMode;
use crate::walk::Slot;
use crate::walk::entry::{FRAME, P, PS, RW, US, XD};

/// One paging-structure entry of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkStep {
    /// The manual's name of the entry: PML4E, PDPTE, PDE, ...
    pub name: &'static str,
    /// Guest-physical address of the entry. For the PDPTE registers of PAE paging, that of the
    /// entry that CR3 designates.
    pub gpa: u64,
    /// Its value.
    pub value: u64,
    /// Set bits that are reserved.
    pub reserved: u64,
}

impl WalkStep {
    /// Whether the walk goes on behind this entry.
    pub fn usable(&self) -> bool {
        self.value & P != 0 && self.reserved == 0
    }
}

/// All entries that a translation uses, as far as it gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalkTrace {
    /// The linear address.
    pub linear: u64,
    /// The entries from the root on. Empty without paging.
    pub steps: Vec<WalkStep>,
    /// The guest-physical address, if the walk reaches a page. Rights are not considered.
    pub gpa: Option<u64>,
}

impl fmt::Display for WalkStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x} = {:#x}: ", self.name, self.gpa, self.value)?;
        if self.value & P == 0 {
            return f.write_str("not present");
        }
        f.write_str("present")?;
        f.write_str(if self.value & RW != 0 { ", writable" } else { ", read-only" })?;
        f.write_str(if self.value & US != 0 { ", user" } else { ", supervisor" })?;
        if self.value & XD != 0 {
            f.write_str(", no execute")?;
        }
        if self.reserved != 0 {
            write!(f, ", reserved bits {:#x} are set", self.reserved)?;
        }
        Ok(())
    }
}

impl fmt::Display for WalkTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "linear address {:#x}:", self.linear)?;
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        match self.gpa {
            Some(gpa) => write!(f, "  physical address {gpa:#x}"),
            None => f.write_str("  no translation"),
        }
    }
}

const NAMES: [&str; 5] = ["PTE", "PDE", "PDPTE", "PML4E", "PML5E"];

impl Mmu {
    /// Walks the tables as they are now for a report. No side effects on the guest; the TLB is
    /// not asked.
    pub fn trace_walk(&self, linear: u64) -> WalkTrace {
        let paging = self.paging_internal();
        let walker = self.walker_for(paging);
        let mut trace = WalkTrace { linear, steps: Vec::new(), gpa: None };
        let (top, index_bits, size, mut table) = match paging.mode {
            PagingMode::None => {
                trace.gpa = Some(linear & walker.a20);
                return trace;
            }
            PagingMode::Legacy32 => (2, 10, 4, paging.state.cr3 & 0xFFFF_F000),
            PagingMode::Pae => (3, 9, 8, paging.state.cr3 & 0xFFFF_FFE0),
            PagingMode::Level4 => (4, 9, 8, paging.state.cr3 & FRAME),
            PagingMode::Level5 => (5, 9, 8, paging.state.cr3 & FRAME),
        };
        for level in (1..=top).rev() {
            let shift = 12 + index_bits * (level - 1);
            let register = paging.mode == PagingMode::Pae && level == 3;
            let mask = if register { 3 } else { (1 << index_bits) - 1 };
            let index = linear >> shift & mask;
            let slot = Slot { gpa: table.wrapping_add(index * size), size };
            let value = match paging.pdpte.get(index as usize) {
                Some(value) if register => *value,
                _ => walker.read(slot),
            };
            let pse = paging.mode != PagingMode::Legacy32 || paging.state.cr4 & cr4::PSE != 0;
            let large = value & PS != 0 && level > 1 && pse && !register;
            let reserved = if register { 0 } else { value & walker.reserved_bits(level, large) };
            let name = NAMES.get(level as usize - 1).copied().unwrap_or("entry");
            let step = WalkStep { name, gpa: slot.gpa & walker.a20, value, reserved };
            trace.steps.push(step);
            if !step.usable() {
                break;
            }
            table = value & FRAME;
            if level == 1 || large {
                let inside = (1u64 << shift) - 1;
                let frame = if large && paging.mode == PagingMode::Legacy32 {
                    (value >> 13 & 0xFF) << 32 | value & 0xFFC0_0000
                } else {
                    value & FRAME & !inside
                };
                trace.gpa = Some((frame | linear & inside) & walker.a20);
                break;
            }
        }
        trace
    }
}
