//! Random bytes as guest code, in every mode: the host process must survive, and must keep the
//! power to stop the guest.
//!
//! Both engines run it.

use interp::{Engine, Exit, sync};
use proptest::prelude::*;
use softmmu::{ExitRequest, GuestRam, LowBox, Mmu, NullBus, RamRange};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use testsuite::random_guest::{self, CODE, RAM, Random, Start};
use x86::{Activity, Cpu};

/// How long one start may run: rounds of faults retire no instruction, so time is the bound.
const SLICE: Duration = Duration::from_millis(4);
/// Starts in a case.
const STARTS: u64 = 3;

enum Runner {
    Interp(Box<Engine>),
    Jit(Box<jit::Engine>),
}

impl Runner {
    /// The translator, from the first execution on. Without `exact_limit`, as in a machine, only a
    /// request ends a run.
    fn jit(exact_limit: bool) -> Runner {
        let config = jit::Config {
            threshold: 0,
            cache_size: 1 << 20,
            exact_limit,
            ..jit::Config::default()
        };
        Runner::Jit(Box::new(jit::Engine::new(config).expect("a translator")))
    }

    fn run(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, limit: u64) -> Exit {
        match self {
            Runner::Interp(engine) => engine.run(cpu, mmu, limit),
            Runner::Jit(engine) => engine.run(cpu, mmu, limit),
        }
    }
}

struct Fixture {
    ram: Arc<GuestRam>,
    mmu: Mmu,
    engine: Runner,
}

impl Fixture {
    fn new(memory: &[u8], engine: Runner) -> Fixture {
        let ram = Arc::new(GuestRam::new(&[RamRange { gpa: 0, len: RAM }]).expect("guest RAM"));
        let mmu = Mmu::new(ram.clone(), Arc::new(NullBus)).expect("MMU");
        let fixture = Fixture { ram, mmu, engine };
        fixture.put(memory);
        fixture
    }

    fn put(&self, memory: &[u8]) {
        self.ram.write(0, memory).expect("the fixture lies in RAM");
    }

    /// Runs until the processor shuts down or the slice is over.
    fn run(&mut self, cpu: &mut Cpu) {
        let request = self.mmu.exit_request.clone();
        request.clear(u32::MAX);
        let (done, over) = channel::<()>();
        let watchdog = std::thread::spawn(move || {
            let _ = over.recv_timeout(SLICE);
            request.set(ExitRequest::KICK);
        });
        let start = Instant::now();
        loop {
            match self.engine.run(cpu, &mut self.mmu, 100_000) {
                Exit::Limit => {}
                Exit::Stopped if cpu.activity == Activity::Halted => {
                    cpu.activity = Activity::Running;
                }
                Exit::TripleFault(triple) => {
                    assert!(!triple.explain(cpu, &mut self.mmu).is_empty());
                    break;
                }
                Exit::Request | Exit::Stopped => break,
            }
        }
        drop(done);
        watchdog.join().expect("the watchdog does not panic");
        let taken = start.elapsed();
        assert!(taken < Duration::from_secs(60), "the guest could not be stopped for {taken:?}");
    }
}

fn survives(start: Start, seed: u64, opening: &[u8], engine: Runner) {
    let mut memory = random_guest::memory(seed, opening);
    let mut fixture = Fixture::new(&memory, engine);
    let mut random = Random::new(!seed);
    for round in 0..STARTS {
        random_guest::write_tables(&mut memory, start, &mut random);
        fixture.put(&memory[..CODE as usize]);
        let mut cpu = LowBox::new(random_guest::cpu(start, &mut random)).expect("low memory");
        cpu.rip += round * 0x200;
        sync::paging_changed(&mut cpu, &mut fixture.mmu).expect("the fixture's paging is valid");
        fixture.run(&mut cpu);
    }
}

/// Bytes that are more often the beginning of something than evenly spread ones.
fn code() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => any::<u8>(),
        1 => prop::sample::select(&[0x0F, 0x66, 0x67, 0xF0, 0xF2, 0xF3, 0xC4, 0xC5, 0x48][..]),
        1 => prop::sample::select(&[0x8E, 0xCF, 0xEA, 0xCA, 0xCD, 0xFF, 0x0E, 0x9D, 0xC8][..]),
        1 => 0xD8..=0xDFu8,
    ];
    prop::collection::vec(byte, 16..512)
}

macro_rules! modes {
    ($($name:ident: $start:ident,)*) => {
        mod interpreted {
            use super::*;
            proptest! {
                #![proptest_config(config(256))]
                $(
                    #[test]
                    fn $name(seed: u64, opening in code()) {
                        survives(Start::$start, seed, &opening, Runner::Interp(Box::default()));
                    }
                )*
            }
        }
        mod translated {
            use super::*;
            proptest! {
                #![proptest_config(config(64))]
                $(
                    #[test]
                    fn $name(seed: u64, opening in code()) {
                        survives(Start::$start, seed, &opening, Runner::jit(seed & 1 == 0));
                    }
                )*
            }
        }
    };
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, cases, ..ProptestConfig::default() }
}

testsuite::for_each_start!(modes);
