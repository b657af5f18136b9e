//! Linux programs of a few instructions, for initial RAM disks. They are 32-bit, so that every x86
//! kernel runs them.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Where a program is loaded.
const LOAD: u32 = 0x0804_8000;
/// Bytes of the ELF header and one program header.
const HEADERS: u32 = 52 + 32;
/// Zeroed memory behind the program.
const BSS: u32 = 0x1000;
const BSS_AT: u32 = LOAD + 0x1000;

/// System calls, by INT 80H.
mod call {
    pub(super) const WRITE: u32 = 4;
    pub(super) const EXIT: u32 = 1;
    pub(super) const CLONE: u32 = 120;
    pub(super) const SCHED_YIELD: u32 = 158;
    pub(super) const MMAP2: u32 = 192;
    pub(super) const FUTEX: u32 = 240;
    pub(super) const EXIT_GROUP: u32 = 252;
    pub(super) const MEMBARRIER: u32 = 375;
}

/// Wraps 32-bit code, entered at its first byte, in a static ELF executable (System V ABI,
/// chapter 4) in memory that is readable, writable and executable.
fn elf(code: &[u8]) -> Vec<u8> {
    const EXECUTABLE: u16 = 2;
    const I386: u16 = 3;
    const LOADED: u32 = 1;
    const READ_WRITE_EXECUTE: u32 = 7;
    let size = HEADERS + code.len() as u32;
    assert!(LOAD + size <= BSS_AT, "the program is larger than a page");
    let mut file = b"\x7FELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([EXECUTABLE, I386].iter().flat_map(|half| half.to_le_bytes()));
    // version, entry, program headers, section headers, flags
    let words = [1, LOAD + HEADERS, 52, 0, 0];
    file.extend(words.iter().flat_map(|word: &u32| word.to_le_bytes()));
    // sizes and counts: ELF header, program header, one of them, no section headers
    file.extend([52u16, 32, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // type, offset, address twice, size in the file and in memory, flags, alignment
    let segment = [LOADED, 0, LOAD, LOAD, size, BSS_AT + BSS - LOAD, READ_WRITE_EXECUTE, 0x1000];
    file.extend(segment.iter().flat_map(|word| word.to_le_bytes()));
    file.extend_from_slice(code);
    file
}

fn assemble(body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let assembled = CodeAssembler::new(32).and_then(|mut a| {
        body(&mut a)?;
        a.assemble(u64::from(LOAD + HEADERS))
    });
    elf(&assembled.expect("the programs of this file assemble"))
}

fn system_call(a: &mut CodeAssembler, number: u32, arguments: &[u32]) -> Result<(), IcedError> {
    for (register, argument) in [ebx, ecx, edx, esi, edi, ebp].into_iter().zip(arguments) {
        a.mov(register, *argument)?;
    }
    a.mov(eax, number)?;
    a.int(0x80)
}

/// Writes `text` to standard output.
fn print(a: &mut CodeAssembler, text: &str) -> Result<(), IcedError> {
    let mut after = a.create_label();
    // The call leaves the text's address on the stack.
    a.call(after)?;
    a.db(text.as_bytes())?;
    a.set_label(&mut after)?;
    a.pop(ecx)?;
    a.mov(edx, text.len() as u32)?;
    system_call(a, call::WRITE, &[1])
}

/// What [`contention`] prints if all went right.
pub const CONTENTION_RIGHT: &str = "contention: right";

/// Threads that take one spin lock in turns, `rounds` times each, and under it
///
/// - count, without and with an atomic instruction;
/// - look whether a page that all share has what was last written there; and
/// - at every sixteenth turn replace that page by a new one, so that an entry which is left in the
///   TLB of another processor shows.
///
/// Outside the lock they ask for an interprocessor interrupt now and then (membarrier), and yield
/// when they have waited long. In the end the first thread, asleep on a futex, compares the counts.
/// Prints [`CONTENTION_RIGHT`], or what is wrong.
pub fn contention(threads: u32, rounds: u32) -> Vec<u8> {
    // In zeroed memory, a cache line each.
    let [lock, plain, atomic, generation, wrong, done] =
        [0u32, 1, 2, 3, 4, 5].map(|line| BSS_AT + 64 * line);
    /// The page that is replaced, where nothing else is.
    const PAGE: u32 = 0x2000_0000;
    const READ_WRITE: u32 = 3;
    const PRIVATE_ANONYMOUS: u32 = 0x22;
    const FIXED: u32 = 0x10;
    const NO_FILE: u32 = u32::MAX;
    /// CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_THREAD, CLONE_SYSVSEM.
    const THREAD: u32 = 0x0005_0F00;
    const FUTEX_WAIT: u32 = 0;
    const FUTEX_WAKE: u32 = 1;
    const PRIVATE_EXPEDITED: u32 = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: u32 = 1 << 4;
    const STACK: u32 = 0x4000;
    let word = |address: u32| dword_ptr(address);

    assemble(|a| {
        let [mut start, mut thread, mut waiting, mut finished] =
            std::array::from_fn(|_| a.create_label());
        let [mut round, mut acquire, mut spin, mut acquired, mut same, mut keep, mut quiet] =
            std::array::from_fn(|_| a.create_label());
        let [mut complain, mut right] = std::array::from_fn(|_| a.create_label());
        let new_page = |a: &mut CodeAssembler| {
            let flags = PRIVATE_ANONYMOUS | FIXED;
            system_call(a, call::MMAP2, &[PAGE, 0x1000, READ_WRITE, flags, NO_FILE, 0])
        };

        new_page(a)?;
        system_call(a, call::MEMBARRIER, &[REGISTER_PRIVATE_EXPEDITED, 0])?;
        a.push(threads)?;
        a.set_label(&mut start)?;
        system_call(a, call::MMAP2, &[0, STACK, READ_WRITE, PRIVATE_ANONYMOUS, NO_FILE, 0])?;
        a.lea(ecx, ptr(eax + STACK as i32))?;
        a.mov(ebx, THREAD)?;
        a.xor(edx, edx)?;
        a.xor(esi, esi)?;
        a.xor(edi, edi)?;
        a.mov(eax, call::CLONE)?;
        a.int(0x80)?;
        a.test(eax, eax)?;
        a.jz(thread)?;
        a.dec(dword_ptr(esp))?;
        a.jnz(start)?;

        a.set_label(&mut waiting)?;
        a.mov(edx, word(done))?;
        a.cmp(edx, threads as i32)?;
        a.je(finished)?;
        a.mov(ebx, done)?;
        a.mov(ecx, FUTEX_WAIT)?;
        a.xor(esi, esi)?;
        a.mov(eax, call::FUTEX)?;
        a.int(0x80)?;
        a.jmp(waiting)?;

        a.set_label(&mut finished)?;
        a.cmp(word(plain), (threads * rounds) as i32)?;
        a.jne(complain)?;
        a.cmp(word(atomic), (threads * rounds) as i32)?;
        a.jne(complain)?;
        a.cmp(word(wrong), 0)?;
        a.je(right)?;
        a.set_label(&mut complain)?;
        print(a, WRONG)?;
        system_call(a, call::EXIT_GROUP, &[1])?;
        a.set_label(&mut right)?;
        print(a, &format!("{CONTENTION_RIGHT}\n"))?;
        system_call(a, call::EXIT_GROUP, &[0])?;

        // A thread; the rounds that are left are on its stack.
        a.set_label(&mut thread)?;
        a.push(rounds)?;
        a.set_label(&mut round)?;
        a.mov(ecx, 500)?;
        a.set_label(&mut acquire)?;
        a.mov(eax, 1)?;
        a.xchg(word(lock), eax)?;
        a.test(eax, eax)?;
        a.jz(acquired)?;
        a.set_label(&mut spin)?;
        a.pause()?;
        a.dec(ecx)?;
        let mut go_on = a.create_label();
        a.jnz(go_on)?;
        system_call(a, call::SCHED_YIELD, &[])?;
        a.mov(ecx, 500)?;
        a.set_label(&mut go_on)?;
        a.cmp(word(lock), 0)?;
        a.jne(spin)?;
        a.jmp(acquire)?;

        a.set_label(&mut acquired)?;
        a.inc(word(plain))?;
        a.mov(eax, word(generation))?;
        a.cmp(eax, word(PAGE))?;
        a.je(same)?;
        a.inc(word(wrong))?;
        a.set_label(&mut same)?;
        a.test(word(plain), 15)?;
        a.jnz(keep)?;
        new_page(a)?;
        a.inc(word(generation))?;
        a.mov(eax, word(generation))?;
        a.mov(word(PAGE), eax)?;
        a.set_label(&mut keep)?;
        a.mov(word(lock), 0)?;

        a.mov(eax, 1)?;
        a.lock().xadd(word(atomic), eax)?;
        a.test(eax, 63)?;
        a.jnz(quiet)?;
        system_call(a, call::MEMBARRIER, &[PRIVATE_EXPEDITED, 0])?;
        a.set_label(&mut quiet)?;
        a.dec(dword_ptr(esp))?;
        a.jnz(round)?;

        a.lock().inc(word(done))?;
        system_call(a, call::FUTEX, &[done, FUTEX_WAKE, 1])?;
        system_call(a, call::EXIT, &[0])
    })
}

const WRONG: &str = "contention: a count or the shared page is wrong\n";

#[cfg(test)]
mod tests {
    use super::*;
    use machine::guests::host_program::output_of_new;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    /// The host is a Linux that runs it as well, if it runs 32-bit programs.
    #[test]
    fn contention_runs_on_the_host() {
        let path =
            std::env::temp_dir().join(format!("ringshift-contention-{}", std::process::id()));
        std::fs::write(&path, contention(4, 2000)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let output = output_of_new(&mut Command::new(&path));
        std::fs::remove_file(&path).unwrap();
        match output {
            Ok(output) => {
                assert!(output.status.success(), "{output:?}");
                assert_eq!(output.stdout, format!("{CONTENTION_RIGHT}\n").into_bytes());
            }
            Err(error) => eprintln!("SKIPPED: this host runs no 32-bit programs: {error}"),
        }
    }
}
