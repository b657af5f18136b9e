//! The board: every fixed address and interrupt line, in one place.
//!
//! docs/BOARD.md draws it.

/// Where the window for PCI and APIC registers begins: RAM that does not fit below continues at
/// 4 GiB.
pub const MMIO_START: u64 = 0xC000_0000;

/// Where the window of PCI's base address registers ends: its last byte.
pub const PCI_WINDOW_LAST: u32 = 0xFEBF_FFFF;

/// ISA interrupt lines.
pub mod irq {
    /// 8254 channel 0. Wired to pin 2 of the I/O APIC.
    pub const PIT: u8 = 0;
    /// Keyboard.
    pub const KEYBOARD: u8 = 1;
    /// COM1.
    pub const COM1: u8 = 4;
    /// Floppy.
    pub const FLOPPY: u8 = 6;
    /// Real-time clock.
    pub const RTC: u8 = 8;
    /// ACPI system control interrupt: level, active high.
    pub const SCI: u8 = 9;
    /// PS/2 mouse.
    pub const MOUSE: u8 = 12;
    /// Errors of the x87, where CR0.NE is clear.
    pub const COPROCESSOR: u8 = 13;
    /// First IDE channel.
    pub const IDE_PRIMARY: u8 = 14;
    /// Second IDE channel.
    pub const IDE_SECONDARY: u8 = 15;
    /// Where PIRQA# to PIRQD# go, as SeaBIOS sets the ISA bridge's registers.
    pub const PIRQ: [u8; 4] = [10, 10, 11, 11];
    /// The level-triggered ones.
    pub const LEVEL: [u8; 3] = [SCI, 10, 11];
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
    /// First port of PCI's base address registers.
    pub const PCI_WINDOW: u16 = 0xC000;
    /// Command block of the first IDE channel.
    pub const IDE_PRIMARY: u16 = 0x1F0;
    /// Command block of the second IDE channel.
    pub const IDE_SECONDARY: u16 = 0x170;
}

/// Functions on PCI bus 0.
pub mod pci {
    use devices::pci::Address;

    /// 82441FX.
    pub const HOST_BRIDGE: Address = Address::new(0, 0);
    /// PIIX3.
    pub const ISA_BRIDGE: Address = Address::new(1, 0);
    /// PIIX3 IDE.
    pub const IDE: Address = Address::new(1, 1);
    /// PIIX4 power management.
    pub const POWER: Address = Address::new(1, 3);
    /// VGA.
    pub const VGA: Address = Address::new(2, 0);
}

/// The I/O APIC pin that ISA line `irq` is wired to: its own number, but for the timer.
pub const fn ioapic_pin(irq: u8) -> u8 {
    if irq == irq::PIT { 2 } else { irq }
}
