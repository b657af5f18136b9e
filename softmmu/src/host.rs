//! Host accesses to guest RAM.
//!
//! Guest RAM is shared with other vCPUs and devices, so it is reached by volatile and atomic
//! accesses through raw pointers, never through references. Guest and host have the same
//! memory model: a volatile access of a naturally aligned word is one `mov`, which is what the
//! guest's own access would have been.

use std::arch::asm;

use crate::width::Width;

/// A word without alignment: the volatile access then has none to violate.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned<T>(T);

/// Reads a word.
///
/// # Safety
/// `pointer` must be valid for reads of `T::SIZE` bytes; it need not be aligned.
#[inline(always)]
pub unsafe fn load<T: Width>(pointer: *const u8) -> T {
    // SAFETY: the caller's; a packed struct has alignment 1.
    unsafe { pointer.cast::<Unaligned<T>>().read_volatile().0 }
}

/// Writes a word.
///
/// # Safety
/// `pointer` must be valid for writes of `T::SIZE` bytes; it need not be aligned.
#[inline(always)]
pub unsafe fn store<T: Width>(pointer: *mut u8, value: T) {
    // SAFETY: the caller's; a packed struct has alignment 1.
    unsafe { pointer.cast::<Unaligned<T>>().write_volatile(Unaligned(value)) }
}

/// Copies bytes out of or into guest RAM, in ascending order.
///
/// # Safety
/// Both pointers must be valid for `len` bytes.
#[inline]
pub unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller's; `rep movsb` touches exactly those bytes, DF is clear by the ABI.
    unsafe {
        if len < 16 {
            // The string instruction takes longer to start than this to end.
            for index in 0..len {
                store(dst.add(index), load::<u8>(src.add(index)));
            }
            return;
        }
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") dst => _, inout("rsi") src => _,
            options(nostack, preserves_flags));
    }
}

/// What REP MOVS does: copies `count` elements in ascending order, one element at a time as
/// far as the result shows, so that overlapping runs repeat a pattern.
///
/// # Safety
/// Both pointers must be valid for `count` elements.
#[inline]
pub unsafe fn copy_elements<T: Width>(dst: *mut u8, src: *const u8, count: usize) {
    // SAFETY: the caller's; the string instruction is the definition; DF is clear by the ABI.
    unsafe {
        match T::SIZE {
            1 => asm!("rep movsb", inout("rcx") count => _, inout("rdi") dst => _,
                inout("rsi") src => _, options(nostack, preserves_flags)),
            2 => asm!("rep movsw", inout("rcx") count => _, inout("rdi") dst => _,
                inout("rsi") src => _, options(nostack, preserves_flags)),
            4 => asm!("rep movsd", inout("rcx") count => _, inout("rdi") dst => _,
                inout("rsi") src => _, options(nostack, preserves_flags)),
            _ => asm!("rep movsq", inout("rcx") count => _, inout("rdi") dst => _,
                inout("rsi") src => _, options(nostack, preserves_flags)),
        }
    }
}

/// What REP STOS does.
///
/// # Safety
/// `dst` must be valid for writes of `count` elements.
#[inline]
pub unsafe fn fill_elements<T: Width>(dst: *mut u8, count: usize, value: T) {
    let value = value.to_u64();
    // SAFETY: the caller's; DF is clear by the ABI.
    unsafe {
        match T::SIZE {
            1 => asm!("rep stosb", inout("rcx") count => _, inout("rdi") dst => _,
                in("rax") value, options(nostack, preserves_flags)),
            2 => asm!("rep stosw", inout("rcx") count => _, inout("rdi") dst => _,
                in("rax") value, options(nostack, preserves_flags)),
            4 => asm!("rep stosd", inout("rcx") count => _, inout("rdi") dst => _,
                in("rax") value, options(nostack, preserves_flags)),
            _ => asm!("rep stosq", inout("rcx") count => _, inout("rdi") dst => _,
                in("rax") value, options(nostack, preserves_flags)),
        }
    }
}

