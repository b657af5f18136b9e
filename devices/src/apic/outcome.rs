//! What the machine must do after a register write or a message.

#[cfg(doc)]
use super::local::LocalApic;
use super::message::InterruptMessage;

/// What the machine must carry out after a register write. With anything but
/// `None`, ask [`LocalApic::next_deadline`] again; after any write, ask
/// [`LocalApic::interrupt_pending`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing outside this APIC.
    None,
    /// Route this message to the local APICs.
    Ipi(InterruptMessage),
    /// Broadcast the end of this level-triggered vector to the I/O APICs.
    Eoi(u8),
    /// [`LocalApic::next_deadline`] may have changed.
    TimerChanged,
    /// [`LocalApic::mode`] or [`LocalApic::mmio_base`] may have changed, and
    /// with them CPUID.1:EDX.APIC and the memory map.
    BaseChanged,
}

/// What the processor must do about a message or a local interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Reception {
    /// Nothing: not accepted.
    Dropped,
    /// Look at [`LocalApic::interrupt_pending`].
    Interrupt,
    /// Take a nonmaskable interrupt.
    Nmi,
    /// Take a system management interrupt.
    Smi,
    /// Reset as by INIT, [`LocalApic::init_reset`] included; application
    /// processors then wait for a start-up IPI.
    Init,
    /// If waiting for it, start at this vector times 4096.
    StartUp(u8),
    /// Take an interrupt whose vector the 8259A supplies.
    ExtInt,
}
