//! Registration lines of the instructions that the host executes, by extension.

use super::{gather, maskmov, select, state};
use crate::table::Line;
use decoder::Mnemonic;

/// A line for each mnemonic, all with one selector.
macro_rules! lines {
    ($select:expr; $($mnemonic:ident),* $(,)?) => {
        &[$((Mnemonic::$mnemonic, $select),)*]
    };
}
pub(crate) use lines;

/// Instructions with a definition in software: state as a whole, and elements that fault one by
/// one.
pub(crate) const SOFTWARE: &[Line] = &[
    (Mnemonic::Emms, |_| super::x87::emms),
    (Mnemonic::Ldmxcsr, |_| state::ldmxcsr),
    (Mnemonic::Stmxcsr, |_| state::stmxcsr),
    (Mnemonic::Vldmxcsr, |_| state::vldmxcsr),
    (Mnemonic::Vstmxcsr, |_| state::vstmxcsr),
    (Mnemonic::Vzeroupper, |_| state::vzeroupper),
    (Mnemonic::Vzeroall, |_| state::vzeroall),
    (Mnemonic::Maskmovq, |_| maskmov::maskmovq),
    (Mnemonic::Maskmovdqu, |_| maskmov::legacy_maskmovdqu),
    (Mnemonic::Vmaskmovdqu, |_| maskmov::vmaskmovdqu),
    (Mnemonic::Vmaskmovps, maskmov::select),
    (Mnemonic::Vmaskmovpd, maskmov::select),
    (Mnemonic::Vpmaskmovd, maskmov::select),
    (Mnemonic::Vpmaskmovq, maskmov::select),
];

/// Gathers and scatters.
pub(crate) const VECTOR_INDEX: &[Line] = lines! { gather::select;
    Vgatherdpd, Vgatherdps, Vgatherqpd, Vgatherqps, Vpgatherdd, Vpgatherdq, Vpgatherqd, Vpgatherqq,
    Vpscatterdd, Vpscatterdq, Vpscatterqd, Vpscatterqq, Vscatterdpd, Vscatterdps, Vscatterqpd,
    Vscatterqps,
};

/// MMX (SDM vol. 1, chapter 9).
pub(crate) const MMX: &[Line] = lines! { select;
    Movd, Movq, Packssdw, Packsswb, Packuswb, Paddb, Paddd, Paddq, Paddsb, Paddsw, Paddusb,
    Paddusw, Paddw, Pand, Pandn, Pcmpeqb, Pcmpeqd, Pcmpeqw, Pcmpgtb, Pcmpgtd, Pcmpgtw, Pmaddwd,
    Pmulhw, Pmullw, Por, Pslld, Psllq, Psllw, Psrad, Psraw, Psrld, Psrlq, Psrlw, Psubb, Psubd,
    Psubsb, Psubsw, Psubusb, Psubusw, Psubw, Punpckhbw, Punpckhdq, Punpckhwd, Punpcklbw,
    Punpckldq, Punpcklwd, Pxor,
};

/// SSE (SDM vol. 1, chapter 10).
pub(crate) const SSE: &[Line] = lines! { select;
    Addps, Addss, Andnps, Andps, Cmpps, Cmpss, Comiss, Cvtpi2ps, Cvtps2pi, Cvtsi2ss, Cvtss2si,
    Cvttps2pi, Cvttss2si, Divps, Divss, Maxps, Maxss, Minps, Minss, Movaps, Movhlps, Movhps,
    Movlhps, Movlps, Movmskps, Movntps, Movntq, Movss, Movups, Mulps, Mulss, Orps, Pavgb, Pavgw,
    Pextrw, Pinsrw, Pmaxsw, Pmaxub, Pminsw, Pminub, Pmovmskb, Pmulhuw, Psadbw, Pshufw, Rcpps,
    Rcpss, Rsqrtps, Rsqrtss, Shufps, Sqrtps, Sqrtss, Subps, Subss, Ucomiss, Unpckhps, Unpcklps,
    Xorps,
};