/// `lock cmpxchg`: writes `new` if the word equals `expected`; returns what it held.
///
/// # Safety
/// `pointer` must be valid for reads and writes of `T::SIZE` bytes. It need not be aligned,
/// but hosts make an access that crosses a cache line very slow or kill it (split lock).
#[inline(always)]
pub unsafe fn compare_exchange<T: Width>(pointer: *mut u8, expected: T, new: T) -> T {
    let mut old = expected.to_u64();
    let new = new.to_u64();
    // SAFETY: the caller's; the instruction touches T::SIZE bytes at `pointer`.
    unsafe {
        match T::SIZE {
            1 => asm!("lock cmpxchg byte ptr [{p}], {n}", p = in(reg) pointer,
                n = in(reg_byte) new as u8, inout("rax") old, options(nostack)),
            2 => asm!("lock cmpxchg word ptr [{p}], {n:x}", p = in(reg) pointer,
                n = in(reg) new, inout("rax") old, options(nostack)),
            4 => asm!("lock cmpxchg dword ptr [{p}], {n:e}", p = in(reg) pointer,
                n = in(reg) new, inout("rax") old, options(nostack)),
            _ => asm!("lock cmpxchg qword ptr [{p}], {n}", p = in(reg) pointer,
                n = in(reg) new, inout("rax") old, options(nostack)),
        }
    }
    T::from_u64(old)
}

/// `lock cmpxchg16b`; returns what memory held.
///
/// # Safety
/// `pointer` must be 16-byte aligned and valid for reads and writes of 16 bytes.
#[inline]
pub unsafe fn compare_exchange16(pointer: *mut u8, expected: u128, new: u128) -> u128 {
    let (mut low, mut high) = (expected as u64, (expected >> 64) as u64);
    // SAFETY: the caller's. RBX belongs to the compiler, so it is exchanged around the
    // instruction. The compiler may choose RBX for an operand, too: harmless for `new_low`, but the
    // pointer would be lost, so that has a register of its own.
    unsafe {
        asm!("xchg rbx, {new_low}", "lock cmpxchg16b [rdi]", "mov rbx, {new_low}",
            in("rdi") pointer, new_low = inout(reg) new as u64 => _,
            in("rcx") (new >> 64) as u64, inout("rax") low, inout("rdx") high,
            options(nostack));
    }
    u128::from(low) | u128::from(high) << 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compare_exchange_at_every_width_and_misalignment() {
        let mut bytes = [0xAAu8; 32];
        let pointer = bytes.as_mut_ptr();
        // SAFETY: all offsets lie inside `bytes`.
        unsafe {
            store::<u32>(pointer.add(3), 0x1234_5678);
            assert_eq!(compare_exchange::<u32>(pointer.add(3), 1, 2), 0x1234_5678);
            assert_eq!(load::<u32>(pointer.add(3)), 0x1234_5678);
            assert_eq!(compare_exchange::<u32>(pointer.add(3), 0x1234_5678, 2), 0x1234_5678);
            assert_eq!(load::<u32>(pointer.add(3)), 2);
            assert_eq!(compare_exchange::<u8>(pointer, 0xAA, 0xBB), 0xAA);
            assert_eq!(compare_exchange::<u16>(pointer.add(8), 0xAAAA, 0xBBBB), 0xAAAA);
            assert_eq!(compare_exchange::<u64>(pointer.add(16), !0, 1), 0xAAAA_AAAA_AAAA_AAAA);
        }
        assert_eq!(
            (bytes[0], bytes[1], bytes[8], bytes[9], bytes[10]),
            (0xBB, 0xAA, 0xBB, 0xBB, 0xAA)
        );
    }

    #[test]
    fn compare_exchange16_writes_only_on_a_match() {
        #[repr(align(16))]
        struct Aligned([u8; 16]);
        let mut value = Aligned(5u128.to_le_bytes());
        let pointer = value.0.as_mut_ptr();
        let new = 0x1122_3344_5566_7788_99AA_BBCC_DDEE_FF00u128;
        // SAFETY: `value` is 16 bytes, aligned.
        unsafe {
            assert_eq!(compare_exchange16(pointer, 6, new), 5);
            assert_eq!(compare_exchange16(pointer, 5, new), 5);
        }
        assert_eq!(u128::from_le_bytes(value.0), new);
    }

    #[test]
    fn overlapping_copies_repeat_a_pattern() {
        let mut bytes = *b"abcd............";
        let pointer = bytes.as_mut_ptr();
        // SAFETY: 4 + 12 bytes lie inside `bytes`.
        unsafe { copy_elements::<u32>(pointer.add(4), pointer, 3) };
        assert_eq!(&bytes, b"abcdabcdabcdabcd");
    }
}
