//! What firmware would have programmed into the chipset, for kernels that boot without it: base
//! address registers, interrupt routing, shadow RAM.

use crate::board::{irq, pci, port};
use crate::interrupts::Interrupts;
use devices::pci::config::{command, register};
use devices::pci::{Address, PciRoot, i440fx, piix};
use devices::{BusDevice, lock};
use std::ops::RangeInclusive;

/// Number of base address registers of an ordinary function.
const BAR_COUNT: u8 = 6;
/// The 8259s' edge and level control registers.
const ELCR: u64 = 0x4D0;

/// Where the next window of one kind goes.
struct Space {
    next: u64,
    last: u64,
}

impl Space {
    /// A place for `size` bytes, a power of two, aligned to their size.
    fn take(&mut self, size: u64) -> Option<u32> {
        let start = self.next.next_multiple_of(size);
        let end = start + size;
        if end > self.last + 1 {
            return None;
        }
        self.next = end;
        u32::try_from(start).ok()
    }
}

/// Programs every function of bus 0. Memory windows go into `window`.
pub(super) fn assign(root: &mut PciRoot, window: RangeInclusive<u32>, interrupts: &Interrupts) {
    // All of the area below 1 MiB is RAM.
    let pam = [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33];
    root.write_config(pci::HOST_BRIDGE, i440fx::PAM0, &pam);
    root.write_config(pci::ISA_BRIDGE, piix::PIRQRC, &irq::PIRQ);
    let level = irq::LEVEL.iter().fold(0u16, |bits, irq| bits | 1 << irq);
    for (port, byte) in (ELCR..).zip(level.to_le_bytes()) {
        lock(&interrupts.pic).write(port, &[byte]);
    }

    let mut ports = Space { next: port::PCI_WINDOW.into(), last: 0xFFFF };
    let mut memory = Space { next: (*window.start()).into(), last: (*window.end()).into() };
    for address in root.addresses() {
        assign_function(root, address, &mut ports, &mut memory);
    }
}

fn assign_function(root: &mut PciRoot, address: Address, ports: &mut Space, memory: &mut Space) {
    let mut enable = 0;
    for bar in (0..BAR_COUNT).map(|index| register::BAR0 + 4 * index) {
        root.write_config(address, bar, &[0xFF; 4]);
        let mask = read(root, address, bar);
        let io = mask & 1 != 0;
        let size = u64::from(!(mask & if io { !3 } else { !15 })) + 1;
        if size > 1 << 31 {
            continue;
        }
        let (space, bit) =
            if io { (&mut *ports, command::IO) } else { (&mut *memory, command::MEMORY) };
        let place = space.take(size);
        if place.is_none() {
            tracing::warn!(?address, size, "no room for a PCI window");
        }
        root.write_config(address, bar, &place.unwrap_or(0).to_le_bytes());
        enable |= bit;
    }
    let pin = read(root, address, register::INTERRUPT_PIN) as u8;
    // Power management's line is the SCI's, whatever its pin.
    if pin != 0 && address != pci::POWER {
        let pirq = devices::pci::intx::pirq(address.slot, pin - 1);
        if let Some(&line) = irq::PIRQ.get(usize::from(pirq)) {
            root.write_config(address, register::INTERRUPT_LINE, &[line]);
        }
    }
    if address == pci::IDE {
        enable |= command::IO | command::MASTER;
    }
    let old = read(root, address, register::COMMAND) as u16;
    root.write_config(address, register::COMMAND, &(old | enable).to_le_bytes());
}

fn read(root: &PciRoot, address: Address, offset: u8) -> u32 {
    let mut value = [0; 4];
    root.read_config(address, offset, &mut value);
    u32::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_and_end() {
        let mut space = Space { next: 0x8000_0000, last: 0x82FF_FFFF };
        assert_eq!(space.take(0x1000), Some(0x8000_0000));
        assert_eq!(space.take(16 << 20), Some(0x8100_0000));
        assert_eq!(space.take(16 << 20), Some(0x8200_0000));
        assert_eq!(space.take(16), None);
    }
}