/// SSE2 (SDM vol. 1, chapter 11).
pub(crate) const SSE2: &[Line] = lines! { select;
    Addpd, Addsd, Andnpd, Andpd, Cmppd, Comisd, Cvtdq2pd, Cvtdq2ps, Cvtpd2dq, Cvtpd2pi,
    Cvtpd2ps, Cvtpi2pd, Cvtps2dq, Cvtps2pd, Cvtsd2si, Cvtsd2ss, Cvtsi2sd, Cvtss2sd, Cvttpd2dq,
    Cvttpd2pi, Cvttps2dq, Cvttsd2si, Divpd, Divsd, Maxpd, Maxsd, Minpd, Minsd, Movapd, Movdq2q,
    Movdqa, Movdqu, Movhpd, Movlpd, Movmskpd, Movntdq, Movntpd, Movq2dq, Movupd, Mulpd, Mulsd,
    Orpd, Pmuludq, Pshufd, Pshufhw, Pshuflw, Pslldq, Psrldq, Psubq, Punpckhqdq, Punpcklqdq,
    Shufpd, Sqrtpd, Sqrtsd, Subpd, Subsd, Ucomisd, Unpckhpd, Unpcklpd, Xorpd,
};

/// SSE3 (SDM vol. 1, chapter 12).
pub(crate) const SSE3: &[Line] = lines! { select;
    Addsubpd, Addsubps, Haddpd, Haddps, Hsubpd, Hsubps, Lddqu, Movddup, Movshdup, Movsldup,
};

/// SSSE3 (SDM vol. 1, chapter 12).
pub(crate) const SSSE3: &[Line] = lines! { select;
    Pabsb, Pabsd, Pabsw, Palignr, Phaddd, Phaddsw, Phaddw, Phsubd, Phsubsw, Phsubw, Pmaddubsw,
    Pmulhrsw, Pshufb, Psignb, Psignd, Psignw,
};

/// SSE4.1 (SDM vol. 1, chapter 12).
pub(crate) const SSE4_1: &[Line] = lines! { select;
    Blendpd, Blendps, Blendvpd, Blendvps, Dppd, Dpps, Extractps, Insertps, Movntdqa, Mpsadbw,
    Packusdw, Pblendvb, Pblendw, Pcmpeqq, Pextrb, Pextrd, Pextrq, Phminposuw, Pinsrb, Pinsrd,
    Pinsrq, Pmaxsb, Pmaxsd, Pmaxud, Pmaxuw, Pminsb, Pminsd, Pminud, Pminuw, Pmovsxbd, Pmovsxbq,
    Pmovsxbw, Pmovsxdq, Pmovsxwd, Pmovsxwq, Pmovzxbd, Pmovzxbq, Pmovzxbw, Pmovzxdq, Pmovzxwd,
    Pmovzxwq, Pmuldq, Pmulld, Ptest, Roundpd, Roundps, Roundsd, Roundss,
};

/// SSE4.2 (SDM vol. 1, chapter 12).
pub(crate) const SSE4_2: &[Line] = lines! { select;
    Pcmpestri, Pcmpestri64, Pcmpestrm, Pcmpestrm64, Pcmpgtq, Pcmpistri, Pcmpistrm,
};

/// SSE4a (AMD APM vol. 4).
pub(crate) const SSE4A: &[Line] = lines! { select;
    Extrq, Insertq, Movntsd, Movntss,
};

/// AES, PCLMULQDQ, SHA and GFNI without VEX.
pub(crate) const CRYPTO: &[Line] = lines! { select;
    Aesdec, Aesdeclast, Aesenc, Aesenclast, Aesimc, Aeskeygenassist, Gf2p8affineinvqb,
    Gf2p8affineqb, Gf2p8mulb, Pclmulqdq, Sha1msg1, Sha1msg2, Sha1nexte, Sha1rnds4, Sha256msg1,
    Sha256msg2, Sha256rnds2,
};

