//! The interpreter one step at a time, for an engine that translates what is hot.

use super::{End, Engine, Exit, PageMemo, needs_single_step};
use softmmu::{CodeWrite, Mmu};
use x86::{Cpu, Fault};

impl Engine {
    /// Executes one block of cold code, or one instruction where blocks are not exact enough, and
    /// delivers the exception it ends in; at most `room` instructions. The caller polls requests, counts instructions and calls
    /// [`Engine::drop_code`].
    pub fn step(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, room: u64) -> Option<Exit> {
        let end = if needs_single_step(cpu) {
            self.single_step(cpu, mmu)
        } else {
            let mut page = PageMemo::NONE;
            self.next_block(cpu, mmu, &mut page, room)
        };
        match end {
            End::Branch | End::Sync => None,
            End::Stop => Some(Exit::Stopped),
            End::Fault(fault) => self.deliver(cpu, mmu, fault),
        }
    }

    /// Delivers an exception of the instruction at `Cpu::rip`.
    pub fn deliver(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, fault: Fault) -> Option<Exit> {
        self.raise(cpu, mmu, fault).err().map(Exit::TripleFault)
    }

    /// Drops decoded blocks whose bytes were written: what `Mmu::take_code_writes` gave.
    pub fn drop_code(&mut self, writes: &[CodeWrite]) {
        self.stats.blocks_invalidated += self.cache.invalidate(writes);
    }
}
