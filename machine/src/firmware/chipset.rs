//! The PCI board: host bridge, ISA bridge, IDE, power management, VGA, and what hangs on them.

use super::configuration::{configure_cmos, device as configuration_device};
use super::{Firmware, ShadowRam, log::LogLines};
use crate::board::{self, irq, pci, port};
use crate::machine::MachineError;
use crate::vcpu::{Fabric, VcpuShared};
use devices::acpi::loader::loader_files;
use devices::acpi::{BoardInfo, pci as acpi_pci};
use devices::block::BlockDevice;
use devices::fw_cfg::{FW_CFG_PORT, FW_CFG_PORT_COUNT};
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
use softmmu::GuestRam;
use std::sync::{Arc, Mutex, Weak};

/// Where firmware for emulators writes what it does.
const DEBUG_PORT: u16 = 0x402;

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

    fn write(&self, address: u64, data: &[u8]) -> bool {
        // Also tells who caches code.
        self.0.write(address, data).is_ok()
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

/// The devices that others reach later.
pub(crate) struct Chipset {
    /// The VGA adapter, if there is one.
    pub(crate) vga: Option<Arc<Mutex<VgaDevice>>>,
    _root: Arc<Mutex<PciRoot>>,
}

impl Chipset {
    /// Puts the board's devices on the buses, and the firmware into ROM.
    pub(crate) fn new(parts: Parts, firmware: Firmware) -> Result<Chipset, MachineError> {
        let cpus = parts.vcpus.len() as u16;
        let floppies = firmware.drives.floppies.len();
        configure_cmos(&mut lock(&parts.rtc), floppies, cpus as u8, firmware.boot);
        let configuration = configuration_device(
            parts.memory,
            board::MMIO_START,
            cpus,
            loader_files(&describe(parts.board, parts.memory, firmware.vga_bios.is_some()))?,
            firmware.serial_console,
        )?;
        let Parts { fabric, ram, vcpus, clock, reset_control, power, .. } = parts;
        let io = &fabric.io;
        let dma: Arc<dyn DmaMemory> = Arc::new(RamDma(ram.clone()));

        let weak = Arc::downgrade(&fabric);
        let spaces: Weak<dyn AddressSpaces> = weak;
        let mut root = PciRoot::new(spaces, reset_control);

        let mut shadow = ShadowRam::new(ram, &firmware.bios);
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
        let mut floppies = firmware.drives.floppies.into_iter();
        let floppies = [floppies.next(), floppies.next()];
        if floppies.iter().any(Option::is_some) {
            let line = fabric.interrupts.line(irq::FLOPPY);
            let floppy = Floppy::new(floppies, line, controller);
            io.insert_ports(floppy::PORTS, Arc::new(Mutex::new(floppy)))?;
        }

        let [primary, secondary] = channels(firmware.drives.disks, firmware.drives.cdroms);
        let channel = |base, irq, media| {
            let line = fabric.interrupts.line(irq);
            Arc::new(Mutex::new(Channel::new(base, media, line, dma.clone())))
        };
        let primary = channel(port::IDE_PRIMARY, irq::IDE_PRIMARY, primary);
        let secondary = channel(port::IDE_SECONDARY, irq::IDE_SECONDARY, secondary);
        io.insert_ports(PRIMARY_PORTS, primary.clone())?;
        io.insert_ports(SECONDARY_PORTS, secondary.clone())?;
        let bus_master = Arc::new(Mutex::new(BusMasterPorts::new([primary, secondary])));
        root.insert(pci::IDE, piix::ide(bus_master, 0));
        let vga = match firmware.vga_bios {
            Some(bios) => {
                let device = Arc::new(Mutex::new(VgaDevice::new(clock)));
                io.insert_ports(vga::PORTS, device.clone())?;
                let window = Arc::new(Mutex::new(VgaWindow::new(device.clone())));
                fabric.mmio.insert(vga::WINDOW_BASE, vga::WINDOW_SIZE, window)?;
                root.insert(pci::VGA, vga::pci_function(&device, bios));
                Some(device)
            }
            None => None,
        };
        root.insert(pci::POWER, piix::power_management(power, port::PM_BASE));

        let root = Arc::new(Mutex::new(root));
        io.insert(CONFIG_PORT, CONFIG_PORT_COUNT, root.clone())?;
        io.insert(
            FW_CFG_PORT.into(),
            FW_CFG_PORT_COUNT.into(),
            Arc::new(Mutex::new(configuration)),
        )?;
        let console = DebugConsole::new(Box::new(LogLines::default()));
        io.insert(DEBUG_PORT.into(), 1, Arc::new(Mutex::new(console)))?;
        Ok(Chipset { vga, _root: root })
    }
}

/// Completes what the ACPI tables tell.
fn describe(board: BoardInfo, memory: u64, vga: bool) -> BoardInfo {
    // Firmware puts base address registers above RAM, at 2 or 3 GiB.
    let window = if memory <= 0x8000_0000 { 0x8000_0000 } else { board::MMIO_START as u32 };
    let devices = acpi_pci::host_bridge(window, 0xFEBF_FFFF, irq::PIRQ);
    BoardInfo { devices, vga, firmware_configuration: Some(FW_CFG_PORT), ..board }
}

/// Where the drives go: disks from the first drive of the first channel on, CD-ROMs from the first
/// drive of the second channel on, then wherever there is room.
fn channels(
    disks: Vec<Box<dyn BlockDevice>>,
    cdroms: Vec<Box<dyn BlockDevice>>,
) -> [[Option<Media>; 2]; 2] {
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
