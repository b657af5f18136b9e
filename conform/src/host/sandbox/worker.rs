//! The processes that an engine runs in: a keeper, and one worker after the other.
//!
//! The keeper is forked while the suite sets itself up. It has one thread, so that it may fork
//! again at any time: each time a worker dies, it notes of what, and forks the next.

use super::super::guest::{GuestError, Subject};
use super::super::layout::CODE_ROOM;
use super::super::memory::{Base, LINES, Line, Memory, changed_lines};
use super::super::state::{Case, Outcome, State};
use super::process::{Fate, Head, Shared};
use super::{BATCH, Job, Lines, signals};
use iced_x86::Code;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Processor time that a batch may take before the engine is thought to hang, so that a busy host
/// makes no difference; and time by the clock, in case it sleeps.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5000 });
const CLOCK_PATIENCE: Duration = Duration::from_secs(300);

/// Makes the engine.
pub(super) type Make<'a> = &'a dyn Fn() -> Result<Box<dyn Subject>, GuestError>;

thread_local! {
    /// Where the last panic was.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What a keeper does until it is killed.
///
/// # Safety
/// To be called in a forked child of `parent` that has one thread; `shared` is mapped, shared with
/// the parent.
pub(super) unsafe fn keep(shared: *mut Shared, parent: libc::pid_t, make: Make<'_>) -> ! {
    die_with(parent);
    // SAFETY: these concern this process alone.
    let keeper = unsafe {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::getpid()
    };
    // A panic is a finding. Standard error may have been locked by another thread at the fork.
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        PANIC.set(place);
    }));
    loop {
        // SAFETY: the mapping is valid for the life of this process, and the parent, while it
        // waits, leaves all but `asked` alone.
        unsafe {
            (*shared).ready.store(0, Ordering::Relaxed);
            let pid = libc::fork();
            if pid == 0 {
                die_with(keeper);
                serve(shared, make);
            }
            let mut status = 0;
            while pid > 0 && libc::waitpid(pid, &mut status, 0) != pid {}
            let ready = pid > 0 && (*shared).ready.load(Ordering::Relaxed) != 0;
            (*shared).status = status;
            let fate = if ready { Fate::Died } else { Fate::NotMade };
            (*shared).fate.store(fate as u32, Ordering::Relaxed);
            answer(shared, (*shared).asked.load(Ordering::Acquire));
            if !ready {
                libc::_exit(1);
            }
        }
    }
}

/// Has this process killed when its parent dies; ends it if that has happened.
fn die_with(parent: libc::pid_t) {
    // SAFETY: these concern this process alone.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(1);
        }
    }
}

/// Makes the engine and runs batches until it is killed.
///
/// # Safety
/// As for [`keep`].
unsafe fn serve(shared: *mut Shared, make: Make<'_>) -> ! {
    // SAFETY: the caller's; the record is part of the mapping. The parent leaves the batch alone
    // while it waits for it.
    unsafe {
        signals::install(&raw mut (*shared).signal);
        set_timers(CLOCK_PATIENCE);
        let mut subject = match catch_unwind(AssertUnwindSafe(make)) {
            Ok(Ok(subject)) => subject,
            Ok(Err(error)) => give_up(shared, &error.to_string()),
            Err(_) => give_up(shared, &format!("PANIC at {}", PANIC.take())),
        };
        (*shared).ready.store(1, Ordering::Relaxed);
        let mut base: Option<(u32, Base)> = None;
        let mut case = no_case();
        loop {
            let done = (*shared).done.load(Ordering::Relaxed);
            let asked = (*shared).asked.load(Ordering::Acquire);
            if asked == done {
                set_timers(Duration::ZERO);
                futex(&(*shared).asked, libc::FUTEX_WAIT, asked);
                continue;
            }
            set_timers(CLOCK_PATIENCE);
            if (*shared).fresh != 0 {
                subject.forget();
            }
            let number = (*shared).base_number;
            let base = match &mut base {
                Some((known, base)) if *known == number => base,
                other => &mut other.insert((number, Arc::new((*shared).base))).1,
            };
            for i in (*shared).first as usize..((*shared).end as usize).min(BATCH) {
                (*shared).index.store(i as u32, Ordering::Relaxed);
                let job = &mut (*shared).jobs[i];
                load(&mut case, &(*shared).heads[i], job, base);
                match run(&mut *subject, &case, |outcome| store(job, outcome, base)) {
                    Ok(()) => (*shared).texts[i].clear(),
                    Err(text) => (*shared).texts[i].set(&text),
                }
            }
            answer(shared, asked);
        }
    }
}

