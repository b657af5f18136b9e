//! Interrupt routing: ISA lines to the 8259 pair and the I/O APIC, messages to local APICs.
//!
//! Lock order: device, 8259, I/O APIC, local APIC. Each is taken after the one before it and never
//! the other way; messages are delivered with the controller's lock released.

use crate::board;
use crate::vcpu::VcpuShared;
use devices::apic::{InterruptMessage, IoApic, route};
use devices::legacy::pic8259::{Pic, PicDevice};
use devices::{BusDevice, IrqLine, lock};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The machine's interrupt controllers.
pub struct Interrupts {
    pub(crate) pic: Arc<Mutex<PicDevice>>,
    pub(crate) io_apic: Mutex<IoApic>,
    pub(crate) vcpus: Vec<Arc<VcpuShared>>,
    rotation: AtomicUsize,
}

/// INTR of the 8259 pair, wired to LINT0 of the boot processor.
struct Lint0(Arc<VcpuShared>);

impl IrqLine for Lint0 {
    fn set_level(&self, high: bool) {
        let reception = lock(&self.0.apic).set_lint(0, high);
        self.0.receive(reception);
    }
}

/// One ISA interrupt line.
pub(crate) struct IsaLine {
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) irq: u8,
}

impl IrqLine for IsaLine {
    fn set_level(&self, high: bool) {
        self.interrupts.set_irq(self.irq, high);
    }
}

impl Interrupts {
    /// Controllers for these vCPUs, at least one. The 8259s are as a PC BIOS leaves them.
    pub(crate) fn new(vcpus: Vec<Arc<VcpuShared>>, boot: Arc<VcpuShared>) -> Arc<Interrupts> {
        let mut pic = Pic::new();
        pic.program_as_bios();
        Arc::new(Interrupts {
            pic: Arc::new(Mutex::new(PicDevice::new(pic, Box::new(Lint0(boot))))),
            io_apic: Mutex::new(IoApic::new(vcpus.len() as u8)),
            vcpus,
            rotation: AtomicUsize::new(0),
        })
    }

    /// A line for a device.
    pub(crate) fn line(self: &Arc<Self>, irq: u8) -> Box<dyn IrqLine> {
        Box::new(IsaLine { interrupts: self.clone(), irq })
    }

    /// Sets the level of line `irq`: 0 to 15 are ISA's, those above reach the I/O APIC only.
    pub fn set_irq(&self, irq: u8, level: bool) {
        if irq < 16 {
            lock(&self.pic).set_irq(irq, level);
        }
        let pin = board::ioapic_pin(irq);
        let message = lock(&self.io_apic).set_pin(pin, level);
        if let Some(message) = message {
            self.deliver_from_pin(pin, &message);
        }
    }

    fn deliver_from_pin(&self, pin: u8, message: &InterruptMessage) {
        if self.deliver(message, None) == 0 {
            lock(&self.io_apic).refused(pin);
        }
    }

    /// Routes a message. Returns the number of local APICs that it addressed.
    pub(crate) fn deliver(&self, message: &InterruptMessage, sender: Option<usize>) -> usize {
        let addresses: Vec<_> = self.vcpus.iter().map(|v| lock(&v.apic).address()).collect();
        let rotation = self.rotation.fetch_add(1, Ordering::Relaxed);
        route(message, sender, &addresses, rotation, |i| {
            if let Some(vcpu) = self.vcpus.get(i) {
                let reception = lock(&vcpu.apic).receive(message);
                vcpu.receive(reception);
            }
        })
    }

    /// A local APIC's end of interrupt for a level-triggered vector.
    pub(crate) fn end_of_interrupt(&self, vector: u8) {
        let injections = lock(&self.io_apic).eoi(vector);
        for (pin, message) in injections {
            self.deliver_from_pin(pin, &message);
        }
    }

    /// The vector of the interrupt that vCPU `index` takes now: from its local APIC, or from the
    /// 8259 pair where that reaches it. `None` when there is none.
    pub(crate) fn acknowledge(&self, index: usize) -> Option<u8> {
        let vcpu = self.vcpus.get(index)?;
        let mut apic = lock(&vcpu.apic);
        if apic.interrupt_pending().is_some() {
            return Some(apic.acknowledge());
        }
        let extint = apic.extint_accepted();
        drop(apic);
        if extint && index == 0 {
            let mut pic = lock(&self.pic);
            if pic.intr() {
                return Some(pic.acknowledge());
            }
        }
        None
    }

    /// Whether [`Interrupts::acknowledge`] would give a vector.
    pub(crate) fn is_pending(&self, index: usize) -> bool {
        let Some(vcpu) = self.vcpus.get(index) else { return false };
        let apic = lock(&vcpu.apic);
        if apic.interrupt_pending().is_some() {
            return true;
        }
        let extint = apic.extint_accepted();
        drop(apic);
        extint && index == 0 && lock(&self.pic).intr()
    }
}

/// The I/O APIC's register window.
pub(crate) struct IoApicWindow(pub(crate) Arc<Interrupts>);

impl BusDevice for IoApicWindow {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        lock(&self.0.io_apic).read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let injections = lock(&self.0.io_apic).write(offset, data);
        for (pin, message) in injections {
            self.0.deliver_from_pin(pin, &message);
        }
    }
}
