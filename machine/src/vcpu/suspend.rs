//! ACPI S3: the CPUs lose their state and RAM keeps its content (ACPI specification 6.5, section
//! 16.1.3). Devices keep their state too, as if they had power of their own.
//!
//! The application processors wait for a start-up IPI at once. The boot processor does nothing, not
//! even for an INIT, until the power management device wakes it; then it starts in the firmware, or
//! where firmware would have gone.

use super::Vcpu;
use crate::boot::{Entry, Real16, tables, vectors};
use crate::control::StopReason;
use devices::legacy::rtc::{self, RtcDevice};
use devices::lock;
use softmmu::GuestRam;
use std::sync::{Arc, Mutex};
use x86::{Activity, Cpu};

/// The shutdown status that makes a PC BIOS resume from S3; QEMU's boards and SeaBIOS have it so.
const RESUME: u8 = 0xFE;
/// Offsets of the FACS's Firmware_Waking_Vector and X_Firmware_Waking_Vector (ACPI specification
/// 6.5, section 5.2.10).
const WAKING_VECTOR: u64 = 12;
const X_WAKING_VECTOR: u64 = 24;

/// Where the boot processor goes on after S3.
#[derive(Clone)]
pub(crate) enum Wakening {
    /// At the reset vector, with the clock's CMOS saying why: firmware does the rest.
    Firmware(Arc<Mutex<RtcDevice>>),
    /// Without firmware: where the FACS at this address says.
    WakingVector(u64),
}

impl Vcpu {
    /// Tells where this CPU, the boot processor, goes on after S3.
    pub(crate) fn set_wakening(&mut self, wakening: Wakening) {
        self.wakening = Some(wakening);
    }

    /// S3 begins: all state goes, but for the time-stamp counter, which does not stop.
    pub(super) fn suspend(&mut self) {
        lock(&self.shared.apic).reset();
        self.shared.drop_nmis();
        let fresh =
            Cpu { policy: self.cpu.policy.clone(), apic_id: self.cpu.apic_id, ..Cpu::new() };
        let old = std::mem::replace(&mut *self.cpu, fresh);
        self.cpu.instructions = old.instructions;
        self.cpu.tsc_offset = old.tsc_offset;
        self.cpu.tsc_adjust = old.tsc_adjust;
        self.cpu.activity = Activity::WaitForSipi;
        self.suspended = self.shared.index == 0;
        self.mmu.flush_all();
        self.sync_paging();
    }

    /// S3 ends. A guest that left no place to go on at starts anew.
    pub(super) fn wake(&mut self) {
        self.suspended = false;
        let entry = match &self.wakening {
            Some(Wakening::Firmware(rtc)) => {
                lock(rtc).set_cmos(rtc::SHUTDOWN_STATUS, RESUME);
                Some(Entry::Real16(Real16::RESET))
            }
            Some(Wakening::WakingVector(facs)) => {
                lock(&self.shared.apic).enter_virtual_wire_mode();
                waking_vector(&self.ram, *facs)
            }
            None => None,
        };
        match entry {
            Some(entry) => {
                self.cpu.activity = Activity::Running;
                self.enter(&entry);
            }
            None => self.control.stop(StopReason::Reset),
        }
    }
}

/// Where the FACS in guest memory tells to go on. X_Firmware_Waking_Vector goes before the other
/// one, and means protected mode without paging: the FACS does not offer the 64-bit environment
/// (64BIT_WAKE_SUPPORTED_F), so that the guest's wish for it (64BIT_WAKE_F) is not looked at.
/// Firmware_Waking_Vector means real mode: the vector's paragraph, and the offset in it.
fn waking_vector(ram: &GuestRam, facs: u64) -> Option<Entry> {
    let (mut signature, mut vector, mut x_vector) = ([0; 4], [0; 4], [0; 8]);
    ram.read(facs, &mut signature).ok()?;
    ram.read(facs + WAKING_VECTOR, &mut vector).ok()?;
    ram.read(facs + X_WAKING_VECTOR, &mut x_vector).ok()?;
    let (vector, x_vector) = (u32::from_le_bytes(vector), u64::from_le_bytes(x_vector));
    match (u32::try_from(x_vector), vector) {
        (Ok(0), 1..0x10_0000) if signature == *b"FACS" => {
            let (segment, offset) = ((vector >> 4) as u16, (vector & 0xF) as u16);
            Some(Entry::Real16(Real16::at(segment, offset)))
        }
        (Ok(eip @ 1..), _) if signature == *b"FACS" => {
            Some(Entry::Protected32(tables::protected32_at(eip, vectors::WAKING_GDT)))
        }
        _ => {
            tracing::warn!(
                vector,
                x_vector,
                "the guest slept without a waking vector below 1 MiB, or an extended one below 4 GiB"
            );
            None
        }
    }
}
