//! Never falsely altered (issue 2, item 3): each fixture's verdicts are what it declares, and no
//! rule accuses anybody where nothing was changed.

use counterfoil_tests::{Observed, check, for_each_case, truth};

fn holds(line: &str, truths: &[&str]) {
    let run = Observed::fixture(line).go();
    check!(run, run.code() != 99, "the fixture is broken");
    truth::blameless(&run);
    truth::holds(&run, truths);
}

macro_rules! tests {
    ($($name:ident : $line:literal, [$($truth:literal),*];)*) => {
        $(#[test]
        fn $name() {
            holds($line, &[$($truth),*]);
        })*
    };
}

for_each_case!(tests);

/// Each sending call against each receiving one, in pieces that fall on no border.
#[test]
fn every_call_by_every_call() {
    for channel in ["tcp", "socketpair"] {
        for send in ["send", "more", "sendto", "sendmsg", "write", "writev", "dontwait"] {
            for receive in ["recv", "waitall", "read", "recvfrom", "peek", "dontwait", "readv", "recvmsg"] {
                let name = if channel == "tcp" { "tcp" } else { "unix" };
                let line = format!("stream {channel} {send} {receive} 70001 1237");
                holds(&line, &[&format!("{name} 70001 70001 intact")]);
            }
        }
    }
}

/// Connections side by side don't mix.
#[test]
fn side_by_side() {
    let script = "for i in 1 2 3 4 5 6; do \"$FIXTURES/tls\" 1.3 - write read 90000 777 answer=500 >/dev/null & done\n\
        for i in 1 2 3 4; do \"$FIXTURES/stream\" tcp send recv 90000 777 >/dev/null & done\nwait";
    let run = Observed::script(script).go().well();
    truth::blameless(&run);
    let mut truths = vec!["tls 90000 90000 intact"; 6];
    truths.extend(["tls 500 500 intact"; 6]);
    truths.extend(["tcp 90000 90000 intact"; 4]);
    truth::holds(&run, &truths);
}
