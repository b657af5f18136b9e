//! A whole machine: built from a [`Config`], run to its end.

mod error;
mod inspect;
mod load;
mod pc;
#[cfg(test)]
mod random_devices;
mod run;

pub use error::MachineError;

use crate::board::{self, irq, port};
use crate::boot::{self, Entry, Real16};
use crate::chipset::{Chipset, Parts, Peripherals};
use crate::config::{Config, MAX_CPUS};
use crate::control::{A20Gate, Control, StopReason};
use crate::firmware::{Firmware, Rom, rom_range};
use crate::interrupts::Interrupts;
use crate::lockstep::Board;
use crate::stats::Stats;
use crate::timers::Timers;
use crate::vcpu::{Fabric, KvmClock, Runner, SpinHint, TSC_HZ, Vcpu, VcpuBus, Wakening};
use devices::apic::APIC_BUS_FREQUENCY_HZ;
use devices::legacy::coprocessor::CoprocessorError;
use devices::legacy::i8042::I8042Device;
use devices::legacy::rtc::MemorySizes;
use devices::legacy::serial::Serial;
use devices::vga::VgaDevice;
use devices::{BusDevice, Clock, HostClock, TimerClient};
use load::board_info;
use pc::Builder;
use softmmu::{GuestRam, LowBox, Mmu, RamRange, StaleUses};
use std::sync::{Arc, Mutex};
use x86::cpuid::{Clocks, Feature, Policy};
use x86::{Activity, Cpu};

const MIN_MEMORY: u64 = 1 << 20;
const MAX_MEMORY: u64 = 512 << 30;
/// Host code of all vCPUs: it lies in the part of the address space that MAP_32BIT gives, 1 GiB.
const ALL_CODE_CACHES: usize = 384 << 20;
/// Host code of one vCPU.
const MIN_CODE_CACHE: usize = 4 << 20;
const MAX_CODE_CACHE: usize = 32 << 20;

/// A machine ready to run.
pub struct Machine {
    vcpus: Vec<Vcpu>,
    ram: Arc<GuestRam>,
    control: Arc<Control>,
    timers: Arc<Timers>,
    serial: Arc<Mutex<Serial>>,
    timeout: Option<std::time::Duration>,
    chipset: Chipset,
    /// Why a vCPU has no translator that should have one.
    refusal: Option<jit::EngineError>,
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
    /// With [`Machine::set_strict`]: what went by translations that the page tables no longer had.
    pub stale: Option<StaleUses>,
}

impl Machine {
    /// Builds a machine and loads its kernel.
    ///
    /// # Errors
    /// [`MachineError`]: what could not be had, or what is wrong with the kernel.
    pub fn new(config: Config) -> Result<Machine, MachineError> {
        let policy = config.cpu.policy(config.cpus)?;
        Machine::build(config, policy, Arc::new(HostClock::new()), Peripherals::default(), None)
    }

    /// As [`Machine::new`], with drives and a VGA adapter.
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub fn with_peripherals(
        config: Config,
        peripherals: Peripherals,
    ) -> Result<Machine, MachineError> {
        let policy = config.cpu.policy(config.cpus)?;
        Machine::build(config, policy, Arc::new(HostClock::new()), peripherals, None)
    }

    /// Builds a machine that boots from its firmware. If `config` has a kernel, firmware starts it
    /// by its 16-bit setup code, before all drives; it must be a Linux image then.
    ///
    /// # Errors
    /// [`MachineError`]: what could not be had, or what is wrong with the kernel.
    pub fn with_firmware(config: Config, firmware: Firmware) -> Result<Machine, MachineError> {
        let policy = config.cpu.policy(config.cpus)?;
        let (rom, peripherals) = firmware.split();
        Machine::build(config, policy, Arc::new(HostClock::new()), peripherals, Some(rom))
    }

