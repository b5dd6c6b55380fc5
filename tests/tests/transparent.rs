//! Transparent (issue 2, item 5): with and without the library a program writes the same, ends the
//! same, and sees the same of itself.

use counterfoil_tests::{check, for_each_case, Observed};

fn same(line: &str) {
    let plain = Observed::fixture(line).plain().env("TMPDIR", "/tmp").go();
    let observed = Observed::fixture(line).env("TMPDIR", "/tmp").option("--quiet").go();
    check!(plain, plain.code() != 99, "the fixture is broken");
    check!(observed, observed.stdout == plain.stdout, "stdout differs; plain was:\n{}", plain.stdout);
    check!(observed, observed.stderr == plain.stderr, "stderr differs; plain was:\n{}", plain.stderr);
    check!(observed, observed.code() == plain.code(), "exit status differs: plain {}", plain.code());
}

macro_rules! tests {
    ($($name:ident : $line:literal, [$($truth:literal),*];)*) => {
        $(#[test]
        fn $name() {
            same($line);
        })*
    };
}

for_each_case!(tests);

/// `--quiet` means it: a program that says nothing leaves stderr empty.
#[test]
fn quiet_is_quiet() {
    let run = Observed::new(["true"]).option("--quiet").go().well();
    check!(run, run.stdout.is_empty() && run.stderr.is_empty(), "it said something");
}

/// Nothing on stdout: it belongs to the program.
#[test]
fn report_goes_to_stderr() {
    let run = Observed::fixture("source 20000 5000").go().well();
    check!(run, run.stdout.chars().count() > 0, "the program's bytes are gone");
    check!(run, !run.stdout.contains("intact"), "the report stands on stdout");
}

/// Switched off, the library does nothing at all.
#[test]
fn off_is_off() {
    let run = Observed::fixture("stream tcp send recv 30000 5000").env("COUNTERFOIL_OFF", "1").go().well();
    check!(run, run.report.transfers().is_empty(), "something was witnessed");
}
