//! Booting without firmware: the kernel and the tables that firmware would leave.

use super::{Machine, MachineError};
use crate::board::{self, irq, port};
use crate::boot::{self, MemoryMap, Module, Protocol, RealModeLinux, RegionKind, Request};
use crate::config::Kernel;
use crate::vcpu::Wakening;
use devices::acpi::{self, BoardInfo};
use devices::apic::{IO_APIC_BASE, LOCAL_APIC_BASE};
use devices::hpet;
use devices::legacy::reset;
use vm_memory::{Bytes, GuestAddress};
use x86::Cpu;
use x86::cpuid::{Feature, Policy};

pub(super) fn board_info(policy: &Policy, cpu: &Cpu) -> BoardInfo {
    let leaf1 = policy.query(1, 0, cpu, true);
    BoardInfo {
        apic_ids: (0..policy.cpu_count).collect(),
        processor_signature: leaf1.eax,
        processor_features: leaf1.edx,
        local_apic_base: LOCAL_APIC_BASE as u32,
        io_apic_id: policy.cpu_count as u8,
        io_apic_base: IO_APIC_BASE as u32,
        power: acpi::PowerInfo::piix4(port::PM_BASE, irq::SCI),
        reset: acpi::ResetInfo { port: reset::RESET_PORT, value: reset::RESET_VALUE },
        serial_ports: vec![acpi::SerialPortInfo { port: port::COM1, irq: irq::COM1 }],
        keyboard_controller: true,
        vga: false,
        hpet: Some(acpi::HpetInfo {
            base: hpet::HPET_BASE as u32,
            event_timer_block_id: hpet::block_id(),
            minimum_tick: hpet::MINIMUM_TICK,
        }),
        firmware_configuration: None,
        devices: Vec::new(),
    }
}

/// The kernel's initrd and modules, in order.
fn modules(kernel: &Kernel) -> Vec<Module<'_>> {
    let initrd = kernel.initrd.iter().map(|data| Module { data, command_line: "initrd" });
    let more = kernel
        .modules
        .iter()
        .map(|module| Module { data: &module.data, command_line: &module.command_line });
    initrd.chain(more).collect()
}

/// The kernel as firmware starts it, if there is one.
pub(super) fn for_firmware(
    kernel: &Kernel,
    memory_size: u64,
) -> Result<Option<RealModeLinux>, MachineError> {
    if kernel.image.is_empty() {
        return Ok(None);
    }
    let below_4g = memory_size.min(board::MMIO_START);
    boot::real_mode(&kernel.image, &kernel.command_line, &modules(kernel), below_4g)
        .map(Some)
        .map_err(|error| MachineError::Kernel { name: kernel.name.clone(), error })
}

impl Machine {
    pub(super) fn load(&mut self, kernel: &Kernel, memory_size: u64) -> Result<(), MachineError> {
        // Without long mode a 64-bit kernel is entered as old boot loaders do, and says so itself.
        let long_mode = self.vcpus[0].cpu.policy.has(Feature::LongMode);
        let protocol = match kernel.protocol {
            Protocol::Best if !long_mode => Protocol::Linux32,
            Protocol::Linux64 if !long_mode => return Err(MachineError::NoLongMode),
            protocol => protocol,
        };
        let board = &self.chipset.board;
        let tables = acpi::build(board, acpi::TABLES_BASE, boot::vectors::HANDLERS)?;
        let memory = self.ram.guest_memory()?;
        let mut map = MemoryMap::pc(memory_size, board::MMIO_START);
        for (address, bytes) in &tables.regions {
            memory
                .write_slice(bytes, GuestAddress(*address))
                .map_err(|_| MachineError::NoRoom(memory_size))?;
        }
        boot::vectors::install(&memory).map_err(|_| MachineError::NoRoom(memory_size))?;
        map.set(acpi::TABLES_BASE, acpi::TABLES_END - acpi::TABLES_BASE, RegionKind::Reserved);
        let modules = modules(kernel);
        let loaded = boot::load(
            &memory,
            &Request {
                kernel: &kernel.image,
                name: &kernel.name,
                command_line: &kernel.command_line,
                modules: &modules,
                memory_map: &map,
                rsdp: Some(tables.rsdp),
                text_screen: board.vga,
                protocol,
            },
        )
        .map_err(|error| MachineError::Kernel { name: kernel.name.clone(), error })?;
        self.vcpus[0].set_wakening(Wakening::WakingVector(tables.facs));
        self.vcpus[0].enter(&loaded.entry);
        Ok(())
    }
}
