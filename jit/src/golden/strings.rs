//! String operations.

use super::{Show, check, user};

#[test]
fn strings() {
    check(
        "strings",
        Show::Code,
        &[
            user("REP MOVSQ", |a| a.rep().movsq()),
            user("REP STOSB", |a| a.rep().stosb()),
            user("LODSD", |a| a.lodsd()),
            user("REPNE SCASB", |a| a.repne().scasb()),
            user("REPE CMPSB", |a| a.repe().cmpsb()),
            user("XLATB", |a| a.xlatb()),
        ],
    );
}
