use super::*;
use x86::regs::gpr::{RAX, RBX, RCX, RDX, RSI, RSP};

fn state() -> GprState {
    let mut s = GprState { rflags: flags::FIXED_ONE, ..GprState::default() };
    for i in 0..16 {
        s.gpr[i] = 0x1111_1111_1111_1111 * i as u64;
    }
    s
}

fn fault(result: Result<(), OracleError>) -> u8 {
    match result {
        Err(OracleError::Fault(f)) => f.vector,
        other => panic!("expected a host fault, got {other:?}"),
    }
}

#[test]
fn registers_and_flags_go_through() {
    let mut s = state();
    s.gpr[RAX] = u64::MAX;
    let before = s;
    // add rax, rcx
    run_gpr(&[0x48, 0x01, 0xC8], &mut s).expect("runs");
    assert_eq!(s.gpr[RAX], before.gpr[RCX] - 1);
    assert_eq!(s.gpr[1..], before.gpr[1..]);
    assert_eq!(s.rflags & flags::CF, flags::CF);
    // adc rax, rcx takes the carry
    run_gpr(&[0x48, 0x11, 0xC8], &mut s).expect("runs");
    assert_eq!(s.gpr[RAX], before.gpr[RCX] * 2);
}

#[test]
fn rsp_is_an_operand() {
    let mut s = state();
    s.gpr[RSP] = 0x1234;
    // add rsp, rbx
    run_gpr(&[0x48, 0x01, 0xDC], &mut s).expect("runs");
    assert_eq!(s.gpr[RSP], 0x1234 + s.gpr[RBX]);
}

#[test]
fn faults_come_back_with_their_vector() {
    let mut s = state();
    s.gpr[RCX] = 0;
    let before = s;
    // div rcx: #DE
    assert_eq!(fault(run_gpr(&[0x48, 0xF7, 0xF1], &mut s)), 0);
    assert_eq!(s, before);
    // div rsp with a wild stack pointer
    s.gpr[RSP] = 0;
    assert_eq!(fault(run_gpr(&[0x48, 0xF7, 0xF4], &mut s)), 0);
    // cli: #GP
    assert_eq!(fault(run_gpr(&[0xFA], &mut s)), 13);
}

#[test]
fn memory_operands_stay_in_the_buffer() {
    let mut s = state();
    let mut buffer = [0u8; 64];
    s.gpr[RSI] = buffer.as_mut_ptr() as u64;
    s.gpr[RDX] = 0x55;
    // mov [rsi+8], rdx
    run_gpr_mem(&[0x48, 0x89, 0x56, 0x08], &mut s, &mut buffer).expect("runs");
    assert_eq!(buffer[8], 0x55);
    for bytes in [&[0x48, 0x89, 0x56, 0x39][..], &[0x48, 0x89, 0x56, 0xFF], &[0x48, 0x89, 0x12]] {
        let result = run_gpr_mem(bytes, &mut s, &mut buffer);
        assert!(matches!(result, Err(OracleError::OutsideBuffer)), "{bytes:x?}: {result:?}");
    }
    // push rdx, onto a stack in the buffer
    s.gpr[RSP] = buffer.as_mut_ptr() as u64 + 32;
    run_gpr_mem(&[0x52], &mut s, &mut buffer).expect("runs");
    assert_eq!(buffer[24], 0x55);
    // bts [rsi], rdx reaches bit 0x1000 in byte 0x200
    s.gpr[RDX] = 0x1000;
    let result = run_gpr_mem(&[0x48, 0x0F, 0xAB, 0x16], &mut s, &mut buffer);
    assert!(matches!(result, Err(OracleError::OutsideBuffer)));
}

#[test]
fn dangerous_instructions_are_refused() {
    let refused: [&[u8]; 9] = [
        &[0x0F, 0x05],                   // syscall
        &[0xCD, 0x80],                   // int 0x80
        &[0xEB, 0x10],                   // jmp
        &[0xF3, 0x48, 0x0F, 0xAE, 0xD0], // wrfsbase rax
        &[0x9D],                         // popfq
        &[0x0F, 0x01, 0xD0],             // xgetbv
        &[0x8E, 0xD8],                   // mov ds, eax
        &[0x0F, 0x58, 0xC1],             // addps
        &[0x90, 0x90],                   // two instructions
    ];
    for bytes in refused {
        let result = run_gpr(bytes, &mut state());
        assert!(matches!(result, Err(OracleError::Refused(_))), "{bytes:x?}: {result:?}");
    }
}

#[test]
fn many_threads_at_once() {
    std::thread::scope(|scope| {
        for t in 0..24u64 {
            scope.spawn(move || {
                for i in 0..200 {
                    let mut s = state();
                    s.gpr[RAX] = t;
                    s.gpr[RBX] = i;
                    // lea rax, [rax+rbx*2]
                    run_gpr(&[0x48, 0x8D, 0x04, 0x58], &mut s).expect("runs");
                    assert_eq!(s.gpr[RAX], t + 2 * i);
                    s.gpr[RCX] = 0;
                    assert_eq!(fault(run_gpr(&[0xF7, 0xF1], &mut s)), 0);
                }
            });
        }
    });
}
