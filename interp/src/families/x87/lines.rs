//! Registration lines of x87 instructions.

use super::super::vector::lines::lines;
use super::{control, environment, select};
use crate::table::Line;
use decoder::Mnemonic;

/// Control words and whole state, in software.
pub(crate) const CONTROL: &[Line] = &[
    (Mnemonic::Fninit, |_| control::fninit),
    (Mnemonic::Fnclex, |_| control::fnclex),
    (Mnemonic::Fldcw, |_| control::fldcw),
    (Mnemonic::Fnstcw, |_| control::fnstcw),
    (Mnemonic::Fnstsw, |_| control::fnstsw),
    (Mnemonic::Fldenv, |_| environment::fldenv),
    (Mnemonic::Fnstenv, |_| environment::fnstenv),
    (Mnemonic::Fnsave, |_| environment::fnsave),
    (Mnemonic::Frstor, |_| environment::frstor),
    (Mnemonic::Wait, |_| control::fwait),
    (Mnemonic::Fneni, |_| control::obsolete),
    (Mnemonic::Fndisi, |_| control::obsolete),
    (Mnemonic::Fnsetpm, |_| control::obsolete),
];

/// Everything else (SDM vol. 1, section 8.3).
pub(crate) const ARITHMETIC: &[Line] = lines! { select;
    F2xm1, Fabs, Fadd, Faddp, Fbld, Fbstp, Fchs, Fcmovb, Fcmovbe, Fcmove, Fcmovnb, Fcmovnbe,
    Fcmovne, Fcmovnu, Fcmovu, Fcom, Fcomi, Fcomip, Fcomp, Fcompp, Fcos, Fdecstp, Fdiv, Fdivp,
    Fdivr, Fdivrp, Ffree, Ffreep, Fiadd, Ficom, Ficomp, Fidiv, Fidivr, Fild, Fimul, Fincstp,
    Fist, Fistp, Fisttp, Fisub, Fisubr, Fld, Fld1, Fldl2e, Fldl2t, Fldlg2, Fldln2, Fldpi, Fldz,
    Fmul, Fmulp, Fnop, Fpatan, Fprem, Fprem1, Fptan, Frndint, Fscale, Fsin, Fsincos, Fsqrt, Fst,
    Fstp, Fstpnce, Fsub, Fsubp, Fsubr, Fsubrp, Ftst, Fucom, Fucomi, Fucomip, Fucomp, Fucompp,
    Fxam, Fxch, Fxtract, Fyl2x, Fyl2xp1,
};
