//! A whole machine: built from a [`Config`], run to its end.

use crate::board::{self, irq, port};
use crate::boot::{
    self, Entry, ImageError, MemoryMap, Module, Protocol, Real16, RegionKind, Request,
};
use crate::config::{Config, MAX_CPUS};
use crate::control::{A20Gate, Control, StopReason};
use crate::firmware::{self, Chipset, Firmware, rom_range};
use crate::interrupts::{Interrupts, IoApicWindow};
use crate::stats::Stats;
use crate::timers::{TimerHandle, Timers};
use crate::vcpu::{ApicTimer, Fabric, KvmClock, Runner, SpinHint, Vcpu, VcpuBus, VcpuShared};
use devices::acpi::{self, AcpiError, BoardInfo, FirmwareTables};
use devices::apic::{IO_APIC_BASE, LOCAL_APIC_BASE, LocalApic, LocalApicConfig, Reception};
use devices::fw_cfg::{FW_CFG_PORT, FW_CFG_PORT_COUNT, FwCfg};
use devices::legacy::acpi_pm::{self, AcpiPmDevice};
use devices::legacy::debug::{self, DebugExit, PostCode};
use devices::legacy::i8042::{self, I8042Device};
use devices::legacy::pic8259;
use devices::legacy::pit8254::{self, PitDevice};
use devices::legacy::reset::{self, ResetControlDevice, ResetKind, ResetRequest};
use devices::legacy::rtc::{self, MemorySizes, RtcDevice};
use devices::legacy::serial::Serial;
use devices::legacy::test_device::{self, TestDevice, TestMemory};
use devices::vga::VgaDevice;
use devices::{BusDevice, BusError, Clock, HostClock, TimerClient};
use softmmu::{GuestRam, LowBox, LowError, Mmu, MmuError, RamError, RamRange};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};
use x86::cpuid::{Feature, ModelError, Policy};
use x86::{Activity, Cpu};

