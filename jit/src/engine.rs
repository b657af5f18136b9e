//! The engine: interprets what is cold, translates what is hot, and runs it.

use crate::arena::{Arena, ArenaError};
use crate::cache::{BlockCache, Place};
use crate::emit::{Emitted, Environment, emit_block};
use crate::explain::BlockNotes;
use crate::helper::{Site, load_flags, pack_flags};
use crate::indirect::IndirectCache;
use crate::key::Key;
use crate::profile::{Mix, Profile};
use crate::runtime::{Leave, Low, Runtime};
use crate::segments::{CodeSegment, CodeSegments};
use crate::stats::{Counts, Left, Stats};
use crate::stubs::{self, Addresses, Host, Stubs};
use decoder::Mnemonic;
use hashbrown::{HashMap, HashSet};
use interp::Exit;
use interp::access::is_canonical;
use interp::engine::block::{Block as DecodedBlock, Op, decode_block};
use interp::engine::needs_single_step;
use softmmu::{CodeWrite, ExitRequest, LowError, Mmu, Rights};
use std::mem::offset_of;
use thiserror::Error;
use x86::{Activity, Cpu, Fault};

/// Room that one block can need at most.
const MAX_BLOCK_BYTES: usize = 64 << 10;
/// Counters of executions of cold code, by a hash of its address.
const HEAT: usize = 1 << 16;