/// AVX, with the VEX forms of AES, PCLMULQDQ and GFNI (SDM vol. 1, chapter 14).
pub(crate) const AVX: &[Line] = lines! { select;
    Vaddpd, Vaddps, Vaddsd, Vaddss, Vaddsubpd, Vaddsubps, Vaesdec, Vaesdeclast, Vaesenc,
    Vaesenclast, Vaesimc, Vaeskeygenassist, Vandnpd, Vandnps, Vandpd, Vandps, Vblendpd,
    Vblendps, Vblendvpd, Vblendvps, Vbroadcastf128, Vbroadcastsd, Vbroadcastss, Vcmppd, Vcmpps,
    Vcmpsd, Vcmpss, Vcomisd, Vcomiss, Vcvtdq2pd, Vcvtdq2ps, Vcvtpd2dq, Vcvtpd2ps, Vcvtps2dq,
    Vcvtps2pd, Vcvtsd2si, Vcvtsd2ss, Vcvtsi2sd, Vcvtsi2ss, Vcvtss2sd, Vcvtss2si, Vcvttpd2dq,
    Vcvttps2dq, Vcvttsd2si, Vcvttss2si, Vdivpd, Vdivps, Vdivsd, Vdivss, Vdppd, Vdpps,
    Vextractf128, Vextractps, Vgf2p8affineinvqb, Vgf2p8affineqb, Vgf2p8mulb, Vhaddpd, Vhaddps,
    Vhsubpd, Vhsubps, Vinsertf128, Vinsertps, Vlddqu, Vmaxpd, Vmaxps, Vmaxsd, Vmaxss, Vminpd,
    Vminps, Vminsd, Vminss, Vmovapd, Vmovaps, Vmovd, Vmovddup, Vmovdqa, Vmovdqu, Vmovhlps,
    Vmovhpd, Vmovhps, Vmovlhps, Vmovlpd, Vmovlps, Vmovmskpd, Vmovmskps, Vmovntdq, Vmovntdqa,
    Vmovntpd, Vmovntps, Vmovq, Vmovsd, Vmovshdup, Vmovsldup, Vmovss, Vmovupd, Vmovups, Vmpsadbw,
    Vmulpd, Vmulps, Vmulsd, Vmulss, Vorpd, Vorps, Vpabsb, Vpabsd, Vpabsw, Vpackssdw, Vpacksswb,
    Vpackusdw, Vpackuswb, Vpaddb, Vpaddd, Vpaddq, Vpaddsb, Vpaddsw, Vpaddusb, Vpaddusw, Vpaddw,
    Vpalignr, Vpand, Vpandn, Vpavgb, Vpavgw, Vpblendvb, Vpblendw, Vpclmulqdq, Vpcmpeqb,
    Vpcmpeqd, Vpcmpeqq, Vpcmpeqw, Vpcmpestri, Vpcmpestri64, Vpcmpestrm, Vpcmpestrm64, Vpcmpgtb,
    Vpcmpgtd, Vpcmpgtq, Vpcmpgtw, Vpcmpistri, Vpcmpistrm, Vperm2f128, Vpermilpd, Vpermilps,
    Vpextrb, Vpextrd, Vpextrq, Vpextrw, Vphaddd, Vphaddsw, Vphaddw, Vphminposuw, Vphsubd,
    Vphsubsw, Vphsubw, Vpinsrb, Vpinsrd, Vpinsrq, Vpinsrw, Vpmaddubsw, Vpmaddwd, Vpmaxsb,
    Vpmaxsd, Vpmaxsw, Vpmaxub, Vpmaxud, Vpmaxuw, Vpminsb, Vpminsd, Vpminsw, Vpminub, Vpminud,
    Vpminuw, Vpmovmskb, Vpmovsxbd, Vpmovsxbq, Vpmovsxbw, Vpmovsxdq, Vpmovsxwd, Vpmovsxwq,
    Vpmovzxbd, Vpmovzxbq, Vpmovzxbw, Vpmovzxdq, Vpmovzxwd, Vpmovzxwq, Vpmuldq, Vpmulhrsw,
    Vpmulhuw, Vpmulhw, Vpmulld, Vpmullw, Vpmuludq, Vpor, Vpsadbw, Vpshufb, Vpshufd, Vpshufhw,
    Vpshuflw, Vpsignb, Vpsignd, Vpsignw, Vpslld, Vpslldq, Vpsllq, Vpsllw, Vpsrad, Vpsraw,
    Vpsrld, Vpsrldq, Vpsrlq, Vpsrlw, Vpsubb, Vpsubd, Vpsubq, Vpsubsb, Vpsubsw, Vpsubusb,
    Vpsubusw, Vpsubw, Vptest, Vpunpckhbw, Vpunpckhdq, Vpunpckhqdq, Vpunpckhwd, Vpunpcklbw,
    Vpunpckldq, Vpunpcklqdq, Vpunpcklwd, Vpxor, Vrcpps, Vrcpss, Vroundpd, Vroundps, Vroundsd,
    Vroundss, Vrsqrtps, Vrsqrtss, Vshufpd, Vshufps, Vsqrtpd, Vsqrtps, Vsqrtsd, Vsqrtss, Vsubpd,
    Vsubps, Vsubsd, Vsubss, Vtestpd, Vtestps, Vucomisd, Vucomiss, Vunpckhpd, Vunpckhps,
    Vunpcklpd, Vunpcklps, Vxorpd, Vxorps,
};

