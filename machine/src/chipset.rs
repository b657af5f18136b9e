//! The PCI board: host bridge, ISA bridge, IDE, power management, VGA, and what hangs on them.

mod assign;

use crate::board::{self, irq, pci, port};
use crate::firmware::{self, Drives, LogLines, Rom, ShadowRam};
use crate::machine::MachineError;
use crate::vcpu::{Fabric, VcpuShared};
use devices::acpi::{BoardInfo, pci as acpi_pci};
use devices::block::Medium;
use devices::fw_cfg::{FW_CFG_PORT, FW_CFG_PORT_COUNT, FwCfg};
use devices::ide::{BusMasterPorts, Channel, Media, PRIMARY_PORTS, SECONDARY_PORTS};
use devices::legacy::debug::DebugConsole;
use devices::legacy::dma8237::{self, DmaDevice};
use devices::legacy::floppy::{self, Floppy};
use devices::legacy::rtc::RtcDevice;
use devices::pci::{
    AddressSpaces, CONFIG_PORT, CONFIG_PORT_COUNT, IntxRouter, PciRoot, i440fx, piix,
};
use devices::vga::{self, VgaDevice, VgaWindow};
use devices::{Bus, Clock, DmaMemory, lock};
use softmmu::{GuestRam, PageFlags};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, Weak};

/// Where firmware for emulators writes what it does.
const DEBUG_PORT: u16 = 0x402;
/// Bytes of a page, which is ROM as a whole or not at all.
const PAGE_SIZE: u64 = 4096;

impl AddressSpaces for Fabric {
    fn io(&self) -> &Bus {
        &self.io
    }

    fn memory(&self) -> &Bus {
        &self.mmio
    }
}

/// Guest RAM as bus masters reach it.
struct RamDma(Arc<GuestRam>);

impl DmaMemory for RamDma {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let read = self.0.read(address, data).is_ok();
        if !read {
            data.fill(0xFF);
        }
        read
    }

    /// ROM, shadow RAM that is closed to writes among it, stays as it is.
    fn write(&self, address: u64, data: &[u8]) -> bool {
        let ram = &self.0;
        if !ram.contains(address, data.len() as u64) {
            return false;
        }
        let end = address + data.len() as u64;
        let is_rom = |page: u64| ram.flags(page * PAGE_SIZE).has(PageFlags::ROM);
        if !(address / PAGE_SIZE..end.div_ceil(PAGE_SIZE)).any(is_rom) {
            // Also tells who caches code.
            return ram.write(address, data).is_ok();
        }
        let (mut at, mut rest) = (address, data);
        while !rest.is_empty() {
            let room = PAGE_SIZE - at % PAGE_SIZE;
            let (piece, later) = rest.split_at(rest.len().min(room as usize));
            if !is_rom(at / PAGE_SIZE) && ram.write(at, piece).is_err() {
                return false;
            }
            (at, rest) = (at + piece.len() as u64, later);
        }
        true
    }
}

/// What the chipset is built around.
pub(crate) struct Parts {
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) vcpus: Vec<Arc<VcpuShared>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The reset control register, at port 0xCF9.
    pub(crate) reset_control: devices::bus::SharedDevice,
    /// ACPI's registers, mapped at `port::PM_BASE`.
    pub(crate) power: devices::bus::SharedDevice,
    pub(crate) rtc: Arc<Mutex<RtcDevice>>,
    /// Bytes of RAM.
    pub(crate) memory: u64,
    /// What the ACPI tables tell, but for what is built here.
    pub(crate) board: BoardInfo,
}

/// What is on the board beyond the devices of every PC, when it boots a kernel without firmware.
#[derive(Default)]
pub struct Peripherals {
    /// What is in the drives.
    pub drives: Drives,
    /// The VGA adapter, if there is one, with its option ROM: that has the font of the text screen.
    /// May be empty.
    pub vga_bios: Option<Vec<u8>>,
}

/// The devices that others reach later.
pub(crate) struct Chipset {
    /// The VGA adapter, if there is one.
    pub(crate) vga: Option<Arc<Mutex<VgaDevice>>>,
    /// What the ACPI tables tell.
    pub(crate) board: BoardInfo,
    _root: Arc<Mutex<PciRoot>>,
}

