//! The devices of every PC, and what they are wired to.

use crate::board::{irq, port};
use crate::control::{A20Gate, Control, StopReason};
use crate::interrupts::IoApicWindow;
use crate::timers::{TimerHandle, Timers};
use crate::vcpu::{ApicTimer, Fabric, VcpuShared, event};
use devices::apic::{IO_APIC_BASE, LocalApic, LocalApicConfig, Reception};
use devices::hpet::{self, HpetDevice, LegacyLine};
use devices::legacy::acpi_pm::{self, AcpiPmDevice, PowerChange};
use devices::legacy::coprocessor;
use devices::legacy::debug::{self, DebugExit, PostCode};
use devices::legacy::i8042::{self, I8042Device};
use devices::legacy::pic8259;
use devices::legacy::pit8254::{self, PitDevice};
use devices::legacy::reset::{ResetControlDevice, ResetKind, ResetRequest};
use devices::legacy::rtc::{self, MemorySizes, RtcDevice};
use devices::legacy::test_device::{self, TestDevice, TestMemory};
use devices::{BusError, Clock, IrqLine, TimerClient, lock};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use x86::cpuid::{Feature, Policy};

/// The devices of every PC that others build upon.
pub(super) struct Legacy {
    pub(super) rtc: Arc<Mutex<RtcDevice>>,
    pub(super) power: Arc<Mutex<AcpiPmDevice>>,
    pub(super) reset: Arc<Mutex<ResetControlDevice>>,
    pub(super) keyboard: Arc<Mutex<I8042Device>>,
}

/// The real-time clock's alarm on its way to the power management device.
struct RtcAlarm {
    power: Arc<Mutex<AcpiPmDevice>>,
    up: AtomicBool,
}

impl IrqLine for RtcAlarm {
    fn set_level(&self, high: bool) {
        if !self.up.swap(high, Ordering::SeqCst) && high {
            lock(&self.power).rtc_alarm();
        }
    }
}

/// Builds what hangs on the buses.
pub(super) struct Builder {
    /// Whether the machine boots from firmware.
    pub(super) firmware: bool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timers: Arc<Timers>,
    pub(super) control: Arc<Control>,
    pub(super) a20: Arc<A20Gate>,
    pub(super) clients: Vec<Arc<Mutex<dyn TimerClient>>>,
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

    pub(super) fn shared_vcpu(&mut self, index: usize, policy: &Policy) -> Arc<VcpuShared> {
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
    pub(super) fn devices(
        &mut self,
        fabric: &Fabric,
        memory: MemorySizes,
    ) -> Result<Legacy, BusError> {
        let (io, interrupts) = (&fabric.io, &fabric.interrupts);
        io.insert_ports(pic8259::PORTS, interrupts.pic.clone())?;
        io.insert_ports(coprocessor::PORTS, fabric.coprocessor.clone())?;
        fabric.mmio.insert(
            IO_APIC_BASE,
            0x1000,
            Arc::new(Mutex::new(IoApicWindow(interrupts.clone()))),
        )?;

        // What the HPET can take over.
        let replaced = hpet::Replaced::default();
        let legacy_line = |irq| {
            let line = interrupts.line(irq);
            Box::new(LegacyLine { line, replaced: replaced.clone() })
        };

        let (index, timer) = self.timer();
        let mut pit = PitDevice::new(self.clock.clone(), legacy_line(irq::PIT), timer);
        pit.program_as_bios();
        let pit = Arc::new(Mutex::new(pit));
        self.connect(index, &pit);
        io.insert_ports(pit8254::PORTS, pit)?;

        let (index, timer) = self.timer();
        let mut rtc = RtcDevice::new(self.clock.clone(), legacy_line(irq::RTC), timer);
        rtc.set_memory_sizes(memory);
        let rtc = Arc::new(Mutex::new(rtc));
        self.connect(index, &rtc);
        io.insert_ports(rtc::PORTS, rtc.clone())?;

        let (index, timer) = self.timer();
        let pins = (0..8).map(|pin| interrupts.line(hpet::FIRST_PIN + pin)).collect();
        let outputs = hpet::Outputs {
            irq_0: interrupts.line(irq::PIT),
            irq_8: interrupts.line(irq::RTC),
            pins,
            replaced,
        };
        let hpet = Arc::new(Mutex::new(HpetDevice::new(self.clock.clone(), timer, outputs)));
        self.connect(index, &hpet);
        fabric.mmio.insert(hpet::HPET_BASE, hpet::HPET_SIZE, hpet)?;

        let (index, timer) = self.timer();
        let power = self.power_plane(fabric);
        let pm = AcpiPmDevice::new(self.clock.clone(), interrupts.line(irq::SCI), timer, power);
        let pm = Arc::new(Mutex::new(pm));
        self.connect(index, &pm);
        lock(&rtc)
            .connect_alarm(Box::new(RtcAlarm { power: pm.clone(), up: AtomicBool::new(false) }));
        io.insert(u64::from(port::PM_BASE), acpi_pm::BLOCK_BYTES, pm.clone())?;
        io.insert_ports(acpi_pm::SMI_PORTS, pm.clone())?;

        let reset = Arc::new(Mutex::new(ResetControlDevice::new(self.reset_request(fabric))));

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

    /// What S5 and S3 do.
    fn power_plane(&self, fabric: &Fabric) -> Box<dyn Fn(PowerChange) + Send> {
        let control = self.control.clone();
        let vcpus = fabric.interrupts.vcpus.clone();
        Box::new(move |change| match change {
            PowerChange::Off => control.stop(StopReason::PowerOff),
            PowerChange::Suspend => vcpus.iter().for_each(|vcpu| vcpu.post(event::SUSPEND)),
            PowerChange::Wake => vcpus.iter().take(1).for_each(|vcpu| vcpu.post(event::WAKE)),
        })
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
    pub(super) fn test_device(&self, fabric: &Fabric) -> Result<(), BusError> {
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
