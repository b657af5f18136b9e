//! Operand widths.

use std::fmt::Debug;

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

/// An operand of 1, 2, 4 or 8 bytes.
pub trait Width: sealed::Sealed + Copy + Eq + Ord + Debug + Default + Send + 'static {
    /// Size in bytes.
    const SIZE: u32;
    /// Size in bits.
    const BITS: u32 = Self::SIZE * 8;
    /// Zero-extends.
    fn to_u64(self) -> u64;
    /// Truncates.
    fn from_u64(value: u64) -> Self;
}

macro_rules! width {
    ($($t:ty)*) => {$(
        impl Width for $t {
            const SIZE: u32 = size_of::<$t>() as u32;
            #[inline(always)]
            fn to_u64(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn from_u64(value: u64) -> $t {
                value as $t
            }
        }
    )*};
}
width!(u8 u16 u32 u64);