/// Runs a case, and hands what it came to over.
fn run(subject: &mut dyn Subject, case: &Case, take: impl FnOnce(&Outcome)) -> Result<(), String> {
    // States are large: they are not to be moved about.
    let result = catch_unwind(AssertUnwindSafe(|| match subject.run(case) {
        Ok(outcome) => {
            take(&outcome);
            Ok(())
        }
        Err(text) => Err(text),
    }));
    let place = PANIC.take();
    match result {
        Ok(Err(text)) if !place.is_empty() => Err(format!("{text} (at {place})")),
        Ok(result) => result,
        Err(_) => {
            subject.forget();
            Err(format!("PANIC at {place}"))
        }
    }
}

/// Says why there is no engine.
///
/// # Safety
/// As for [`serve`].
unsafe fn give_up(shared: *mut Shared, why: &str) -> ! {
    // SAFETY: the caller's.
    unsafe {
        (*shared).why.set(why);
        libc::_exit(1)
    }
}

/// Says that a batch is done.
///
/// # Safety
/// As for [`serve`].
unsafe fn answer(shared: *mut Shared, batch: u32) {
    // SAFETY: the caller's.
    unsafe {
        (*shared).done.store(batch, Ordering::Release);
        futex(&(*shared).done, libc::FUTEX_WAKE, 1);
    }
}

fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) {
    let forever = ptr::null::<libc::timespec>();
    // SAFETY: a valid word; both operations leave memory alone.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, forever) };
}

/// Gives what follows [`PATIENCE`] of processor time, and `clock` of the clock's; zero is no limit
/// of the latter. Whoever does not come back dies of SIGPROF or SIGALRM.
fn set_timers(clock: Duration) {
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = |value: Duration| libc::itimerval {
        it_interval: none,
        it_value: libc::timeval {
            tv_sec: value.as_secs() as libc::time_t,
            tv_usec: libc::suseconds_t::from(value.subsec_micros()),
        },
    };
    // SAFETY: valid structs.
    unsafe {
        libc::setitimer(libc::ITIMER_PROF, &timer(PATIENCE), ptr::null_mut());
        libc::setitimer(libc::ITIMER_REAL, &timer(clock), ptr::null_mut());
    }
}

/// No case yet.
fn no_case() -> Case {
    Case {
        bits: 64,
        form: Code::INVALID,
        number: 0,
        code: [0; CODE_ROOM],
        len: 0,
        linear: 0,
        state: State::new(),
        memory: Memory::zero(),
    }
}

/// The case that the parent has loaded.
fn load(case: &mut Case, head: &Head, job: &Job, base: &Base) {
    let lines = &job.memory_before;
    let lines = lines.lines[..(lines.count as usize).min(LINES)].to_vec();
    case.bits = head.bits;
    case.form = Code::try_from(head.form as usize).unwrap_or_default();
    case.number = head.number;
    case.code = job.code;
    case.len = head.len as usize;
    case.linear = head.linear;
    case.state = job.before;
    case.memory = Memory::with_lines(base.clone(), lines);
}

/// Hands an outcome over.
fn store(job: &mut Job, outcome: &Outcome, base: &Base) {
    job.after = outcome.state;
    job.vector = outcome.vector.into();
    job.error = outcome.error;
    job.address = outcome.address;
    let to = &mut job.memory_after;
    to.count = 0;
    let memory = &outcome.memory;
    if memory.shares_base(base) {
        memory.lines().iter().for_each(|&line| push(to, line));
    } else {
        changed_lines(0, &base[..], &memory.bytes()[..], |line| push(to, line));
    }
}

fn push(lines: &mut Lines, line: Line) {
    if let Some(slot) = lines.lines.get_mut(lines.count as usize) {
        *slot = line;
        lines.count += 1;
    }
}
