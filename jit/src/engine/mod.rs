//! The engine: interprets what is cold, translates what is hot, and runs it.

mod execute;
mod lookup;

use crate::addresses::Addresses;
use crate::arena::Arena;
use crate::cache::{BlockCache, Place};
use crate::config::{Config, EngineError};
use crate::explain::BlockNotes;
use crate::helper::Site;
use crate::indirect::IndirectCache;
use crate::profile::{Mix, Profile};
use crate::runtime::{Low, Runtime};
use crate::segments::CodeSegments;
use crate::stats::{Counts, Stats};
use crate::stubs::{self, Host, Stubs};
use hashbrown::{HashMap, HashSet};
use interp::Exit;
use interp::engine::needs_single_step;
use lookup::{HEAT, heat_index};
use softmmu::{CodeWrite, ExitRequest, Mmu, Rights};
use std::mem::offset_of;
use x86::{Activity, Cpu};

/// Translates and runs one vCPU.
pub struct Engine {
    /// What is cold or odd runs here.
    pub interp: interp::Engine,
    config: Config,
    pub(crate) arena: Arena,
    pub(crate) low: Low,
    pub(crate) host: Host,
    pub(crate) stubs: Option<Stubs>,
    pub(crate) addresses: Addresses,
    pub(crate) cache: BlockCache,
    pub(crate) indirect: IndirectCache,
    segments: CodeSegments,
    sites: Vec<Site>,
    /// Where [`Config::notes`] asks for them, by the block's number.
    pub(crate) notes: HashMap<u32, BlockNotes>,
    /// Linear address of an instruction, and the number of the last block translated that has it.
    pub(crate) watch: Option<(u64, Option<u32>)>,
    /// Guest bytes of a block at most: where code is known to end.
    pub(crate) block_limit: u64,
    heat: Box<[u8]>,
    /// Blocks that are better off without merged checks.
    unmerged: HashSet<Place>,
    counts: Counts,
    pub(crate) profile: Option<Profile>,
    stats: Stats,
}

// SAFETY: the runtime's raw pointers are set at each entry into translated code and not used
// outside of it.
unsafe impl Send for Engine {}

/// What to do next.
enum Next {
    /// Nothing is known.
    Lookup,
    /// Patch this link to where execution goes on.
    Link(u32),
    /// Enter where execution goes on into the indirect cache.
    Indirect,
    /// Interpret one step: too few instructions are left for a block.
    Step,
}

impl Engine {
    /// An engine with empty caches.
    ///
    /// # Errors
    /// The host refuses executable or low memory.
    pub fn new(config: Config) -> Result<Engine, EngineError> {
        let count = config.count && !config.exact_limit;
        let profile = if count { Some(Profile::new()?) } else { None };
        Ok(Engine {
            interp: interp::Engine::new(),
            config,
            arena: Arena::new(config.cache_size.max(256 << 10))?,
            low: Low::new()?,
            host: Host::detect(),
            stubs: None,
            addresses: Addresses::default(),
            cache: BlockCache::default(),
            indirect: IndirectCache::default(),
            segments: CodeSegments::default(),
            sites: Vec::new(),
            notes: HashMap::new(),
            watch: None,
            block_limit: u64::MAX,
            heat: vec![0; HEAT].into(),
            counts: Counts::default(),
            profile,
            unmerged: HashSet::new(),
            stats: Stats::default(),
        })
    }

    /// Counters since the engine was made.
    pub fn stats(&self) -> Stats {
        let (by_code, by_block) = self.counts.tables(&self.sites);
        // Slow paths and unexecuted rests of blocks are counted where they happen.
        let counts = &self.counts;
        let slow = counts.slow_done;
        let shares = self.profile.as_ref().map(|p| {
            let mix = p.total() - counts.given_back - slow;
            Mix { slow: slow.total(), ..mix }
        });
        Stats {
            helpers: self.counts.helpers,
            slow_accesses: self.counts.slow,
            shares,
            by_code,
            by_block,
            translated: self.stats.translated + self.counted(),
            ..self.stats.clone()
        }
    }

    /// Counts instructions by strategy from now on ([`Stats::shares`]), which costs an addition to
    /// memory at each block's entry. Call it before the first run.
    ///
    /// # Errors
    /// The host refuses low memory.
    pub fn count_strategies(&mut self) -> Result<(), EngineError> {
        if self.profile.is_none() {
            self.profile = Some(Profile::new()?);
            self.flush_translations();
        }
        Ok(())
    }

    /// Linear address of the translated block that was entered most often, where
    /// [`Engine::count_strategies`] asked for it.
    pub fn hottest_block(&self) -> Option<u64> {
        self.profile.as_ref()?.hottest()
    }

    /// Instructions that translated code executed and that are not in [`Cpu::instructions`]: see
    /// [`Config::exact_limit`].
    pub fn counted(&self) -> u64 {
        match &self.profile {
            Some(profile) if !self.config.exact_limit => {
                (profile.total() - self.counts.given_back).total()
            }
            Some(_) | None => 0,
        }
    }