/// AVX2 (SDM vol. 1, chapter 14).
pub(crate) const AVX2: &[Line] = lines! { select;
    Vbroadcasti128, Vextracti128, Vinserti128, Vpblendd, Vpbroadcastb, Vpbroadcastd,
    Vpbroadcastq, Vpbroadcastw, Vperm2i128, Vpermd, Vpermps, Vpsllvd, Vpsllvq, Vpsravd, Vpsrlvd,
    Vpsrlvq,
};

/// Half-precision conversions (SDM vol. 1, section 14.4).
pub(crate) const F16C: &[Line] = lines! { select;
    Vcvtph2ps, Vcvtps2ph,
};

/// Fused multiply-add (SDM vol. 1, section 14.5).
pub(crate) const FMA: &[Line] = lines! { select;
    Vfmadd132pd, Vfmadd132ps, Vfmadd132sd, Vfmadd132ss, Vfmadd213pd, Vfmadd213ps, Vfmadd213sd,
    Vfmadd213ss, Vfmadd231pd, Vfmadd231ps, Vfmadd231sd, Vfmadd231ss, Vfmaddsub132pd,
    Vfmaddsub132ps, Vfmaddsub213pd, Vfmaddsub213ps, Vfmaddsub231pd, Vfmaddsub231ps, Vfmsub132pd,
    Vfmsub132ps, Vfmsub132sd, Vfmsub132ss, Vfmsub213pd, Vfmsub213ps, Vfmsub213sd, Vfmsub213ss,
    Vfmsub231pd, Vfmsub231ps, Vfmsub231sd, Vfmsub231ss, Vfmsubadd132pd, Vfmsubadd132ps,
    Vfmsubadd213pd, Vfmsubadd213ps, Vfmsubadd231pd, Vfmsubadd231ps, Vfnmadd132pd, Vfnmadd132ps,
    Vfnmadd132sd, Vfnmadd132ss, Vfnmadd213pd, Vfnmadd213ps, Vfnmadd213sd, Vfnmadd213ss,
    Vfnmadd231pd, Vfnmadd231ps, Vfnmadd231sd, Vfnmadd231ss, Vfnmsub132pd, Vfnmsub132ps,
    Vfnmsub132sd, Vfnmsub132ss, Vfnmsub213pd, Vfnmsub213ps, Vfnmsub213sd, Vfnmsub213ss,
    Vfnmsub231pd, Vfnmsub231ps, Vfnmsub231sd, Vfnmsub231ss,
};

/// Opmask registers (SDM vol. 1, section 15.1.3).
pub(crate) const OPMASK: &[Line] = lines! { select;
    Kaddb, Kaddd, Kaddq, Kaddw, Kandb, Kandd, Kandnb, Kandnd, Kandnq, Kandnw, Kandq, Kandw,
    Kmovb, Kmovd, Kmovq, Kmovw, Knotb, Knotd, Knotq, Knotw, Korb, Kord, Korq, Kortestb,
    Kortestd, Kortestq, Kortestw, Korw, Kshiftlb, Kshiftld, Kshiftlq, Kshiftlw, Kshiftrb,
    Kshiftrd, Kshiftrq, Kshiftrw, Ktestb, Ktestd, Ktestq, Ktestw, Kunpckbw, Kunpckdq, Kunpckwd,
    Kxnorb, Kxnord, Kxnorq, Kxnorw, Kxorb, Kxord, Kxorq, Kxorw, Vpermpd, Vpermq,
};

