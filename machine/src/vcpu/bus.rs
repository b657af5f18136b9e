//! What one vCPU reaches outside RAM: devices, its local APIC, platform MSRs.

use super::kvmclock::KvmClock;
use super::shared::VcpuShared;
use super::spin::SpinHint;
use crate::interrupts::Interrupts;
use devices::apic::{DeliveryMode, Effect, LOCAL_APIC_SIZE};
use devices::legacy::coprocessor::CoprocessorError;
use devices::{Bus, lock};
use softmmu::{GuestRam, MsrResult, PhysBus};
use std::sync::{Arc, Mutex};
use x86::msr;

/// The buses and controllers that all vCPUs share.
pub struct Fabric {
    /// I/O ports.
    pub io: Bus,
    /// Memory-mapped registers.
    pub mmio: Bus,
    /// Interrupt controllers.
    pub interrupts: Arc<Interrupts>,
    /// Reports x87 errors of the bootstrap processor.
    pub coprocessor: Arc<Mutex<CoprocessorError>>,
}

/// The [`PhysBus`] of one vCPU.
pub(crate) struct VcpuBus {
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) vcpu: Arc<VcpuShared>,
    pub(crate) kvm_clock: Mutex<KvmClock>,
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) spin: SpinHint,
}

impl VcpuBus {
    /// Carries out what a register write asked for.
    fn apply(&self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Ipi(message) => {
                self.fabric.interrupts.deliver(&message, Some(self.vcpu.index));
                if message.delivery_mode == DeliveryMode::StartUp {
                    self.vcpu.note_start_up_sent();
                }
            }
            Effect::Eoi(vector) => self.fabric.interrupts.end_of_interrupt(vector),
            Effect::TimerChanged | Effect::BaseChanged => self.vcpu.rearm(&lock(&self.vcpu.apic)),
        }
        // A changed priority may let a waiting interrupt through.
        if lock(&self.vcpu.apic).interrupt_pending().is_some() {
            self.vcpu.receive(devices::apic::Reception::Interrupt);
        }
    }

    fn in_local_apic(&self, gpa: u64) -> Option<u64> {
        if gpa >> 32 != 0 || gpa < 0x10_0000 {
            return None;
        }
        let base = lock(&self.vcpu.apic).mmio_base()?;
        gpa.checked_sub(base).filter(|&offset| offset < LOCAL_APIC_SIZE)
    }
}

impl PhysBus for VcpuBus {
    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        match self.in_local_apic(gpa) {
            Some(offset) => lock(&self.vcpu.apic).read_mmio(offset, data, self.vcpu.now()),
            None => {
                self.fabric.mmio.read(gpa, data);
            }
        }
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        match self.in_local_apic(gpa) {
            Some(offset) => {
                let effect = lock(&self.vcpu.apic).write_mmio(offset, data, self.vcpu.now());
                self.apply(effect);
            }
            None => {
                self.fabric.mmio.write(gpa, data);
            }
        }
    }

    fn port_read(&self, port: u16, size: u8) -> u32 {
        let mut data = [0xFF; 4];
        let size = usize::from(size).clamp(1, 4);
        self.fabric.io.read(u64::from(port), &mut data[..size]);
        u32::from_le_bytes(data) & (u64::MAX >> (64 - 8 * size)) as u32
    }

    fn port_write(&self, port: u16, size: u8, value: u32) {
        let size = usize::from(size).clamp(1, 4);
        self.fabric.io.write(u64::from(port), &value.to_le_bytes()[..size]);
    }

    fn read_msr(&self, number: u32) -> MsrResult<u64> {
        let now = self.vcpu.now();
        match number {
            msr::IA32_APIC_BASE => MsrResult::Ok(lock(&self.vcpu.apic).apic_base()),
            msr::IA32_TSC_DEADLINE => MsrResult::Ok(lock(&self.vcpu.apic).tsc_deadline(now)),
            msr::X2APIC_BASE..=msr::X2APIC_LAST => {
                lock(&self.vcpu.apic).read_msr(number, now).map_or(MsrResult::Fault, MsrResult::Ok)
            }
            _ => match lock(&self.kvm_clock).read(number) {
                Some(value) => MsrResult::Ok(value),
                None => MsrResult::Unknown,
            },
        }
    }

    fn write_msr(&self, number: u32, value: u64) -> MsrResult<()> {
        let now = self.vcpu.now();
        let result = match number {
            msr::IA32_APIC_BASE => lock(&self.vcpu.apic).write_apic_base(value),
            msr::IA32_TSC_DEADLINE => Ok(lock(&self.vcpu.apic).write_tsc_deadline(value, now)),
            msr::X2APIC_BASE..=msr::X2APIC_LAST => {
                lock(&self.vcpu.apic).write_msr(number, value, now)
            }
            _ => {
                return if lock(&self.kvm_clock).write(number, value, now, &self.ram) {
                    MsrResult::Ok(())
                } else {
                    MsrResult::Unknown
                };
            }
        };
        match result {
            Ok(effect) => {
                self.apply(effect);
                MsrResult::Ok(())
            }
            Err(_) => MsrResult::Fault,
        }
    }

    fn task_priority(&self) -> u8 {
        lock(&self.vcpu.apic).cr8()
    }

    fn set_task_priority(&self, class: u8) {
        lock(&self.vcpu.apic).set_cr8(class);
        self.apply(Effect::None);
    }

    fn host_tsc(&self) -> u64 {
        // The platform's TSC counts machine nanoseconds.
        self.vcpu.platform_tsc()
    }

    fn hypercall(&self, number: u64, arguments: [u64; 4], long: bool) -> Option<i64> {
        let interrupts = &self.fabric.interrupts;
        super::hypercall::call(interrupts, self.vcpu.index, number, arguments, long)
    }

    fn set_ferr(&self, asserted: bool) {
        if self.vcpu.index == 0 {
            lock(&self.fabric.coprocessor).set_ferr(asserted);
        }
    }

    fn ignne(&self) -> bool {
        // The circuit has one processor's wires.
        self.vcpu.index != 0 || lock(&self.fabric.coprocessor).ignne()
    }

    fn pause(&self) {
        self.spin.pause();
    }

    fn tsc_offset_changed(&self, offset: u64) {
        self.vcpu.set_tsc_offset(offset);
        self.vcpu.rearm(&lock(&self.vcpu.apic));
        lock(&self.kvm_clock).refresh(self.vcpu.now(), &self.ram);
    }
}