    /// Runs until an [`Exit`], for at most `limit` instructions, or about as many exceptions; without
    /// [`Config::exact_limit`] one instruction is the only limit that translated code does not pass.
    /// `cpu` must lie below 2 GiB (`softmmu::LowBox`); elsewhere it is only interpreted.
    pub fn run(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, limit: u64) -> Exit {
        let end = cpu.instructions.saturating_add(limit);
        if cpu.activity != Activity::Running {
            return Exit::Stopped;
        }
        if !self.attach(cpu, mmu) {
            return self.interp.run(cpu, mmu, limit);
        }
        let mut next = Next::Lookup;
        // A guest can fault for ever without retiring an instruction.
        let last_fault = self.interp.stats.faults.saturating_add(limit);
        let one_step = limit == 1 && !self.config.exact_limit;
        loop {
            if mmu.code_dirty {
                self.drop_code(mmu);
            }
            if mmu.mapping_changes.any {
                self.drop_mappings(mmu);
            }
            let request = mmu.exit_request.load();
            if request != 0 {
                if request & ExitRequest::CODE != 0 {
                    mmu.exit_request.clear(ExitRequest::CODE);
                    mmu.sync_code_pages();
                    continue;
                }
                if request & ExitRequest::KICK != 0
                    || request & ExitRequest::NMI != 0 && cpu.nmi_open()
                {
                    return Exit::Request;
                }
                // Blocks end at their entry while the bit is set.
                mmu.exit_request.clear(ExitRequest::INTERRUPT);
                self.low.get().interrupt_waits = 1;
            }
            if self.low.get().interrupt_waits != 0 && cpu.interrupts_open() {
                self.low.get().interrupt_waits = 0;
                return Exit::Request;
            }
            if cpu.instructions >= end || self.interp.stats.faults > last_fault {
                return Exit::Limit;
            }
            let step = one_step || matches!(next, Next::Step) || needs_single_step(cpu);
            let code = if step { None } else { self.find_code(cpu, mmu, &next) };
            next = Next::Lookup;
            if code.is_some() && mmu.code_dirty {
                // Mail that was read while others were waited for: nothing asks translated code to
                // leave for it any more.
                continue;
            }
            let exit = match code {
                Some(code) => self.execute(cpu, mmu, code, end, &mut next),
                None => self.step(cpu, mmu, end - cpu.instructions),
            };
            if let Some(exit) = exit {
                return exit;
            }
        }
    }

    /// Drops every decoded and translated block.
    pub fn flush(&mut self) {
        self.interp.flush();
        self.flush_translations();
    }

    fn flush_translations(&mut self) {
        self.stats.flushes += 1;
        self.counts.flush(&self.sites);
        if let Some(profile) = &mut self.profile {
            profile.flush();
        }
        self.cache.clear();
        self.indirect.clear();
        self.sites.clear();
        self.unmerged.clear();
        self.notes.clear();
        if let Some((_, block)) = &mut self.watch {
            *block = None;
        }
        self.arena.reset();
        self.reset_returns();
    }

    /// Forgets which returns are expected: they hold for one key and one mapping of pages.
    fn reset_returns(&mut self) {
        let miss = self.stubs.map_or(0, |stubs| stubs.return_miss);
        self.low.reset_stack(miss);
    }

    fn step(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, room: u64) -> Option<Exit> {
        let before = cpu.instructions;
        let exit = self.interp.step(cpu, mmu, room);
        self.stats.interpreted += cpu.instructions - before;
        exit
    }

    /// Makes stubs for this CPU and MMU, or new ones where they have moved. False where they are
    /// out of reach.
    pub(crate) fn attach(&mut self, cpu: &mut Cpu, mmu: &mut Mmu) -> bool {
        let address = &raw mut *cpu as u64;
        if address + size_of::<Cpu>() as u64 > softmmu::low::LOW_LIMIT {
            return false;
        }
        let field = |offset| self.low.field(offset);
        let addresses = Addresses {
            cpu: address as i32,
            exit_request: mmu.exit_request.address() as i32,
            tlb: Rights::ALL.map(|rights| mmu.tlb_address(rights) as i32),
            budget: field(offset_of!(Runtime, budget)),
            flags: field(offset_of!(Runtime, flags)),
            vector_loaded: field(offset_of!(Runtime, vector_loaded)),
            x87_loaded: field(offset_of!(Runtime, x87_loaded)),
            x87_fop: field(offset_of!(Runtime, x87_fop)),
            x87_fip: field(offset_of!(Runtime, x87_fip)),
            x87_fdp: field(offset_of!(Runtime, x87_fdp)),
            temporary: field(offset_of!(Runtime, temporary)),
            second_temporary: field(offset_of!(Runtime, second_temporary)),
            pointers: field(offset_of!(Runtime, pointers)),
            indirect: field(offset_of!(Runtime, indirect)),
            code_tag: field(offset_of!(Runtime, code_tag)),
            interrupt_waits: field(offset_of!(Runtime, interrupt_waits)),
            stack_base: self.low.stack_base(),
            stack_limit: self.low.stack_limit(),
        };
        if self.stubs.is_some() && addresses == self.addresses {
            return true;
        }
        self.addresses = addresses;
        self.arena.clear();
        self.stubs = stubs::emit(&mut self.arena, &self.low, &addresses, self.host);
        self.flush_translations();
        self.stubs.is_some()
    }

    fn drop_code(&mut self, mmu: &mut Mmu) {
        let writes = mmu.take_code_writes();
        self.interp.drop_code(&writes);
        for write in &writes {
            if *write == CodeWrite::EVERYTHING {
                self.flush_translations();
                return;
            }
            for gpa in self.cache.invalidate(&mut self.arena, &mut self.indirect, write) {
                self.stats.blocks_invalidated += 1;
                // Code that is rewritten again and again is not worth translating each time.
                self.heat[heat_index(gpa)] = 0;
            }
        }
    }

    /// Undoes what relied on translations of instruction addresses that may have changed.
    fn drop_mappings(&mut self, mmu: &mut Mmu) {
        let changes = std::mem::take(&mut mmu.mapping_changes);
        self.reset_returns();
        self.indirect.purge(&changes);
        self.cache.unlink_pages(&mut self.arena, &changes);
    }
}
