//! Looking at a machine, and stepping it as lockstep does.

use super::{Machine, MachineError};
use crate::vcpu::Runner;
use softmmu::{GuestRam, StaleUses};

impl Machine {
    /// Keeps every translation of an address until the guest invalidates it, however many it uses:
    /// `--strict`.
    pub fn set_strict(&mut self) {
        self.vcpus.iter_mut().for_each(|vcpu| vcpu.mmu.keep_translations());
    }

    /// What the guest got from translations that its page tables no longer had, where
    /// [`Machine::set_strict`] asked for the count.
    pub(super) fn stale_uses(&self) -> Option<StaleUses> {
        let mut sum = StaleUses::default();
        for vcpu in &self.vcpus {
            sum.merge(vcpu.mmu.stale_uses()?);
        }
        Some(sum)
    }

    /// Why guest code is interpreted though the translator was asked for: the host refused what it
    /// needs.
    pub fn refusal(&self) -> Option<&jit::EngineError> {
        self.refusal.as_ref()
    }

    /// Gives the boot processor a translator that works as `config` says.
    ///
    /// # Errors
    /// [`MachineError::Engine`] where the host refuses what it needs.
    pub(crate) fn set_translator(
        &mut self,
        config: jit::Config,
    ) -> Result<&mut jit::Engine, MachineError> {
        self.vcpus[0].set_runner(Runner::Jit(Box::new(jit::Engine::new(config)?)));
        match &mut self.vcpus[0].engine {
            Runner::Jit(engine) => Ok(engine),
            Runner::Interp(_) => unreachable!("set above"),
        }
    }

    /// The boot processor's translator.
    pub(crate) fn translator(&self) -> Option<&jit::Engine> {
        self.vcpus[0].engine.translator()
    }

    /// Runs the boot processor for `count` instructions or until it halts.
    pub(crate) fn run_slice(&mut self, count: u64) {
        self.vcpus[0].run_slice(count);
    }

    /// Calls the devices whose alarms are due. Returns the next alarm's time.
    pub(crate) fn run_timers(&self) -> Option<u64> {
        self.timers.run_due()
    }

    /// The boot processor's next instruction: RIP and assembly.
    pub(crate) fn disassemble_next(&mut self) -> (u64, String) {
        let vcpu = &mut self.vcpus[0];
        let linear = interp::engine::code_linear(&vcpu.cpu);
        let mut bytes = [0; 15];
        let (valid, _) = vcpu.mmu.fetch_bytes(linear, &mut bytes);
        let (rip, bits) = (vcpu.cpu.rip, vcpu.cpu.key.bits());
        (rip, crate::lockstep::assembly(&bytes[..valid], bits, rip))
    }

    /// The first byte of RAM in which two machines built alike differ: its address and both
    /// values.
    pub(crate) fn first_memory_difference(
        &self,
        other: &Machine,
        chunk: usize,
    ) -> Option<(u64, u8, u8)> {
        let (mut a, mut b) = (vec![0; chunk], vec![0; chunk]);
        for range in self.ram.ranges() {
            for gpa in (range.gpa..range.end()).step_by(chunk) {
                let len = chunk.min((range.end() - gpa) as usize);
                let read = |ram: &GuestRam, to: &mut [u8]| ram.read(gpa, to).is_ok();
                if !read(&self.ram, &mut a[..len]) || !read(&other.ram, &mut b[..len]) {
                    continue;
                }
                if a[..len] != b[..len] {
                    let at = (0..len).find(|&i| a[i] != b[i])?;
                    return Some((gpa + at as u64, a[at], b[at]));
                }
            }
        }
        None
    }
}
