//! Exceptions and interrupts: delivery through the IVT and the IDT (SDM vol. 3A, chapter 6).
//!
//! `real`, `protected` and `long` deliver in their modes; each changes no CPU state before the
//! last access that can fault. This file holds what is common: DR6 and CR2, RF, escalation.

#[cfg(test)]
mod debug_tests;
mod explain;
mod frame;
pub(crate) mod iret;
mod long;
mod protected;
mod real;
#[cfg(test)]
mod tests;
pub(crate) mod v86;

use crate::sync;
use frame::{Event, with_ext};
use softmmu::Mmu;
use std::fmt;
use x86::control::{dr6, dr7};
use x86::cpu::Shadow;
use x86::{Activity, Cpu, Fault, Mode, Vector, flags};

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

/// One step on the way to shutdown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The exception that could not be delivered.
    pub fault: Fault,
    /// The linear address of a page fault.
    pub address: Option<u64>,
}

/// The CPU has shut down: an exception could not be delivered, nor #DF after it.
#[derive(Clone, Debug)]
pub struct TripleFault {
    /// The faults in order: each one but the first was met while delivering the one before.
    pub chain: Vec<Link>,
    /// CS and RIP where it began.
    pub at: (u16, u64),
}

impl fmt::Display for TripleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "triple fault at {:#06x}:{:#x}: ", self.at.0, self.at.1)?;
        for (n, link) in self.chain.iter().enumerate() {
            if n > 0 {
                f.write_str(", then ")?;
            }
            write!(f, "{}", link.fault)?;
            if let Some(address) = link.address {
                write!(f, " at {address:#x}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for TripleFault {}

/// The classes of exceptions that decide between serial delivery and #DF (SDM vol. 3A, table 6-4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

impl Class {
    fn of(fault: Fault) -> Class {
        const CONTRIBUTORY: [Vector; 5] =
            [Vector::DE, Vector::TS, Vector::NP, Vector::SS, Vector::GP];
        if fault.is(Vector::PF) {
            Class::PageFault
        } else if fault.is(Vector::DF) {
            Class::DoubleFault
        } else if CONTRIBUTORY.iter().any(|&v| fault.is(v)) {
            Class::Contributory
        } else {
            Class::Benign
        }
    }
}

/// The exception to deliver after `second` was met while delivering `first` (SDM vol. 3A, table
/// 6-5); `None` is shutdown.
fn escalate(first: Fault, second: Fault) -> Option<Fault> {
    match (Class::of(first), Class::of(second)) {
        (Class::DoubleFault, Class::Contributory | Class::PageFault | Class::DoubleFault) => None,
        (Class::Contributory, Class::Contributory)
        | (Class::PageFault, Class::Contributory | Class::PageFault) => {
            Some(Fault::with_code(Vector::DF, 0))
        }
        (Class::Benign | Class::DoubleFault, _)
        | (Class::Contributory | Class::PageFault, Class::Benign | Class::DoubleFault)
        | (Class::Contributory, Class::PageFault) => Some(second),
    }
}

/// Delivers an exception of the current instruction: pushes the frame and enters the handler,
/// escalating to #DF and shutdown (SDM vol. 3A, section 6.15, table 6-5).
///
/// `Cpu::rip` is what the frame shall hold: the instruction's own address for faults, the next
/// one's for traps.
///
/// # Errors
/// [`TripleFault`] when the CPU shuts down.
pub fn raise(cpu: &mut Cpu, mmu: &mut Mmu, fault: Fault) -> Result<(), Box<TripleFault>> {
    let at = (cpu.cs().selector, cpu.rip);
    let mut chain = Vec::new();
    let mut current = fault;
    loop {
        let address = note(cpu, mmu, current);
        chain.push(Link { fault: current, address });
        let general_detect = current.is(Vector::DB) && cpu.pending_debug & dr6::BD != 0;
        if current.is(Vector::DB) {
            report_debug(cpu);
        }
        match deliver(cpu, mmu, Event::exception(current, general_detect)) {
            Ok(()) => return Ok(()),
            Err(second) => match escalate(current, second) {
                Some(next) => {
                    // A page fault or contributory fault that turns into #DF still counts.
                    if next != second {
                        let address = note(cpu, mmu, second);
                        chain.push(Link { fault: second, address });
                    }
                    current = next;
                }
                None => {
                    let address = note(cpu, mmu, second);
                    chain.push(Link { fault: second, address });
                    return Err(Box::new(TripleFault { chain, at }));
                }
            },
        }
    }
}

/// Writes CR2 for a page fault and gives its address.
fn note(cpu: &mut Cpu, mmu: &Mmu, fault: Fault) -> Option<u64> {
    if !fault.is(Vector::PF) {
        return None;
    }
    cpu.cr2 = mmu.fault_address;
    Some(cpu.cr2)
}

/// Moves the pending debug conditions to DR6, which keeps BD, BS and BT of earlier ones, clears
/// DR7.GD and, in IA32_DEBUGCTL, LBR and BTF (SDM vol. 3B, sections 18.2.3, 18.2.4 and 18.4.1).
fn report_debug(cpu: &mut Cpu) {
    const LBR_AND_BTF: u64 = 3;
    cpu.dr6 = cpu.dr6 & !dr6::B | cpu.pending_debug | dr6::FIXED;
    cpu.pending_debug = 0;
    cpu.dr7 &= !dr7::GD;
    cpu.debugctl &= !LBR_AND_BTF;
}

/// Delivers INT n, INT3, INTO or INT1, on behalf of their handlers. `Cpu::rip` lies behind the
/// instruction.
///
/// # Errors
/// The fault of the delivery, with no CPU state changed; the handler returns it.
pub fn interrupt(cpu: &mut Cpu, mmu: &mut Mmu, vector: u8, source: Source) -> Result<(), Fault> {
    let before = cpu.pending_debug;
    deliver(cpu, mmu, Event::interrupt(vector, source))?;
    if source == Source::Icebp {
        // DR6 stays, unless a breakpoint of the MOV SS before waits to be reported: one #DB is
        // for both. What the frame's pushes hit comes behind.
        let pushes = cpu.pending_debug & !before;
        cpu.dr7 &= !dr7::GD;
        if before != 0 {
            cpu.pending_debug = before;
            report_debug(cpu);
            cpu.pending_debug = pushes;
        }
    }
    Ok(())
}

/// Delivers an external maskable interrupt between instructions and wakes the CPU from HLT. The
/// caller has checked `Cpu::interrupts_open`.
///
/// # Errors
/// [`TripleFault`] when the CPU shuts down.
pub fn external(cpu: &mut Cpu, mmu: &mut Mmu, vector: u8) -> Result<(), Box<TripleFault>> {
    deliver_external(cpu, mmu, vector)
}

/// Delivers a non-maskable interrupt between instructions and wakes the CPU from HLT; further
/// ones are blocked until the next IRET. The caller has checked `Cpu::nmi_blocked` and that no MOV
/// SS shadow is in force.
///
/// # Errors
/// [`TripleFault`] when the CPU shuts down.
pub fn nmi(cpu: &mut Cpu, mmu: &mut Mmu) -> Result<(), Box<TripleFault>> {
    cpu.nmi_blocked = true;
    deliver_external(cpu, mmu, Vector::NMI as u8)
}

fn deliver_external(cpu: &mut Cpu, mmu: &mut Mmu, vector: u8) -> Result<(), Box<TripleFault>> {
    let result = match deliver(cpu, mmu, Event::interrupt(vector, Source::External)) {
        Ok(()) => Ok(()),
        Err(fault) => raise(cpu, mmu, fault),
    };
    if result.is_err() {
        cpu.activity = Activity::Shutdown;
    }
    result
}

/// Enters the handler of `event`.
fn deliver(cpu: &mut Cpu, mmu: &mut Mmu, event: Event) -> Result<(), Fault> {
    let result = match cpu.mode {
        Mode::Real => real::deliver(cpu, mmu, event),
        Mode::Virtual8086 | Mode::Protected => protected::deliver(cpu, mmu, event),
        Mode::Compatibility | Mode::Long => long::deliver(cpu, mmu, event),
    };
    match result {
        Ok(()) => {
            cpu.shadow = Shadow::None;
            cpu.repeating = false;
            // A single-step trap of HLT wakes the CPU.
            cpu.activity = Activity::Running;
            sync::mode_changed(cpu, mmu);
            Ok(())
        }
        Err(fault) if event.is_external() => Err(with_ext(fault)),
        Err(fault) => Err(fault),
    }
}

/// Flags cleared on entry to a handler through a gate; an interrupt gate clears IF besides.
const CLEARED_BY_GATE: u64 = flags::TF | flags::NT | flags::RF | flags::VM;
