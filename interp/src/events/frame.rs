//! What an event is and which flags its frame holds.

use super::Source;
use x86::{Cpu, Fault, Vector, flags};

/// An exception or interrupt about to be delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) vector: u8,
    pub(crate) source: Source,
    /// Pushed behind the frame.
    pub(crate) error_code: Option<u32>,
    /// The flags image is pushed with RF set.
    pub(crate) resume: bool,
}

impl Event {
    pub(crate) const fn interrupt(vector: u8, source: Source) -> Event {
        Event { vector, source, error_code: None, resume: false }
    }

    /// An exception. RF is pushed as one for faults, except instruction breakpoints, so that the
    /// instruction does not hit its breakpoint again on return (SDM vol. 3B, section 18.3.1.1).
    pub(crate) fn exception(fault: Fault, general_detect: bool) -> Event {
        // A fault with an error code is one of a new task when its trap bit is set.
        let resume = if fault.is(Vector::DB) {
            general_detect
        } else {
            let trap_or_abort =
                [Vector::BP, Vector::OF, Vector::NMI, Vector::DF, Vector::MC].map(|v| fault.is(v));
            (!fault.is_trap() || fault.error_code().is_some()) && !trap_or_abort.contains(&true)
        };
        Event {
            vector: fault.vector(),
            source: Source::Exception,
            error_code: fault.error_code(),
            resume,
        }
    }

    /// The error code of a fault about this event's IDT entry.
    pub(crate) const fn idt_code(self) -> u16 {
        (self.vector as u16) << 3 | 2
    }

    /// Faults of the delivery have the EXT bit in their error code: the program did not ask for
    /// the event (SDM vol. 3A, section 6.13).
    pub(crate) fn is_external(self) -> bool {
        self.source != Source::Software
    }

    /// RFLAGS as the frame holds them. RF is set too where a repeated string instruction is
    /// interrupted before its last iteration (SDM vol. 3B, section 18.3.1.1), so that it does not
    /// hit its breakpoint again.
    pub(crate) fn saved_flags(self, cpu: &Cpu) -> u64 {
        if self.resume || cpu.repeating { cpu.rflags | flags::RF } else { cpu.rflags }
    }
}

/// Adds the EXT bit to a fault whose error code names a selector or IDT entry.
pub(crate) fn with_ext(fault: Fault) -> Fault {
    const SELECTOR_SHAPED: [u8; 4] =
        [Vector::TS as u8, Vector::NP as u8, Vector::SS as u8, Vector::GP as u8];
    match fault.error_code() {
        Some(code) if SELECTOR_SHAPED.contains(&fault.vector()) => {
            Fault::from_bits(fault.to_bits() & 0xFFFF_FFFF | u64::from(code | 1) << 32)
        }
        _ => fault,
    }
}
