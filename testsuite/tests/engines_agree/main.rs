//! Random code of every mode on both engines, in slices of some instructions: registers and memory
//! must agree behind each.
//!
//! Where they do not, the slice is interpreted again, one instruction at a time, to see whether it
//! used something that is not defined ([`replay`]). Copies of instructions leave undefined flags as
//! the host does, and hosts differ. If so, the translator's guest takes over the interpreter's state
//! and both go on; if not, the test fails and prints the instructions.
//!
//! `CASES=10000 cargo test --release -p testsuite --test engines_agree` looks further.

mod replay;

use interp::{Exit, sync};
use replay::{Replay, Verdict, replay};
use softmmu::{ExitRequest, GuestRam, LowBox, Mmu, NullBus, RamRange};
use std::fmt::Write;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use testsuite::random_guest::{self, CODE, PAGING_STRUCTURES, RAM, Random, Start};
use x86::compare::{Difference, differences};
use x86::cpuid::{Feature, Policy};
use x86::{Activity, Cpu};

/// Cases of each mode, where the environment does not say otherwise.
const CASES: u64 = 20;
/// Starts in a case, each at another place of the same code.
const STARTS: u64 = 3;
/// Slices of a start.
const SLICES: u64 = 12;
/// Instructions of a slice at most.
const SLICE: u64 = 200;
/// How long a case may take.
const PATIENCE: Duration = Duration::from_millis(500);

enum Engine {
    Interp(Box<interp::Engine>),
    Jit(Box<jit::Engine>),
}

/// How a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Limit,
    Halted,
    TripleFault,
    /// The case takes too long: a string instruction may repeat four thousand million times.
    GivenUp,
}

struct Guest {
    mmu: Mmu,
    cpu: LowBox<Cpu>,
    engine: Engine,
}

/// A guest's CPUID without what is random.
fn policy() -> Arc<Policy> {
    static POLICY: OnceLock<Arc<Policy>> = OnceLock::new();
    let make = || {
        let mut policy = Policy::host(1);
        policy.remove(Feature::Rdrand);
        policy.remove(Feature::Rdseed);
        Arc::new(policy)
    };
    POLICY.get_or_init(make).clone()
}

impl Guest {
    fn new(engine: Engine) -> Guest {
        let ram = GuestRam::new(&[RamRange { gpa: 0, len: RAM }]).expect("guest RAM");
        let mmu = Mmu::new(Arc::new(ram), Arc::new(NullBus)).expect("MMU");
        Guest { mmu, cpu: LowBox::new(Cpu::new()).expect("low memory"), engine }
    }

    fn interpreted() -> Guest {
        Guest::new(Engine::Interp(Box::default()))
    }

    fn translated(threshold: u8) -> Guest {
        let cache_size = 1 << 20;
        let config =
            jit::Config { threshold, cache_size, precise_flags: true, ..Default::default() };
        Guest::new(Engine::Jit(Box::new(jit::Engine::new(config).expect("a translator"))))
    }

    /// Takes over registers and memory.
    fn load(&mut self, cpu: &Cpu, memory: &[u8]) {
        *self.cpu = cpu.clone();
        let mut own = vec![0; memory.len()];
        self.mmu.phys_read(0, &mut own);
        for ((at, new), old) in
            (0u64..).step_by(0x1000).zip(memory.chunks(0x1000)).zip(own.chunks(0x1000))
        {
            if new != old {
                self.mmu.phys_write(at, new);
            }
        }
        sync::paging_changed(&mut self.cpu, &mut self.mmu).expect("valid paging");
        self.mmu.flush_all();
    }

    fn run(&mut self, limit: u64) -> End {
        let (cpu, mmu) = (&mut self.cpu, &mut self.mmu);
        let exit = match &mut self.engine {
            Engine::Interp(engine) => engine.run(cpu, mmu, limit),
            Engine::Jit(engine) => engine.run(cpu, mmu, limit),
        };
        match exit {
            Exit::Limit => End::Limit,
            Exit::Stopped => {
                cpu.activity = Activity::Running;
                End::Halted
            }
            Exit::TripleFault(_) => End::TripleFault,
            Exit::Request => End::GivenUp,
        }
    }

    /// Interprets one instruction, or delivers its exception.
    fn step(&mut self) -> End {
        let Engine::Interp(engine) = &mut self.engine else { return End::GivenUp };
        engine.drop_code(&self.mmu.take_code_writes());
        let exit = engine.step(&mut self.cpu, &mut self.mmu, 1);
        self.cpu.activity = Activity::Running;
        match exit {
            Some(Exit::TripleFault(_)) => End::TripleFault,
            Some(_) | None => End::Limit,
        }
    }

    fn memory(&mut self) -> Vec<u8> {
        let mut memory = vec![0; RAM as usize];
        self.mmu.phys_read(0, &mut memory);
        memory
    }
}

/// What a case did, for the whole test's account.
#[derive(Default)]
struct Account {
    slices: u64,
    instructions: u64,
    translated: u64,
    excused: u64,
    given_up: u64,
}

