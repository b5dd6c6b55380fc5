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
