//! What `--stats` prints.

use crate::vcpu::Vcpu;
use softmmu::GuestRam;
use std::fmt;
use std::time::Duration;

/// Counters of a run, summed over vCPUs.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Wall time of the run.
    pub wall: Duration,
    /// CPU time of the process so far.
    pub cpu: Duration,
    /// Peak resident memory of the process in bytes, guest RAM included.
    pub peak_resident: u64,
    /// Bytes of guest RAM in use by the host.
    pub guest_resident: u64,
    /// Instructions retired.
    pub instructions: u64,
    /// Blocks executed.
    pub blocks_run: u64,
    /// Blocks decoded.
    pub blocks_decoded: u64,
    /// Blocks dropped because their code was written.
    pub blocks_invalidated: u64,
    /// Instructions executed one by one.
    pub single_steps: u64,
    /// Memory accesses that missed the first-level TLB.
    pub tlb_misses: u64,
    /// Memory accesses of interpreted blocks; those of translated code are not counted.
    pub accesses: u64,
    /// Page walks.
    pub page_walks: u64,
    /// Accesses to device memory.
    pub mmio: u64,
    /// Exits from guest code, by reason.
    pub exits: crate::vcpu::ExitCounts,
    /// Exceptions delivered, by vector.
    pub exceptions: [u64; 32],
    /// The translators' counters, where there are translators.
    pub translator: Option<jit::Stats>,
}

impl Stats {
    pub(crate) fn collect(vcpus: &[Vcpu], ram: &GuestRam, wall: Duration) -> Stats {
        let mut s = Stats { wall, guest_resident: ram.resident(), ..Stats::default() };
        (s.cpu, s.peak_resident) = host_usage();
        for v in vcpus {
            s.instructions += v.cpu.instructions.wrapping_add(v.engine.counted());
            let engine = v.engine.interpreter_stats();
            if let Some(translator) = v.engine.translator() {
                *s.translator.get_or_insert_default() += &translator.stats();
            }
            s.blocks_run += engine.blocks_run;
            s.blocks_decoded += engine.blocks_decoded;
            s.blocks_invalidated += engine.blocks_invalidated;
            s.single_steps += engine.single_steps;
            s.accesses += v.mmu.stats.accesses;
            s.tlb_misses += v.mmu.stats.tlb_misses;
            s.page_walks += v.mmu.stats.walks;
            s.mmio += v.mmu.stats.mmio;
            s.exits.halts += v.exits.halts;
            s.exits.interrupts += v.exits.interrupts;
            s.exits.nmis += v.exits.nmis;
            s.exits.requests += v.exits.requests;
            s.exits.slices += v.exits.slices;
            for (sum, n) in s.exceptions.iter_mut().zip(engine.exceptions) {
                *sum += n;
            }
        }
        s
    }

    /// Millions of guest instructions per second of CPU time.
    pub fn mips(&self) -> f64 {
        self.instructions as f64 / self.cpu.as_secs_f64().max(1e-9) / 1e6
    }
}

/// CPU time and peak resident bytes of this process.
fn host_usage() -> (Duration, u64) {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0);
    (cpu, peak * 1024)
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<24} {value:>16}");
        row("wall time", format!("{:.3} s", self.wall.as_secs_f64()))?;
        row("CPU time", format!("{:.3} s", self.cpu.as_secs_f64()))?;
        row("instructions", self.instructions.to_string())?;
        row("rate", format!("{:.1} MIPS", self.mips()))?;
        row("blocks run", self.blocks_run.to_string())?;
        row("blocks decoded", self.blocks_decoded.to_string())?;
        row("blocks invalidated", self.blocks_invalidated.to_string())?;
        row("single steps", self.single_steps.to_string())?;
        row("TLB hits, interpreted", self.accesses.saturating_sub(self.tlb_misses).to_string())?;
        row("TLB misses", self.tlb_misses.to_string())?;
        row("page walks", self.page_walks.to_string())?;
        row("device memory accesses", self.mmio.to_string())?;
        row("exits: halt", self.exits.halts.to_string())?;
        row("exits: request", self.exits.requests.to_string())?;
        row("exits: slice over", self.exits.slices.to_string())?;
        row("interrupts delivered", self.exits.interrupts.to_string())?;
        row("NMIs delivered", self.exits.nmis.to_string())?;
        for (vector, &count) in self.exceptions.iter().enumerate().filter(|e| *e.1 != 0) {
            row(
                &format!("exceptions: {}", x86::fault::vector_name(vector as u8)),
                count.to_string(),
            )?;
        }
        if let Some(translator) = &self.translator {
            translator.rows(&mut row)?;
        }
        row("guest memory in use", format!("{:.1} MiB", mib(self.guest_resident)))?;
        let own = self.peak_resident.saturating_sub(self.guest_resident);
        row("peak memory above it", format!("{:.1} MiB", mib(own)))?;
        self.translator.iter().try_for_each(|translator| write!(f, "{}", translator.tables()))
    }
}
