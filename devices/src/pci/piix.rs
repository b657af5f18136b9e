//! The functions of the PIIX: ISA bridge, IDE, power management.
//!
//! Sources: Intel 82371SB (PIIX3) datasheet (290550), Intel 82371AB (PIIX4) datasheet (290562).

use std::sync::Arc;

use super::config::{ConfigSpace, Identity, register};
use super::function::{Behaviour, Decode, Function, PMBASE, PMREGMISC, Plain, Window};
use super::intx::{IntxRouter, PIRQ_COUNT};
use crate::bus::SharedDevice;
use crate::legacy::acpi_pm;

/// PIRQRCA of the ISA bridge.
pub const PIRQRC: u8 = 0x60;
/// DEVACTB of the power management function; bit 25 is APMC_EN, SMI on a write to port 0xB2.
const DEVACTB: u8 = 0x58;
/// Bytes of the bus-master IDE registers, both channels.
pub const BUS_MASTER_BYTES: u32 = 16;

/// The subsystem IDs that QEMU's boards have, which its firmware and drivers know.
const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);

struct IsaBridge(Arc<IntxRouter>);

impl Behaviour for IsaBridge {
    fn written(&mut self, config: &mut ConfigSpace, _offset: u8, _len: usize) {
        let mut routes = [0; PIRQ_COUNT];
        for (register, route) in (PIRQRC..).zip(&mut routes) {
            *route = config.get(register);
        }
        self.0.set_routes(routes);
    }
}

/// The ISA bridge, function 0 of the PIIX3.
pub fn isa_bridge(router: Arc<IntxRouter>) -> Function {
    let mut config = ConfigSpace::new(Identity {
        vendor: 0x8086,
        device: 0x7000,
        class: 0x06_0100,
        revision: 0,
        subsystem: SUBSYSTEM,
        interrupt_pin: 0,
    });
    config.set_u16(register::COMMAND, 0x0007);
    config.allow(register::COMMAND, &[0x00, 0x01]);
    config.set_u16(register::STATUS, 0x0200);
    config.set(register::HEADER_TYPE, 0x80);
    // IORT, XBCS: held, nothing depends on them.
    config.set(0x4c, 0x4d);
    config.allow(0x4c, &[0xff, 0, 0xff, 0xff]);
    config.set(0x4e, 0x03);
    config.set_u32(PIRQRC, 0x8080_8080);
    config.allow(PIRQRC, &[0x8f; 4]);
    // TOM, MSTAT, MBIRQ0, motherboard DMA, chip selects, APIC base, deterministic latency.
    config.allow(0x69, &[0xff]);
    config.allow(0x70, &[0xef]);
    config.allow(0x76, &[0x8f, 0x8f, 0xff, 0xff]);
    config.allow(0x80, &[0x7f, 0, 0x0f]);
    // SMI control: nothing makes an SMI.
    config.allow(0xa0, &[0x1f, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    Function::new(config, Vec::new(), Box::new(IsaBridge(router)))
}

/// The IDE controller, function 1 of the PIIX3: two channels at their legacy ports, enabled, and
/// `bus_master` behind BAR 4, which sees offsets from `first_offset`.
pub fn ide(bus_master: SharedDevice, first_offset: u64) -> Function {
    let mut config = ConfigSpace::new(Identity {
        vendor: 0x8086,
        device: 0x7010,
        // Both channels in compatibility mode, bus master capable.
        class: 0x01_0180,
        revision: 0,
        subsystem: SUBSYSTEM,
        interrupt_pin: 0,
    });
    config.set_u16(register::STATUS, 0x0280);
    // IDETIM of both channels: bit 15 decodes the ports, which are always there.
    config.set_u32(0x40, 0x8000_8000);
    config.allow(0x40, &[0xff, 0x73, 0xff, 0x73]);
    config.allow(0x44, &[0xff]);
    let window =
        Window::new(Decode::Io(register::BAR0 + 16), BUS_MASTER_BYTES, first_offset, bus_master);
    Function::new(config, vec![window], Box::new(Plain))
}

/// The power management function, function 3 of the PIIX4. `registers` are an
/// [`acpi_pm::AcpiPmDevice`], mapped at port `base` already, which PMBASE then says.
pub fn power_management(registers: SharedDevice, base: u16) -> Function {
    let mut config = ConfigSpace::new(Identity {
        vendor: 0x8086,
        device: 0x7113,
        class: 0x06_8000,
        revision: 3,
        subsystem: SUBSYSTEM,
        // SCI is on IRQ 9 whatever this says; drivers look for a pin all the same.
        interrupt_pin: 1,
    });
    config.set_u16(register::STATUS, 0x0280);
    config.set(register::INTERRUPT_LINE, 9);
    config.set_u32(PMBASE, u32::from(base) | 1);
    config.allow(PMBASE, &[0xc0, 0xff]);
    config.set(PMREGMISC, 1);
    config.allow(PMREGMISC, &[1]);
    // COUNTA to GPICTL, DEVRES: held. APMC_EN is set from the start: it tells firmware that SMI
    // handlers are somebody else's business, and there is no SMM for it to set up.
    config.allow(0x44, &[0xff; 0x1c]);
    config.set_u32(DEVACTB, 1 << 25);
    config.allow(DEVACTB, &[0xff, 0xff, 0xff, 0xfd]);
    config.allow(0x60, &[0xff; 0x20]);
    // SMBus base and host configuration: there is no SMBus, so it cannot be switched on.
    config.set_u32(0x90, 1);
    config.allow(0x90, &[0xf0, 0xff]);
    let window = Window::new(Decode::PmBase, acpi_pm::BLOCK_BYTES as u32, 0, registers);
    Function::new(config, vec![window.mapped_at(base.into())], Box::new(Plain))
}
