//! What a vCPU sees of the platform.

/// The answer to an MSR access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MsrResult<T> {
    /// The platform owns the register and performed the access.
    Ok(T),
    /// The platform has no such register; the CPU decides what happens.
    Unknown,
    /// The platform owns the register and refuses the access: #GP(0).
    Fault,
}

/// Everything behind the CPU's memory and I/O interface. There is one object per vCPU, so that
/// it knows which local APIC an access belongs to. Calls are synchronous: an instruction can
/// touch device memory in its middle.
pub trait PhysBus: Send + Sync {
    /// Reads device memory at a guest-physical address. `data` has 1, 2, 4 or 8 bytes.
    /// Addresses that nobody claims read as all ones.
    fn mmio_read(&self, gpa: u64, data: &mut [u8]);
    /// Writes device memory at a guest-physical address. `data` has 1, 2, 4 or 8 bytes.
    fn mmio_write(&self, gpa: u64, data: &[u8]);
    /// IN: reads `size` bytes (1, 2 or 4) from an I/O port. The unused upper bits are zero.
    fn port_read(&self, port: u16, size: u8) -> u32;
    /// OUT: writes `size` bytes (1, 2 or 4) to an I/O port.
    fn port_write(&self, port: u16, size: u8, value: u32);
    /// RDMSR of a register that belongs to the platform (APIC, x2APIC, TSC deadline,
    /// paravirtual clock).
    fn read_msr(&self, msr: u32) -> MsrResult<u64>;
    /// WRMSR of a register that belongs to the platform.
    fn write_msr(&self, msr: u32, value: u64) -> MsrResult<()>;
    /// CR8: the task-priority class, 0 to 15.
    fn task_priority(&self) -> u8;
    /// Sets CR8; `value` is 0 to 15.
    fn set_task_priority(&self, value: u8);
    /// The platform's time-stamp counter, before the guest's own offset.
    fn host_tsc(&self) -> u64;
    /// A KVM hypercall at CPL 0, from 64-bit mode if `long`. `None` where there is none of that
    /// number; otherwise what RAX becomes, negative for an error.
    fn hypercall(&self, number: u64, arguments: [u64; 4], long: bool) -> Option<i64> {
        let _ = (number, arguments, long);
        None
    }
    /// FERR#: an x87 error waits to be reported while CR0.NE is clear.
    fn set_ferr(&self, asserted: bool) {
        let _ = asserted;
    }
    /// IGNNE#: x87 instructions go on in spite of an error. A platform without the circuit ties it
    /// up.
    fn ignne(&self) -> bool {
        true
    }
    /// The guest executed PAUSE: it probably spins.
    fn pause(&self) {}
    /// The guest moved its time-stamp counter: it is now [`PhysBus::host_tsc`] plus `offset`.
    fn tsc_offset_changed(&self, offset: u64) {
        let _ = offset;
    }
}

/// A platform without any device: reads give all ones, writes vanish. For tests.
#[derive(Clone, Copy, Default, Debug)]
pub struct NullBus;

impl PhysBus for NullBus {
    fn mmio_read(&self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xFF);
    }
    fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}
    fn port_read(&self, _port: u16, size: u8) -> u32 {
        match size {
            1 => 0xFF,
            2 => 0xFFFF,
            _ => 0xFFFF_FFFF,
        }
    }
    fn port_write(&self, _port: u16, _size: u8, _value: u32) {}
    fn read_msr(&self, _msr: u32) -> MsrResult<u64> {
        MsrResult::Unknown
    }
    fn write_msr(&self, _msr: u32, _value: u64) -> MsrResult<()> {
        MsrResult::Unknown
    }
    fn task_priority(&self) -> u8 {
        0
    }
    fn set_task_priority(&self, _value: u8) {}
    fn host_tsc(&self) -> u64 {
        0
    }
}