/// Runs a case, and pulls its guests out of what they do where it takes too long.
fn case(start: Start, seed: u64, account: &mut Account) {
    let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let threshold = [0, 0, 2][random.below(3) as usize];
    let (mut first, mut second) = (Guest::interpreted(), Guest::translated(threshold));
    let requests = [&first, &second].map(|guest| guest.mmu.exit_request.clone());
    let (done, over) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                requests.iter().for_each(|request| request.set(ExitRequest::KICK));
            }
        });
        compare(start, seed, &mut random, &mut first, &mut second, account);
        drop(done);
    });
    if let Engine::Jit(engine) = &second.engine {
        account.translated += engine.stats().translated;
    }
}

fn compare(
    start: Start,
    seed: u64,
    random: &mut Random,
    first: &mut Guest,
    second: &mut Guest,
    account: &mut Account,
) {
    let opening: Vec<u8> = (0..16 + random.below(500)).map(|_| random.code_byte()).collect();
    let mut memory = random_guest::memory(random.word(), &opening);
    memory.resize(RAM as usize, 0);
    for round in 0..STARTS {
        random_guest::write_tables(&mut memory, start, random);
        let mut cpu = random_guest::cpu(start, random);
        cpu.policy = policy();
        cpu.rip += round * 0x200;
        first.load(&cpu, &memory);
        second.load(&cpu, &memory);
        for slice in 0..SLICES {
            let limit = 1 + random.below(SLICE);
            let before = (first.cpu.clone(), std::mem::take(&mut memory));
            let ends = (first.run(limit), second.run(limit));
            if ends.0 == End::GivenUp || ends.1 == End::GivenUp {
                account.given_up += 1;
                return;
            }
            memory = first.memory();
            let other = second.memory();
            let found = differences(&first.cpu, &second.cpu);
            account.slices += 1;
            account.instructions += first.cpu.instructions - before.0.instructions;
            if ends.0 != ends.1 || !found.is_empty() || memory != other {
                let replay = replay(&before.0, &before.1, &first.cpu, limit);
                let what = || {
                    describe(
                        start, seed, round, slice, ends, &before.0, &found, &memory, &other,
                        &replay,
                    )
                };
                judge(&replay, &found, &what);
                account.excused += 1;
                if ends.0 != ends.1 {
                    break;
                }
                second.load(&first.cpu, &memory);
            }
            let paging_structures = PAGING_STRUCTURES.0 as usize..PAGING_STRUCTURES.1 as usize;
            let stale = memory[paging_structures.clone()] != before.1[paging_structures]
                || first.cpu.cr3 != before.0.cr3;
            if stale {
                // What is stale in a TLB is not defined, so nothing is.
                first.mmu.flush_all();
                second.mmu.flush_all();
            }
            if ends.0 == End::TripleFault {
                break;
            }
        }
        memory.truncate(RAM as usize);
    }
}

/// Panics where a difference has no excuse.
fn judge(replay: &Replay, found: &[Difference], what: &dyn Fn() -> String) {
    match &replay.verdict {
        Verdict::Defined => panic!("{}", what()),
        Verdict::Excused(_) => {}
        Verdict::FlagsUndefined(mask) => {
            let others = found
                .iter()
                .any(|d| d.register != "rflags" || (d.first ^ d.second) as u64 & !mask != 0);
            assert!(!others && !found.is_empty(), "{}", what());
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "all that a report needs")]
fn describe(
    start: Start,
    seed: u64,
    round: u64,
    slice: u64,
    ends: (End, End),
    before: &Cpu,
    found: &[Difference],
    memory: &[u8],
    other: &[u8],
    replay: &Replay,
) -> String {
    let mut text = format!(
        "{start:?}, seed {seed}, start {round}, slice {slice}: {ends:?} (interpreted, translated)\n"
    );
    for difference in found {
        let _ = writeln!(text, "  {difference}");
    }
    let bytes = (0..).zip(memory.iter().zip(other)).filter(|(_, (a, b))| a != b);
    for (at, (a, b)) in bytes.take(16) {
        let at: usize = at;
        let _ = writeln!(text, "  memory at {at:#x}: {a:#04x} {b:#04x}");
    }
    let _ =
        writeln!(text, "before: {:x?} rip {:x} rflags {:x}", before.gpr, before.rip, before.rflags);
    let _ = writeln!(text, "{:?}, one at a time: {:?}", replay.verdict, replay.differs);
    for line in &replay.listing {
        let _ = writeln!(text, "  {line}");
    }
    text
}

fn cases(start: Start) {
    let count = std::env::var("CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    let first = std::env::var("FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut account = Account::default();
    for seed in first..first + count {
        case(start, seed, &mut account);
    }
    let Account { slices, instructions, translated, excused, given_up } = account;
    println!(
        "{start:?}: {slices} slices, {instructions} instructions, {translated} of them \
         translated, {excused} slices excused, \
         {given_up} of {count} cases given up"
    );
    assert!(translated * 4 > instructions, "{translated} of {instructions} were translated");
    assert!(excused * 4 < slices.max(100), "{excused} of {slices} slices prove nothing");
}

macro_rules! modes {
    ($($name:ident: $start:ident,)*) => {
        $(
            #[test]
            fn $name() {
                cases(Start::$start);
            }
        )*
    };
}

testsuite::for_each_start!(modes);

const _: () = assert!(CODE < RAM);