/// EVEX alone (SDM vol. 1, chapter 15).
pub(crate) const AVX512: &[Line] = lines! { select;
    Valignd, Valignq, Vblendmpd, Vblendmps, Vbroadcastf32x2, Vbroadcastf32x4, Vbroadcastf32x8,
    Vbroadcastf64x2, Vbroadcastf64x4, Vbroadcasti32x2, Vbroadcasti32x4, Vbroadcasti32x8,
    Vbroadcasti64x2, Vbroadcasti64x4, Vcompresspd, Vcompressps, Vcvtpd2qq, Vcvtpd2udq,
    Vcvtpd2uqq, Vcvtps2qq, Vcvtps2udq, Vcvtps2uqq, Vcvtqq2pd, Vcvtqq2ps, Vcvtsd2usi, Vcvtss2usi,
    Vcvttpd2qq, Vcvttpd2udq, Vcvttpd2uqq, Vcvttps2qq, Vcvttps2udq, Vcvttps2uqq, Vcvttsd2usi,
    Vcvttss2usi, Vcvtudq2pd, Vcvtudq2ps, Vcvtuqq2pd, Vcvtuqq2ps, Vcvtusi2sd, Vcvtusi2ss,
    Vdbpsadbw, Vexpandpd, Vexpandps, Vextractf32x4, Vextractf32x8, Vextractf64x2, Vextractf64x4,
    Vextracti32x4, Vextracti32x8, Vextracti64x2, Vextracti64x4, Vfixupimmpd, Vfixupimmps,
    Vfixupimmsd, Vfixupimmss, Vfpclasspd, Vfpclassps, Vfpclasssd, Vfpclassss, Vgetexppd,
    Vgetexpps, Vgetexpsd, Vgetexpss, Vgetmantpd, Vgetmantps, Vgetmantsd, Vgetmantss,
    Vinsertf32x4, Vinsertf32x8, Vinsertf64x2, Vinsertf64x4, Vinserti32x4, Vinserti32x8,
    Vinserti64x2, Vinserti64x4, Vmovdqa32, Vmovdqa64, Vmovdqu16, Vmovdqu32, Vmovdqu64, Vmovdqu8,
    Vpabsq, Vpandd, Vpandnd, Vpandnq, Vpandq, Vpblendmb, Vpblendmd, Vpblendmq, Vpblendmw,
    Vpbroadcastmb2q, Vpbroadcastmw2d, Vpcmpb, Vpcmpd, Vpcmpq, Vpcmpub, Vpcmpud, Vpcmpuq,
    Vpcmpuw, Vpcmpw, Vpcompressb, Vpcompressd, Vpcompressq, Vpcompressw, Vpconflictd,
    Vpconflictq, Vpdpbusd, Vpdpbusds, Vpdpwssd, Vpdpwssds, Vpermb, Vpermi2b, Vpermi2d,
    Vpermi2pd, Vpermi2ps, Vpermi2q, Vpermi2w, Vpermt2b, Vpermt2d, Vpermt2pd, Vpermt2ps,
    Vpermt2q, Vpermt2w, Vpermw, Vpexpandb, Vpexpandd, Vpexpandq, Vpexpandw, Vplzcntd, Vplzcntq,
    Vpmadd52huq, Vpmadd52luq, Vpmaxsq, Vpmaxuq, Vpminsq, Vpminuq, Vpmovb2m, Vpmovd2m, Vpmovdb,
    Vpmovdw, Vpmovm2b, Vpmovm2d, Vpmovm2q, Vpmovm2w, Vpmovq2m, Vpmovqb, Vpmovqd, Vpmovqw,
    Vpmovsdb, Vpmovsdw, Vpmovsqb, Vpmovsqd, Vpmovsqw, Vpmovswb, Vpmovusdb, Vpmovusdw, Vpmovusqb,
    Vpmovusqd, Vpmovusqw, Vpmovuswb, Vpmovw2m, Vpmovwb, Vpmullq, Vpmultishiftqb, Vpopcntb,
    Vpopcntd, Vpopcntq, Vpopcntw, Vpord, Vporq, Vprold, Vprolq, Vprolvd, Vprolvq, Vprord,
    Vprorq, Vprorvd, Vprorvq, Vpshldd, Vpshldq, Vpshldvd, Vpshldvq, Vpshldvw, Vpshldw, Vpshrdd,
    Vpshrdq, Vpshrdvd, Vpshrdvq, Vpshrdvw, Vpshrdw, Vpshufbitqmb, Vpsllvw, Vpsraq, Vpsravq,
    Vpsravw, Vpsrlvw, Vpternlogd, Vpternlogq, Vptestmb, Vptestmd, Vptestmq, Vptestmw, Vptestnmb,
    Vptestnmd, Vptestnmq, Vptestnmw, Vpxord, Vpxorq, Vrangepd, Vrangeps, Vrangesd, Vrangess,
    Vrcp14pd, Vrcp14ps, Vrcp14sd, Vrcp14ss, Vreducepd, Vreduceps, Vreducesd, Vreducess,
    Vrndscalepd, Vrndscaleps, Vrndscalesd, Vrndscaless, Vrsqrt14pd, Vrsqrt14ps, Vrsqrt14sd,
    Vrsqrt14ss, Vscalefpd, Vscalefps, Vscalefsd, Vscalefss, Vshuff32x4, Vshuff64x2, Vshufi32x4,
    Vshufi64x2,
};