/// Why there is no translator on this host.
#[derive(Debug, Error)]
pub enum EngineError {
    /// No code cache.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// No low memory.
    #[error(transparent)]
    Low(#[from] LowError),
}

/// How the translator works.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of host code before everything is translated anew.
    pub cache_size: usize,
    /// Executions by the interpreter before a block is translated; 0 translates at once.
    pub threshold: u8,
    /// Calls the interpreter's definition for every instruction.
    pub helpers_only: bool,
    /// Keeps arithmetic flags that no instruction will read, so that exception frames hold what
    /// the interpreter puts there, and hands flags that an instruction leaves undefined to the host
    /// as the guest has them. For lockstep runs.
    pub precise_flags: bool,
    /// Keeps notes of what host code is for: [`Engine::explain`] needs them.
    pub notes: bool,
    /// Ends a run after exactly as many instructions as were asked for. Without it translated code
    /// does not look at the limit, and what it executes is counted by [`Engine::counted`] instead
    /// of in [`Cpu::instructions`]: blocks need not wait for one another's count.
    pub exact_limit: bool,
    /// Counts instructions and their strategies without an exact limit, too, by an addition to
    /// memory at each block's entry and side exit.
    pub count: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cache_size: 32 << 20,
            threshold: 30,
            helpers_only: false,
            precise_flags: false,
            notes: false,
            exact_limit: true,
            count: true,
        }
    }
}

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

    /// Where the code at the CPU's state is; none where it must be interpreted.
    pub(crate) fn locate(
        &mut self,
        cpu: &Cpu,
        mmu: &mut Mmu,
        key: Key,
    ) -> Option<(Place, CodeSegment)> {
        let rip = cpu.rip;
        let code = CodeSegment::of(cpu);
        if rip > code.limit {
            return None;
        }
        let linear = code.linear(rip);
        let found = mmu.fetch_translate(linear).ok().filter(|found| found.ram)?;
        let Some(segment) = self.segments.number(code) else {
            self.segments.clear();
            self.flush_translations();
            return None;
        };
        Some((Place { rip, gpa: found.gpa, linear, key, segment }, code))
    }

    /// The code to enter at the CPU's state, translated if it is hot.
    fn find_code(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, next: &Next) -> Option<u64> {
        let key = Key::of(cpu, mmu)?;
        if !self.indirect.has_room(key) {
            self.flush_translations();
            self.indirect.drop_tables();
        }
        let (place, code_segment) = self.locate(cpu, mmu, key)?;
        let linear = place.linear;
        let index = match self.find_block(mmu, &place) {
            Some(index) => index,
            None => {
                let heat = &mut self.heat[heat_index(place.gpa)];
                if *heat < self.config.threshold {
                    *heat += 1;
                    return None;
                }
                self.translate(cpu, mmu, place)?
            }
        };
        let (direct_link, indirect) = match *next {
            Next::Link(link) => (Some(link), false),
            Next::Indirect => (None, true),
            Next::Lookup | Next::Step => (None, false),
        };
        if let Some(link) = direct_link
            && (link as usize) < self.cache.links.len()
        {
            let global = mmu.fetch_is_global(linear);
            self.stats.links += u64::from(self.cache.link(&mut self.arena, link, index, global));
        }
        let table = self.indirect.address(key).ok()? as u64;
        let tag = u64::from(place.segment) << 32;
        let runtime = self.low.get();
        if (table, tag, code_segment) != (runtime.indirect, runtime.code_tag, runtime.code_segment)
        {
            (runtime.indirect, runtime.code_tag) = (table, tag);
            runtime.code_segment = code_segment;
            self.reset_returns();
        }
        let code = self.cache.blocks[index as usize].saved;
        if indirect {
            // A block in two pages is looked up each time.
            if self.cache.blocks[index as usize].second_page.is_none() {
                self.indirect.insert(&place, mmu.fetch_is_global(linear), code);
            }
        }
        Some(code)
    }

    /// The block at `place`, if it is still mapped as it was.
    fn find_block(&mut self, mmu: &mut Mmu, place: &Place) -> Option<u32> {
        let index = self.cache.find(place)?;
        let Some(second) = self.cache.blocks[index as usize].second_page else {
            return Some(index);
        };
        if mmu.fetch_translate(place.second_page()).is_ok_and(|found| found.gpa == second) {
            return Some(index);
        }
        self.cache.remove(&mut self.arena, &mut self.indirect, index);
        None
    }

    /// Translates the block at `place`; none where it must be interpreted.
    pub(crate) fn translate(&mut self, cpu: &Cpu, mmu: &mut Mmu, place: Place) -> Option<u32> {
        let profiled = self.profile.as_ref().is_none_or(Profile::has_room);
        if self.arena.room() < MAX_BLOCK_BYTES || !profiled {
            self.flush_translations();
        }
        let bits = place.key.mode().bits();
        let decoded = decode_block(&cpu.policy, mmu, place.linear, place.gpa, bits).ok()?;
        let segment = CodeSegment::of(cpu);
        let count = loop_end(&decoded, self.block_limit).min(within_limit(
            &decoded,
            place.rip,
            segment.limit,
        ));
        if count == 0 {
            return None;
        }
        let len: u64 = decoded.ops[..count].iter().map(|op| u64::from(op.insn.len)).sum();
        let first = len.min(0x1000 - (place.gpa & 0xFFF));
        mmu.mark_code_range(place.gpa, first);
        if let Some(second) = decoded.second_page {
            mmu.mark_code_range(second, len - first);
        }
        // Another vCPU may have written between the decoding and the marking.
        let mut now = vec![0; len as usize];
        let (head, tail) = now.split_at_mut(first as usize);
        mmu.phys_read(place.gpa, head);
        mmu.phys_read(decoded.second_page.unwrap_or(0), tail);
        let bytes = decoded.ops[..count].iter().flat_map(|op| op.insn.as_bytes());
        if decoded.ops[..count].iter().all(|op| !is_invalid(op)) && !bytes.eq(now.iter()) {
            return None;
        }
        let indirect = self.indirect.address(place.key).ok()?;
        let behind = match decoded.ops[..count].last().map(|op| op.insn.mnemonic()) {
            Some(Mnemonic::Stac) => place.key.with_access_override(true),
            Some(Mnemonic::Clac) => place.key.with_access_override(false),
            _ => None,
        };
        let indirect_behind = self.indirect.address(behind.unwrap_or(place.key)).ok()?;
        let stubs = self.stubs?;
        let spot = self.arena.next();
        let environment = Environment {
            addresses: &self.addresses,
            stubs: &stubs,
            indirect,
            indirect_behind,
            segment,
            sites: &mut self.sites,
            exact: self.config.exact_limit,
            merge: !self.unmerged.contains(&place),
            first_link: self.cache.links.len() as u32,
            policy: &cpu.policy,
            host: self.host,
            helpers_only: self.config.helpers_only,
            precise_flags: self.config.precise_flags,
            counter: self.profile.as_ref().map(Profile::next),
        };
        let emitted = emit_block(spot, place.rip, place.key, &decoded.ops[..count], environment);
        let Some(Emitted { hot, cold, direct, saved, exits, notes }) = emitted else {
            self.sites.truncate(self.counts.by_site.len());
            return None;
        };
        let at = self.arena.append(&hot, &cold)?;
        debug_assert_eq!(at, spot);
        self.stats.blocks_translated += 1;
        self.stats.instructions_translated += count as u64;
        self.stats.guest_bytes += len;
        self.stats.host_bytes += (hot.len() + cold.len()) as u64;
        self.counts.by_site.resize(self.sites.len(), Left::default());
        if let Some(profile) = &mut self.profile {
            profile.add(place.linear, &notes);
        }
        let second_page = decoded.second_page;
        let index = self.cache.insert(place, (len, second_page), (direct, saved), &exits);
        if let Some((rip, block)) = &mut self.watch
            && rip.wrapping_sub(place.linear) < len
        {
            *block = Some(index);
        }
        if self.config.notes {
            let ops = decoded.ops[..count].into();
            let (hot, cold) = (hot.len(), cold.len());
            self.notes.insert(index, BlockNotes { notes, ops, spot, hot, cold });
        }
        Some(index)
    }

    /// Runs translated code from `code` on.
    fn execute(
        &mut self,
        cpu: &mut Cpu,
        mmu: &mut Mmu,
        code: u64,
        end: u64,
        next: &mut Next,
    ) -> Option<Exit> {
        self.stats.entries += 1;
        let before = cpu.instructions;
        let exact = self.config.exact_limit;
        let budget = if exact { i64::try_from(end - before).unwrap_or(i64::MAX) } else { 0 };
        let stubs = self.stubs?;
        let runtime = self.low.as_ptr();
        // SAFETY: the runtime is the engine's own, and no reference to it is alive. Translated code
        // at `code` was emitted for this CPU and MMU (see `attach`) and uses only them, the
        // runtime and guest RAM. While it runs, the references that were passed in are not used
        // but through the pointers made from them here.
        let (leave, argument) = unsafe {
            (*runtime).budget = budget;
            (*runtime).flags = pack_flags(cpu.rflags);
            (*runtime).cpu = cpu;
            (*runtime).mmu = mmu;
            (*runtime).sites = self.sites.as_ptr();
            (*runtime).counts = &raw mut self.counts;
            (*runtime).targets = &raw const self.indirect;
            (*runtime).segments = &raw const self.segments;
            let enter: extern "sysv64" fn(u64) = std::mem::transmute(stubs.enter);
            enter(code);
            let executed = budget.wrapping_sub((*runtime).budget) as u64;
            if exact {
                cpu.instructions = before.wrapping_add(executed);
                self.stats.translated += executed;
            }
            ((*runtime).leave, (*runtime).argument)
        };
        let unmerge = std::mem::take(&mut self.low.get().unmerge);
        if unmerge != 0 {
            self.unmerge(mmu, unmerge - 1);
        }
        let saved = self.low.get().flags;
        match Leave::from_bits(leave) {
            Leave::Resync => {
                self.stats.exits_resync += 1;
                *next = Next::Indirect;
            }
            Leave::Link => {
                self.stats.exits_link += 1;
                load_flags(cpu, saved);
                let link = argument as u32;
                let left = self.cache.links.get(link as usize)?;
                cpu.rip = left.target;
                let from = self.cache.blocks[left.from as usize].place.linear;
                self.counts.by_block.entry(from).or_default().exits += 1;
                *next = Next::Link(link);
            }
            Leave::Poll => {
                self.stats.exits_poll += 1;
                let linear = CodeSegment::of(cpu).linear(argument);
                self.counts.by_block.entry(linear).or_default().exits += 1;
                load_flags(cpu, saved);
                cpu.rip = argument;
                *next = Next::Step;
            }
            Leave::Fault => {
                self.stats.exits_fault += 1;
                return self.interp.deliver(cpu, mmu, Fault::from_bits(argument));
            }
            Leave::Stop => return Some(Exit::Stopped),
            Leave::Return => {
                self.stats.exits_return += 1;
                let site = self.low.get().return_site as usize;
                if let Some(left) = self.counts.by_site.get_mut(site) {
                    left.exits += 1;
                }
                load_flags(cpu, saved);
                cpu.rip = argument;
                *next = Next::Indirect;
                let reachable = if cpu.is_long() {
                    is_canonical(cpu, argument)
                } else {
                    argument <= u64::from(cpu.cs().limit)
                };
                if !reachable {
                    return self.fault_return(cpu, mmu);
                }
            }
        }
        None
    }

    /// Has the block of a site translated anew, without merged checks.
    fn unmerge(&mut self, mmu: &mut Mmu, site: u32) {
        let Some(site) = self.sites.get(site as usize) else { return };
        // Only code in flat segments has merged checks.
        let (linear, key) = (site.block, site.key);
        let Ok(found) = mmu.fetch_translate(linear) else { return };
        let place = Place { rip: linear, gpa: found.gpa, linear, key, segment: 0 };
        if let Some(index) = self.cache.find(&place) {
            self.unmerged.insert(place);
            self.cache.remove(&mut self.arena, &mut self.indirect, index);
        }
    }

    /// #GP(0) of a near return to an address that is not canonical or beyond CS's limit: undoes it.
    fn fault_return(&mut self, cpu: &mut Cpu, mmu: &mut Mmu) -> Option<Exit> {
        let site = self.sites.get(self.low.get().return_site as usize)?;
        let released = if site.op.insn.op_count > 0 { site.op.insn.imm & 0xFFFF } else { 0 };
        cpu.rip = site.rip;
        // It was counted.
        self.counts.given_back += Mix::of(&[site.strategy]);
        if self.config.exact_limit {
            cpu.instructions = cpu.instructions.wrapping_sub(1);
            self.stats.translated = self.stats.translated.wrapping_sub(1);
        }
        let popped = u64::from(site.op.insn.op_size) + released;
        interp::access::release_stack(cpu, popped.wrapping_neg());
        self.interp.deliver(cpu, mmu, Fault::GP0)
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

/// Whether an operation stands for bytes that are no instruction; it does not hold them.
pub(crate) fn is_invalid(op: &Op) -> bool {
    op.insn.len == 1 && op.insn.mnemonic() == Mnemonic::Ud2
}

/// How many of the instructions, the first at `rip`, lie within CS's limit.
fn within_limit(decoded: &DecodedBlock, rip: u64, limit: u64) -> usize {
    let mut end = rip;
    let inside = decoded.ops.iter().take_while(|op| {
        end = end.saturating_add(u64::from(op.insn.len));
        end - 1 <= limit
    });
    inside.count()
}

fn heat_index(gpa: u64) -> usize {
    (gpa ^ gpa >> 16) as usize & (HEAT - 1)
}

/// How many of the instructions belong into one translated block: a branch backwards, which
/// probably closes a loop, ends it, and so does a change of SMAP's suspension. No more of them than
/// `limit` bytes hold, but one.
fn loop_end(decoded: &DecodedBlock, limit: u64) -> usize {
    let ends = |op: &Op| {
        let backwards = op.insn.op[0].kind == decoder::OpKind::Near && (op.insn.imm as i64) < 0;
        backwards || matches!(op.insn.mnemonic(), Mnemonic::Stac | Mnemonic::Clac)
    };
    let count = decoded.ops.iter().position(ends).map_or(decoded.ops.len(), |i| i + 1);
    let mut len = 0;
    let inside = decoded.ops[..count].iter().take_while(|op| {
        len += u64::from(op.insn.len);
        len <= limit
    });
    inside.count().max(1)
}