impl Chipset {
    /// Puts the board's devices on the buses, and the firmware into ROM. Without firmware, the
    /// devices are left as it would leave them.
    pub(crate) fn new(
        parts: Parts,
        peripherals: Peripherals,
        mut rom: Option<&mut Rom>,
    ) -> Result<Chipset, MachineError> {
        let cpus = parts.vcpus.len() as u16;
        let Peripherals { drives, vga_bios } = peripherals;
        let boot = rom.as_ref().map(|rom| rom.boot).unwrap_or_default();
        let floppies: Vec<u64> = drives.floppies.iter().map(Medium::size).collect();
        firmware::configure_cmos(&mut lock(&parts.rtc), &floppies, cpus as u8, boot);
        let Parts { fabric, ram, vcpus, clock, reset_control, power, memory, board, .. } = parts;
        let window = pci_window(memory);
        let board = describe(board, window.clone(), vga_bios.is_some());
        let mut configuration = match rom.as_deref_mut() {
            Some(rom) => firmware::configuration(memory, cpus, &board, rom)?,
            None => FwCfg::new(memory, cpus),
        };
        let io = &fabric.io;
        let dma: Arc<dyn DmaMemory> = Arc::new(RamDma(ram.clone()));
        configuration.set_dma(dma.clone());

        let weak = Arc::downgrade(&fabric);
        let spaces: Weak<dyn AddressSpaces> = weak;
        let mut root = PciRoot::new(spaces, reset_control);

        let mut shadow = ShadowRam::new(ram, rom.as_ref().map_or(&[], |rom| &rom.bios));
        root.insert(
            pci::HOST_BRIDGE,
            i440fx::host_bridge(Box::new(move |pieces| {
                shadow.set(pieces);
                for vcpu in &vcpus {
                    vcpu.request_flush();
                }
            })),
        );

        let lines = (0..16).map(|irq| fabric.interrupts.line(irq)).collect();
        let router = IntxRouter::new(lines);
        root.insert(pci::ISA_BRIDGE, piix::isa_bridge(router));

        let controller = Arc::new(Mutex::new(DmaDevice::new(dma.clone())));
        io.insert_ports(dma8237::PORTS, controller.clone())?;
        let mut floppies = drives.floppies.into_iter();
        let floppies = [floppies.next(), floppies.next()];
        if floppies.iter().any(Option::is_some) {
            let line = fabric.interrupts.line(irq::FLOPPY);
            io.insert_ports(floppy::PORTS, Floppy::shared(floppies, line, controller))?;
        }

        let [primary, secondary] = channels(drives.disks, drives.cdroms);
        let channel = |base, irq, media| {
            let line = fabric.interrupts.line(irq);
            Channel::shared(base, media, line, dma.clone())
        };
        let primary = channel(port::IDE_PRIMARY, irq::IDE_PRIMARY, primary);
        let secondary = channel(port::IDE_SECONDARY, irq::IDE_SECONDARY, secondary);
        io.insert_ports(PRIMARY_PORTS, primary.clone())?;
        io.insert_ports(SECONDARY_PORTS, secondary.clone())?;
        let bus_master = Arc::new(Mutex::new(BusMasterPorts::new([primary, secondary])));
        root.insert(pci::IDE, piix::ide(bus_master, 0));
        let vga = match vga_bios {
            Some(bios) => {
                let mut device = VgaDevice::new(clock);
                if rom.is_none() {
                    device.set_text_mode(&bios);
                }
                let device = Arc::new(Mutex::new(device));
                io.insert_ports(vga::PORTS, device.clone())?;
                let window = Arc::new(Mutex::new(VgaWindow::new(device.clone())));
                fabric.mmio.insert(vga::WINDOW_BASE, vga::WINDOW_SIZE, window)?;
                root.insert(pci::VGA, vga::pci_function(&device, bios));
                Some(device)
            }
            None => None,
        };
        root.insert(pci::POWER, piix::power_management(power, port::PM_BASE));

        if rom.is_none() {
            assign::assign(&mut root, window, &fabric.interrupts);
        }

        let root = Arc::new(Mutex::new(root));
        io.insert(CONFIG_PORT, CONFIG_PORT_COUNT, root.clone())?;
        io.insert(
            FW_CFG_PORT.into(),
            FW_CFG_PORT_COUNT.into(),
            Arc::new(Mutex::new(configuration)),
        )?;
        let console = DebugConsole::new(Box::new(LogLines::default()));
        io.insert(DEBUG_PORT.into(), 1, Arc::new(Mutex::new(console)))?;
        Ok(Chipset { vga, board, _root: root })
    }
}

/// Where base address registers may lie: above RAM, from 2 or 3 GiB, as firmware has it.
fn pci_window(memory: u64) -> RangeInclusive<u32> {
    let start = if memory <= 0x8000_0000 { 0x8000_0000 } else { board::MMIO_START as u32 };
    start..=board::PCI_WINDOW_LAST
}

/// Completes what the ACPI tables tell.
fn describe(board: BoardInfo, window: RangeInclusive<u32>, vga: bool) -> BoardInfo {
    let devices = acpi_pci::host_bridge(*window.start(), *window.end(), irq::PIRQ);
    BoardInfo { devices, vga, firmware_configuration: Some(FW_CFG_PORT), ..board }
}

/// Where the drives go: disks from the first drive of the first channel on, CD-ROMs from the first
/// drive of the second channel on, then wherever there is room.
fn channels(disks: Vec<Medium>, cdroms: Vec<Medium>) -> [[Option<Media>; 2]; 2] {
    let mut places: [Option<Media>; 4] = [None, None, None, None];
    let mut put = |media: Media, order: [usize; 4]| {
        if let Some(place) = order.into_iter().find(|&place| places[place].is_none()) {
            places[place] = Some(media);
        } else {
            tracing::warn!("a drive was left out: the board has four places");
        }
    };
    for disk in disks {
        put(Media::Disk(disk), [0, 1, 2, 3]);
    }
    for disc in cdroms {
        put(Media::Cdrom(Some(disc)), [2, 3, 0, 1]);
    }
    let [a, b, c, d] = places;
    [[a, b], [c, d]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use softmmu::RamRange;

    #[test]
    fn bus_masters_change_no_rom() {
        let ram = Arc::new(GuestRam::new(&RamRange::pc(2 << 20, 3 << 30)).expect("ram"));
        ram.set_rom(0xF_0000, 0x1_0000, true);
        let dma = RamDma(ram);
        let byte = |address| {
            let mut data = [0];
            assert!(dma.read(address, &mut data));
            data[0]
        };
        assert!(dma.write(0xE_F000, &[7; 0x3000]), "no failure of the transfer");
        assert_eq!([byte(0xE_FFFF), byte(0xF_0000), byte(0xF_1FFF)], [7, 0, 0]);
        assert!(dma.write(0xF_FFF0, &[8; 0x20]));
        assert_eq!([byte(0xF_FFFF), byte(0x10_0000), byte(0x10_000F)], [0, 8, 8]);
        assert!(!dma.write(0x9_FFFF, &[9; 2]) && !dma.write(u64::MAX, &[9; 2]));
        assert_eq!(byte(0x9_FFFF), 0);
    }
}
