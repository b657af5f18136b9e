//! The board: every fixed address and interrupt line, in one place.
//!
//! docs/BOARD.md draws it.

/// Where the window for PCI and APIC registers begins: RAM that does not fit below continues at
/// 4 GiB.
pub const MMIO_START: u64 = 0xC000_0000;

/// ISA interrupt lines.
pub mod irq {
    /// 8254 channel 0. Wired to pin 2 of the I/O APIC.
    pub const PIT: u8 = 0;
    /// Keyboard.
    pub const KEYBOARD: u8 = 1;
    /// COM1.
    pub const COM1: u8 = 4;
    /// Real-time clock.
    pub const RTC: u8 = 8;
    /// ACPI system control interrupt: level, active high.
    pub const SCI: u8 = 9;
    /// PS/2 mouse.
    pub const MOUSE: u8 = 12;
}

/// I/O ports that are not fixed by their device's datasheet.
pub mod port {
    /// First register of COM1.
    pub const COM1: u16 = 0x3F8;
    /// POST code latch.
    pub const POST: u16 = 0x80;
    /// ISA debug exit.
    pub const DEBUG_EXIT: u16 = 0xF4;
    /// Base of the power-management block: PM1a event registers.
    pub const PM_BASE: u16 = 0x600;
}

/// The I/O APIC pin that ISA line `irq` is wired to: its own number, but for the timer.
pub const fn ioapic_pin(irq: u8) -> u8 {
    if irq == irq::PIT { 2 } else { irq }
}
