//! KVM's paravirtual clock (Linux Documentation/virt/kvm/x86/msr.rst): the guest names a place in
//! its memory, and finds there what it takes to turn its TSC into nanoseconds.

use devices::apic::Now;
use softmmu::GuestRam;

const WALL_CLOCK_OLD: u32 = 0x11;
const SYSTEM_TIME_OLD: u32 = 0x12;
const WALL_CLOCK: u32 = 0x4B56_4D00;
const SYSTEM_TIME: u32 = 0x4B56_4D01;

/// The TSC runs at the same rate on all vCPUs and never goes back.
const TSC_STABLE: u8 = 1;

/// The MSRs of one vCPU.
pub(crate) struct KvmClock {
    wall_clock: u64,
    system_time: u64,
    version: u32,
    /// Wall-clock time at machine time 0, nanoseconds since 1970.
    epoch_ns: u64,
}

impl KvmClock {
    /// A clock not yet enabled. `epoch_ns`: Unix time in nanoseconds at machine time 0.
    pub(crate) fn new(epoch_ns: u64) -> KvmClock {
        KvmClock { wall_clock: 0, system_time: 0, version: 0, epoch_ns }
    }

    pub(crate) fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            WALL_CLOCK | WALL_CLOCK_OLD => Some(self.wall_clock),
            SYSTEM_TIME | SYSTEM_TIME_OLD => Some(self.system_time),
            _ => None,
        }
    }

    /// Writes an MSR. Returns false if it is none of this clock's.
    pub(crate) fn write(&mut self, msr: u32, value: u64, now: Now, ram: &GuestRam) -> bool {
        match msr {
            WALL_CLOCK | WALL_CLOCK_OLD => {
                self.wall_clock = value;
                self.write_wall_clock(ram);
            }
            SYSTEM_TIME | SYSTEM_TIME_OLD => {
                self.system_time = value;
                self.refresh(now, ram);
            }
            _ => return false,
        }
        true
    }

    /// struct pvclock_wall_clock: version, seconds, nanoseconds; the wall time at which system
    /// time was 0.
    fn write_wall_clock(&mut self, ram: &GuestRam) {
        let mut image = [0; 12];
        let even = 2u32;
        image[0..4].copy_from_slice(&even.to_le_bytes());
        image[4..8].copy_from_slice(&((self.epoch_ns / 1_000_000_000) as u32).to_le_bytes());
        image[8..12].copy_from_slice(&((self.epoch_ns % 1_000_000_000) as u32).to_le_bytes());
        // A guest that names no RAM gets no clock.
        let _ = ram.write(self.wall_clock, &image);
    }

    /// struct pvclock_vcpu_time_info, written anew after the guest's TSC was moved.
    ///
    /// Nanoseconds are `(tsc - timestamp) << shift) * mul >> 32 + system_time`; at 1 GHz that is
    /// shift 1 and mul 2^31.
    pub(crate) fn refresh(&mut self, now: Now, ram: &GuestRam) {
        if self.system_time & 1 == 0 {
            return;
        }
        // An odd version means an update is under way; the guest's own vCPU waits for the write
        // to end, so only even ones are ever seen.
        self.version = self.version.wrapping_add(2);
        let mut image = [0; 32];
        image[0..4].copy_from_slice(&self.version.to_le_bytes());
        image[8..16].copy_from_slice(&now.tsc.to_le_bytes());
        image[16..24].copy_from_slice(&now.ns.to_le_bytes());
        image[24..28].copy_from_slice(&(1u32 << 31).to_le_bytes());
        image[28] = 1;
        image[29] = TSC_STABLE;
        // As above.
        let _ = ram.write(self.system_time & !1, &image);
    }
}