/// Why a machine could not be built.
#[derive(Debug, Error)]
pub enum MachineError {
    /// Guest RAM.
    #[error("guest memory: {0}")]
    Ram(#[from] RamError),
    /// The MMU's tables.
    #[error("software MMU: {0}")]
    Mmu(#[from] MmuError),
    /// The registers' place in memory.
    #[error(transparent)]
    Low(#[from] LowError),
    /// The translator.
    #[error("translator: {0}; --engine interp does without it")]
    Engine(#[from] jit::EngineError),
    /// What firmware is told.
    #[error("firmware configuration: {0}")]
    Configuration(#[from] devices::fw_cfg::FwCfgError),
    /// Two devices at one address.
    #[error("board: {0}")]
    Bus(#[from] BusError),
    /// Firmware tables.
    #[error("firmware tables: {0}")]
    Acpi(#[from] AcpiError),
    /// The kernel.
    #[error("{name}: {error}")]
    Kernel {
        /// The kernel file's name.
        name: String,
        /// What is wrong with it.
        error: ImageError,
    },
    /// A size of RAM that cannot be.
    #[error("{0} bytes of guest memory: give a multiple of 4 KiB from 1 MiB to 512 GiB")]
    MemorySize(u64),
    /// A number of virtual CPUs that cannot be.
    #[error("{0} virtual CPUs: give 1 to {MAX_CPUS}")]
    CpuCount(u32),
    /// A processor that cannot be.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Writing the firmware tables.
    #[error("firmware tables do not fit {0} bytes of guest memory")]
    NoRoom(u64),
    /// A host thread.
    #[error("starting a host thread: {0}")]
    Thread(std::io::Error),
}

const MIN_MEMORY: u64 = 1 << 20;
const MAX_MEMORY: u64 = 512 << 30;

/// A machine ready to run.
pub struct Machine {
    vcpus: Vec<Vcpu>,
    ram: Arc<GuestRam>,
    control: Arc<Control>,
    timers: Arc<Timers>,
    serial: Arc<Mutex<Serial>>,
    timeout: Option<std::time::Duration>,
    chipset: Option<Chipset>,
    keyboard: Arc<Mutex<I8042Device>>,
    // Devices that only the bus and the timers reach, kept alive for the timers' weak references.
    _timer_clients: Vec<Arc<Mutex<dyn TimerClient>>>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Why.
    pub reason: StopReason,
    /// Counters.
    pub stats: Stats,
}

/// The devices of every PC that others build upon.
struct Legacy {
    rtc: Arc<Mutex<RtcDevice>>,
    power: Arc<Mutex<AcpiPmDevice>>,
    reset: Arc<Mutex<ResetControlDevice>>,
    keyboard: Arc<Mutex<I8042Device>>,
}

/// Builds what hangs on the buses.
struct Builder {
    /// Whether the machine boots from firmware.
    firmware: bool,
    clock: Arc<dyn Clock>,
    timers: Arc<Timers>,
    control: Arc<Control>,
    a20: Arc<A20Gate>,
    clients: Vec<Arc<Mutex<dyn TimerClient>>>,
}

impl Builder {
    /// Connects a device to the timer it was built with.
    fn connect<D: TimerClient + 'static>(&mut self, index: usize, device: &Arc<Mutex<D>>) {
        let client: Arc<Mutex<dyn TimerClient>> = device.clone();
        self.timers.connect(index, Arc::downgrade(&client));
        self.clients.push(client);
    }

    fn timer(&self) -> (usize, Box<TimerHandle>) {
        let timer = self.timers.timer();
        (timer.index(), Box::new(timer))
    }

    fn shared_vcpu(&mut self, index: usize, policy: &Policy) -> Arc<VcpuShared> {
        let config = LocalApicConfig {
            id: index as u32,
            bootstrap: index == 0,
            x2apic: policy.has(Feature::X2Apic),
            tsc_deadline: policy.has(Feature::TscDeadline),
            physical_address_bits: policy.physical_bits,
        };
        let mut apic = LocalApic::new(config);
        if index == 0 {
            apic.enter_virtual_wire_mode();
        }
        let (timer_index, timer) = self.timer();
        let shared = Arc::new(VcpuShared::new(index, apic, self.clock.clone(), timer));
        self.connect(timer_index, &Arc::new(Mutex::new(ApicTimer(shared.clone()))));
        shared
    }

    /// The devices of every PC, on `fabric`.
    fn devices(&mut self, fabric: &Fabric, memory: MemorySizes) -> Result<Legacy, BusError> {
        let (io, interrupts) = (&fabric.io, &fabric.interrupts);
        io.insert_ports(pic8259::PORTS, interrupts.pic.clone())?;
        fabric.mmio.insert(
            IO_APIC_BASE,
            0x1000,
            Arc::new(Mutex::new(IoApicWindow(interrupts.clone()))),
        )?;

        let (index, timer) = self.timer();
        let mut pit = PitDevice::new(self.clock.clone(), interrupts.line(irq::PIT), timer);
        pit.program_as_bios();
        let pit = Arc::new(Mutex::new(pit));
        self.connect(index, &pit);
        io.insert_ports(pit8254::PORTS, pit)?;

        let (index, timer) = self.timer();
        let mut rtc = RtcDevice::new(self.clock.clone(), interrupts.line(irq::RTC), timer);
        rtc.set_memory_sizes(memory);
        let rtc = Arc::new(Mutex::new(rtc));
        self.connect(index, &rtc);
        io.insert_ports(rtc::PORTS, rtc.clone())?;

        let (index, timer) = self.timer();
        let control = self.control.clone();
        let power_off = Box::new(move || control.stop(StopReason::PowerOff));
        let pm = AcpiPmDevice::new(self.clock.clone(), interrupts.line(irq::SCI), timer, power_off);
        let pm = Arc::new(Mutex::new(pm));
        self.connect(index, &pm);
        io.insert(u64::from(port::PM_BASE), acpi_pm::BLOCK_BYTES, pm.clone())?;
        io.insert_ports(acpi_pm::SMI_PORTS, pm.clone())?;

        let reset = Arc::new(Mutex::new(ResetControlDevice::new(self.reset_request(fabric))));
        if !self.firmware {
            io.insert_ports(reset::PORTS, reset.clone())?;
        }

        let a20 = self.a20.clone();
        let keyboard = I8042Device::new(i8042::Outputs {
            irq_1: interrupts.line(irq::KEYBOARD),
            irq_12: interrupts.line(irq::MOUSE),
            a20: Box::new(move |open| a20.set(open)),
            reset: self.reset_request(fabric),
        });
        let keyboard = Arc::new(Mutex::new(keyboard));
        io.insert_ports(i8042::PORTS, keyboard.clone())?;

        io.insert_ports(debug::POST_CODE_PORTS, Arc::new(Mutex::new(PostCode::default())))?;
        let control = self.control.clone();
        let exit = DebugExit::new(Box::new(move |status| {
            control.stop(StopReason::DebugExit(status));
        }));
        io.insert_ports(debug::DEBUG_EXIT_PORTS, Arc::new(Mutex::new(exit)))?;
        Ok(Legacy { rtc, power: pm, reset, keyboard })
    }

    /// What a reset does. Firmware takes a reset of the CPU alone; without it there is nobody who
    /// could.
    fn reset_request(&self, fabric: &Fabric) -> ResetRequest {
        let (control, firmware) = (self.control.clone(), self.firmware);
        let vcpu = fabric.interrupts.vcpus.first().cloned();
        Box::new(move |kind| match (kind, &vcpu) {
            (ResetKind::Cpu, Some(vcpu)) if firmware => vcpu.receive(Reception::Init),
            _ => control.stop(StopReason::Reset),
        })
    }

    /// What the guests of kvm-unit-tests, which are Multiboot kernels, expect beyond that.
    fn test_device(&self, fabric: &Fabric) -> Result<(), BusError> {
        let interrupts = fabric.interrupts.clone();
        let control = self.control.clone();
        let device = TestDevice::new(test_device::Outputs {
            line: Box::new(move |line, level| interrupts.set_irq(line, level)),
            flush: Box::new(move |_| control.flush_translations()),
        });
        fabric.io.insert_ports(test_device::PORTS, Arc::new(Mutex::new(device)))?;
        fabric.mmio.insert(
            test_device::MEMORY_BASE,
            test_device::MEMORY_SIZE,
            Arc::new(Mutex::new(TestMemory::default())),
        )
    }
}

fn board_info(policy: &Policy, cpu: &Cpu) -> BoardInfo {
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
        hpet: None,
        firmware_configuration: None,
        devices: Vec::new(),
    }
}

/// Tables for a kernel that is booted without firmware.
fn firmware_tables(policy: &Policy, cpu: &Cpu) -> Result<FirmwareTables, AcpiError> {
    acpi::build(&board_info(policy, cpu), acpi::TABLES_BASE, boot::vectors::HANDLERS)
}

impl Machine {
    /// Builds a machine and loads its kernel.
    ///
    /// # Errors
    /// [`MachineError`]: what could not be had, or what is wrong with the kernel.
    pub fn new(config: Config) -> Result<Machine, MachineError> {
        let policy = config.cpu.policy(config.cpus)?;
        Machine::build(config, policy, Arc::new(HostClock::new()), None)
    }

    /// Builds a machine that boots from its firmware; the kernel of `config` is not used.
    ///
    /// # Errors
    /// [`MachineError`]: what could not be had.
    pub fn with_firmware(config: Config, firmware: Firmware) -> Result<Machine, MachineError> {
        let policy = config.cpu.policy(config.cpus)?;
        Machine::build(config, policy, Arc::new(HostClock::new()), Some(firmware))
    }

    /// Builds a machine in which nothing depends on the host: time is `clock`'s, and there is no
    /// RDRAND. It is run by [`Machine::run_slice`] and [`Machine::run_timers`].
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub(crate) fn deterministic(
        config: Config,
        clock: Arc<dyn Clock>,
    ) -> Result<Machine, MachineError> {
        let mut policy = config.cpu.policy(config.cpus)?;
        policy.remove(Feature::Rdrand);
        policy.remove(Feature::Rdseed);
        let engine = config.engine;
        let mut machine = Machine::build(config, policy, clock, None)?;
        for vcpu in &mut machine.vcpus {
            vcpu.ignore_requests();
            // Flags that only an exception frame could show are compared too.
            let precise = jit::Config { precise_flags: true, ..jit::Config::default() };
            vcpu.set_runner(Runner::with(engine, precise)?);
        }
        Ok(machine)
    }

    fn build(
        config: Config,
        policy: Policy,
        clock: Arc<dyn Clock>,
        firmware: Option<Firmware>,
    ) -> Result<Machine, MachineError> {
        if !(MIN_MEMORY..=MAX_MEMORY).contains(&config.memory)
            || !config.memory.is_multiple_of(4096)
        {
            return Err(MachineError::MemorySize(config.memory));
        }
        if !(1..=MAX_CPUS).contains(&config.cpus) {
            return Err(MachineError::CpuCount(config.cpus));
        }
        let policy = Arc::new(policy);
        let mut ranges = RamRange::pc(config.memory, board::MMIO_START);
        ranges.extend(firmware.as_ref().map(|firmware| rom_range(firmware.bios.len() as u64)));
        let ram = Arc::new(GuestRam::new(&ranges)?);
        let control = Control::new();
        let mut builder = Builder {
            firmware: firmware.is_some(),
            timers: Timers::new(clock.clone()),
            clock: clock.clone(),
            control: control.clone(),
            a20: Arc::new(A20Gate::new(control.clone())),
            clients: Vec::new(),
        };

        let shared: Vec<_> = (0..policy.cpu_count as usize)
            .map(|index| builder.shared_vcpu(index, &policy))
            .collect();
        control.attach(shared.clone());
        let interrupts = Interrupts::new(shared.clone(), shared[0].clone());
        let fabric = Arc::new(Fabric {
            io: devices::Bus::new(),
            mmio: devices::Bus::new(),
            interrupts: interrupts.clone(),
        });
        let below_4g = config.memory.min(board::MMIO_START);
        let sizes = MemorySizes { below_4g, above_4g: config.memory - below_4g };
        let legacy = builder.devices(&fabric, sizes)?;
        if firmware.is_none() {
            let fw_cfg = FwCfg::new(config.memory, config.cpus as u16);
            fabric.io.insert(
                u64::from(FW_CFG_PORT),
                u64::from(FW_CFG_PORT_COUNT),
                Arc::new(Mutex::new(fw_cfg)),
            )?;
        }
        if firmware.is_none()
            && matches!(boot::detect(&config.kernel.image), Ok(boot::Kind::Multiboot))
        {
            builder.test_device(&fabric)?;
        }

        let serial = Serial::new(interrupts.line(irq::COM1), config.serial_output);
        let serial = Arc::new(Mutex::new(serial));
        let device: Arc<Mutex<dyn BusDevice>> = serial.clone();
        fabric.io.insert(u64::from(port::COM1), devices::legacy::serial::REGISTERS, device)?;

        let epoch_ns = clock.unix_time_ns().wrapping_sub(clock.now_ns());
        let mut vcpus = Vec::with_capacity(shared.len());
        for vcpu in &shared {
            let bus = VcpuBus {
                fabric: fabric.clone(),
                vcpu: vcpu.clone(),
                kvm_clock: Mutex::new(KvmClock::new(epoch_ns)),
                ram: ram.clone(),
                spin: SpinHint::new(config.cpus),
            };
            let mmu = Mmu::new(ram.clone(), Arc::new(bus))?;
            let mut cpu = LowBox::new(Cpu::new())?;
            cpu.policy = policy.clone();
            cpu.apic_id = vcpu.index as u32;
            if vcpu.index != 0 {
                cpu.activity = Activity::WaitForSipi;
            }
            vcpus.push(Vcpu::new(
                cpu,
                mmu,
                Runner::new(config.engine)?,
                vcpu.clone(),
                fabric.clone(),
                control.clone(),
                builder.a20.clone(),
            ));
        }

        let mut machine = Machine {
            vcpus,
            ram,
            control,
            timers: builder.timers,
            serial,
            timeout: config.timeout,
            chipset: None,
            keyboard: legacy.keyboard,
            _timer_clients: builder.clients,
        };
        match firmware {
            Some(firmware) => {
                let board = board_info(&policy, &machine.vcpus[0].cpu);
                let parts = firmware::Parts {
                    fabric,
                    ram: machine.ram.clone(),
                    vcpus: shared,
                    clock,
                    reset_control: legacy.reset,
                    power: legacy.power,
                    rtc: legacy.rtc,
                    memory: config.memory,
                    board,
                };
                machine.chipset = Some(Chipset::new(parts, firmware)?);
                machine.vcpus[0].enter(&Entry::Real16(Real16::RESET));
            }
            None => machine.load(&config.kernel, config.memory, &policy)?,
        }
        Ok(machine)
    }

    fn load(
        &mut self,
        kernel: &crate::config::Kernel,
        memory_size: u64,
        policy: &Policy,
    ) -> Result<(), MachineError> {
        let tables = firmware_tables(policy, &self.vcpus[0].cpu)?;
        let memory = self.ram.guest_memory()?;
        let mut map = MemoryMap::pc(memory_size, board::MMIO_START);
        for (address, bytes) in &tables.regions {
            memory
                .write_slice(bytes, GuestAddress(*address))
                .map_err(|_| MachineError::NoRoom(memory_size))?;
        }
        boot::vectors::install(&memory).map_err(|_| MachineError::NoRoom(memory_size))?;
        map.set(acpi::TABLES_BASE, acpi::TABLES_END - acpi::TABLES_BASE, RegionKind::Reserved);
        let modules: Vec<Module<'_>> =
            kernel.initrd.iter().map(|data| Module { data, command_line: "initrd" }).collect();
        let loaded = boot::load(
            &memory,
            &Request {
                kernel: &kernel.image,
                name: &kernel.name,
                command_line: &kernel.command_line,
                modules: &modules,
                memory_map: &map,
                rsdp: Some(tables.rsdp),
                protocol: Protocol::Best,
            },
        )
        .map_err(|error| MachineError::Kernel { name: kernel.name.clone(), error })?;
        self.vcpus[0].enter(&loaded.entry);
        Ok(())
    }

    /// The boot processor's registers.
    pub fn boot_cpu(&self) -> &Cpu {
        &self.vcpus[0].cpu
    }

    /// Runs the boot processor for `count` instructions or until it halts.
    pub(crate) fn run_slice(&mut self, count: u64) {
        self.vcpus[0].run_slice(count);
    }

    /// Calls the devices whose alarms are due. Returns the next alarm's time.
    pub(crate) fn run_timers(&self) -> Option<u64> {
        self.timers.run_due()
    }

    /// The boot processor's next instruction: RIP and assembly.
    pub(crate) fn disassemble_next(&mut self) -> (u64, String) {
        let vcpu = &mut self.vcpus[0];
        let linear = interp::engine::code_linear(&vcpu.cpu);
        let mut bytes = [0; 15];
        let (valid, _) = vcpu.mmu.fetch_bytes(linear, &mut bytes);
        let (rip, bits) = (vcpu.cpu.rip, vcpu.cpu.key.bits());
        (rip, crate::lockstep::assembly(&bytes[..valid], bits, rip))
    }

    /// The first byte of RAM in which two machines built alike differ: its address and both
    /// values.
    pub(crate) fn first_memory_difference(
        &self,
        other: &Machine,
        chunk: usize,
    ) -> Option<(u64, u8, u8)> {
        let (mut a, mut b) = (vec![0; chunk], vec![0; chunk]);
        for range in self.ram.ranges() {
            for gpa in (range.gpa..range.end()).step_by(chunk) {
                let len = chunk.min((range.end() - gpa) as usize);
                let read = |ram: &GuestRam, to: &mut [u8]| ram.read(gpa, to).is_ok();
                if !read(&self.ram, &mut a[..len]) || !read(&other.ram, &mut b[..len]) {
                    continue;
                }
                if a[..len] != b[..len] {
                    let at = (0..len).find(|&i| a[i] != b[i])?;
                    return Some((gpa + at as u64, a[at], b[at]));
                }
            }
        }
        None
    }

    /// The switch that stops the machine, for other threads.
    pub fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// The keyboard and mouse.
    pub fn keyboard(&self) -> Arc<Mutex<I8042Device>> {
        self.keyboard.clone()
    }

    /// The VGA adapter, if there is one: its screen.
    pub fn display(&self) -> Option<Arc<Mutex<VgaDevice>>> {
        self.chipset.as_ref()?.vga.clone()
    }

    /// COM1, for input.
    pub fn serial(&self) -> Arc<Mutex<Serial>> {
        self.serial.clone()
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// [`MachineError::Thread`] when the host gives no threads.
    pub fn run(mut self) -> Result<Outcome, MachineError> {
        let start = Instant::now();
        let timers = self.timers.clone();
        let control = self.control.clone();
        let timeout = self.timeout;
        std::thread::scope(|scope| {
            let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
                std::thread::Builder::new()
                    .name(name.into())
                    .spawn(body)
                    .map_err(MachineError::Thread)
            };
            let timer_thread = {
                let timers = timers.clone();
                spawn("timers", Box::new(move || timers.run()))?
            };
            let watchdog = timeout.map(|limit| Watchdog::start(control.clone(), limit));
            let mut started = Ok(());
            if let Some((boot, others)) = self.vcpus.split_first_mut() {
                for vcpu in others {
                    let name = format!("vcpu{}", vcpu.index());
                    let thread = std::thread::Builder::new().name(name);
                    if let Err(error) = thread.spawn_scoped(scope, move || vcpu.run()) {
                        // The threads started so far end, and the scope waits for them.
                        control.stop(StopReason::Quit);
                        started = Err(MachineError::Thread(error));
                        break;
                    }
                }
                boot.run();
            }
            drop(watchdog);
            timers.stop();
            let _ = timer_thread.join();
            started
        })?;
        let reason = control.reason().unwrap_or(StopReason::Quit);
        let stats = Stats::collect(&self.vcpus, &self.ram, start.elapsed());
        Ok(Outcome { reason, stats })
    }
}

/// Stops the machine when its time is over, unless dropped before.
struct Watchdog {
    cancel: std::sync::mpsc::Sender<()>,
}

impl Watchdog {
    fn start(control: Arc<Control>, limit: std::time::Duration) -> Watchdog {
        let (cancel, cancelled) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = cancelled.recv_timeout(limit) {
                control.stop(StopReason::Timeout);
            }
        });
        Watchdog { cancel }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.cancel.send(());
    }
}