    /// Builds a machine in which nothing depends on the host: time is `clock`'s, and there is no
    /// RDRAND. It is run by [`Machine::run_slice`] and [`Machine::run_timers`].
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub(crate) fn deterministic(
        config: Config,
        clock: Arc<dyn Clock>,
        board: Board,
    ) -> Result<Machine, MachineError> {
        let mut policy = config.cpu.policy(config.cpus)?;
        policy.remove(Feature::Rdrand);
        policy.remove(Feature::Rdseed);
        let engine = config.engine;
        let (peripherals, rom) = match board {
            Board::Kernel(peripherals) => (peripherals, None),
            Board::Firmware(firmware) => {
                let (rom, peripherals) = firmware.split();
                (peripherals, Some(rom))
            }
        };
        let mut machine = Machine::build(config, policy, clock, peripherals, rom)?;
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
        mut policy: Policy,
        clock: Arc<dyn Clock>,
        peripherals: Peripherals,
        mut rom: Option<Rom>,
    ) -> Result<Machine, MachineError> {
        if !(MIN_MEMORY..=MAX_MEMORY).contains(&config.memory)
            || !config.memory.is_multiple_of(4096)
        {
            return Err(MachineError::MemorySize(config.memory));
        }
        if !(1..=MAX_CPUS).contains(&config.cpus) {
            return Err(MachineError::CpuCount(config.cpus));
        }
        policy.clocks = Some(Clocks { tsc_hz: TSC_HZ, crystal_hz: APIC_BUS_FREQUENCY_HZ });
        let policy = Arc::new(policy);
        let mut ranges = RamRange::pc(config.memory, board::MMIO_START);
        ranges.extend(rom.as_ref().map(|rom| rom_range(rom.bios.len() as u64)));
        let ram = Arc::new(GuestRam::new(&ranges)?);
        let control = Control::new();
        if let Some(rom) = &mut rom {
            rom.kernel = load::for_firmware(&config.kernel, config.memory)?;
        }
        let mut builder = Builder {
            firmware: rom.is_some(),
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
            coprocessor: Arc::new(Mutex::new(CoprocessorError::new(
                interrupts.line(irq::COPROCESSOR),
            ))),
        });
        let below_4g = config.memory.min(board::MMIO_START);
        let sizes = MemorySizes { below_4g, above_4g: config.memory - below_4g };
        let legacy = builder.devices(&fabric, sizes)?;
        control.attach_power(&legacy.power);
        if rom.is_none() && matches!(boot::detect(&config.kernel.image), Ok(boot::Kind::Multiboot))
        {
            builder.test_device(&fabric)?;
        }

        let serial = Serial::new(interrupts.line(irq::COM1), config.serial_output);
        let serial = Arc::new(Mutex::new(serial));
        let device: Arc<Mutex<dyn BusDevice>> = serial.clone();
        fabric.io.insert(u64::from(port::COM1), devices::legacy::serial::REGISTERS, device)?;

        let epoch_ns = clock.unix_time_ns().wrapping_sub(clock.now_ns());
        let mut vcpus = Vec::with_capacity(shared.len());
        let translator = jit::Config {
            cache_size: (ALL_CODE_CACHES / shared.len()).clamp(MIN_CODE_CACHE, MAX_CODE_CACHE),
            // Only deterministic runs end after a number of instructions.
            exact_limit: false,
            count: config.count,
            ..jit::Config::default()
        };
        let mut refusal = None;
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
            let (runner, refused) = Runner::new(config.engine, translator);
            refusal = refusal.or(refused);
            vcpus.push(Vcpu::new(
                cpu,
                mmu,
                runner,
                vcpu.clone(),
                fabric.clone(),
                control.clone(),
                builder.a20.clone(),
                ram.clone(),
            ));
        }

        let parts = Parts {
            fabric,
            ram: ram.clone(),
            vcpus: shared,
            clock,
            reset_control: legacy.reset,
            power: legacy.power,
            rtc: legacy.rtc.clone(),
            memory: config.memory,
            board: board_info(&policy, &vcpus[0].cpu),
        };
        let chipset = Chipset::new(parts, peripherals, rom.as_mut())?;
        let mut machine = Machine {
            vcpus,
            ram,
            control,
            timers: builder.timers,
            serial,
            timeout: config.timeout,
            chipset,
            refusal,
            keyboard: legacy.keyboard,
            _timer_clients: builder.clients,
        };
        match rom {
            Some(_) => {
                machine.vcpus[0].set_wakening(Wakening::Firmware(legacy.rtc));
                machine.vcpus[0].enter(&Entry::Real16(Real16::RESET));
            }
            None => machine.load(&config.kernel, config.memory)?,
        }
        Ok(machine)
    }

    /// The boot processor's registers.
    pub fn boot_cpu(&self) -> &Cpu {
        &self.vcpus[0].cpu
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
        self.chipset.vga.clone()
    }

    /// COM1, for input.
    pub fn serial(&self) -> Arc<Mutex<Serial>> {
        self.serial.clone()
    }
}