/// Later additions: AVX-512 for bfloat16, half precision and intersections, and VEX forms of what
/// came with EVEX first (SDM vol. 1, chapters 14 and 15).
pub(crate) const RECENT: &[Line] = lines! { select;
    Vaddph, Vaddsh, Vbcstnebf162ps, Vbcstnesh2ps, Vcmpph, Vcmpsh, Vcomish, Vcvtdq2ph,
    Vcvtne2ps2bf16, Vcvtneebf162ps, Vcvtneeph2ps, Vcvtneobf162ps, Vcvtneoph2ps, Vcvtneps2bf16,
    Vcvtpd2ph, Vcvtph2dq, Vcvtph2pd, Vcvtph2psx, Vcvtph2qq, Vcvtph2udq, Vcvtph2uqq, Vcvtph2uw,
    Vcvtph2w, Vcvtps2phx, Vcvtqq2ph, Vcvtsd2sh, Vcvtsh2sd, Vcvtsh2si, Vcvtsh2ss, Vcvtsh2usi,
    Vcvtsi2sh, Vcvtss2sh, Vcvttph2dq, Vcvttph2qq, Vcvttph2udq, Vcvttph2uqq, Vcvttph2uw,
    Vcvttph2w, Vcvttsh2si, Vcvttsh2usi, Vcvtudq2ph, Vcvtuqq2ph, Vcvtusi2sh, Vcvtuw2ph, Vcvtw2ph,
    Vdivph, Vdivsh, Vdpbf16ps, Vfcmaddcph, Vfcmaddcsh, Vfcmulcph, Vfcmulcsh, Vfmadd132ph,
    Vfmadd132sh, Vfmadd213ph, Vfmadd213sh, Vfmadd231ph, Vfmadd231sh, Vfmaddcph, Vfmaddcsh,
    Vfmaddsub132ph, Vfmaddsub213ph, Vfmaddsub231ph, Vfmsub132ph, Vfmsub132sh, Vfmsub213ph,
    Vfmsub213sh, Vfmsub231ph, Vfmsub231sh, Vfmsubadd132ph, Vfmsubadd213ph, Vfmsubadd231ph,
    Vfmulcph, Vfmulcsh, Vfnmadd132ph, Vfnmadd132sh, Vfnmadd213ph, Vfnmadd213sh, Vfnmadd231ph,
    Vfnmadd231sh, Vfnmsub132ph, Vfnmsub132sh, Vfnmsub213ph, Vfnmsub213sh, Vfnmsub231ph,
    Vfnmsub231sh, Vfpclassph, Vfpclasssh, Vgetexpph, Vgetexpsh, Vgetmantph, Vgetmantsh, Vmaxph,
    Vmaxsh, Vminph, Vminsh, Vmovsh, Vmovw, Vmulph, Vmulsh, Vp2intersectd, Vp2intersectq,
    Vpdpbssd, Vpdpbssds, Vpdpbsud, Vpdpbsuds, Vpdpbuud, Vpdpbuuds, Vpdpwsud, Vpdpwsuds, Vpdpwusd,
    Vpdpwusds, Vpdpwuud, Vpdpwuuds, Vrcpph, Vrcpsh, Vreduceph, Vreducesh, Vrndscaleph,
    Vrndscalesh, Vrsqrtph, Vrsqrtsh, Vscalefph, Vscalefsh, Vsha512msg1, Vsha512msg2,
    Vsha512rnds2, Vsm3msg1, Vsm3msg2, Vsm3rnds2, Vsm4key4, Vsm4rnds4, Vsqrtph, Vsqrtsh, Vsubph,
    Vsubsh, Vucomish,
};
