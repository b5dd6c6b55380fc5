//! What is true of a fixture's run, in one line a transfer, laid beside what was reported.
//!
//! `CHANNEL ORIGIN DESTINATION VERDICTS`, separated by blanks. A byte count is a number, `*` (any) or
//! `-` (that end was not observed). VERDICTS are joined by `|`; one may need a reason: `unverified:kernel-copy`
//! (several: joined by `/`, one of them must be there). `rest`: there may be further transfers, none
//! of them altered.

use crate::check;
use crate::observed::Run;
use crate::report::Transfer;

/// Rules that never fire where nothing was changed.
pub const ACCUSING: [&str; 5] =
    ["payload-altered", "payload-replaced", "cipher-mismatch", "record-rejected", "hostile-arena"];

fn count_fits(wanted: &str, reported: Option<u64>) -> bool {
    match wanted {
        "*" => true,
        "-" => reported.is_none(),
        number => reported == Some(number.parse().expect("a byte count")),
    }
}

fn verdict_fits(wanted: &str, transfer: &Transfer) -> bool {
    wanted.split('|').any(|one| {
        let (verdict, reasons) = one.split_once(':').unwrap_or((one, ""));
        let mine = transfer.reasons();
        verdict == transfer.verdict()
            && (reasons.is_empty() || reasons.split('/').any(|r| mine.iter().any(|m| m == r)))
    })
}

fn fits(line: &str, transfer: &Transfer) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    let [channel, origin, destination, verdicts] = words[..] else {
        panic!("not a truth: {line:?}");
    };
    channel == transfer.channel()
        && count_fits(origin, transfer.origin())
        && count_fits(destination, transfer.destination())
        && verdict_fits(verdicts, transfer)
}

/// Panics unless each truth has a transfer of its own, and nothing else was reported.
pub fn holds(run: &Run, truths: &[&str]) {
    sound(run);
    let mut left = run.report.transfers();
    for truth in truths.iter().filter(|t| **t != "rest") {
        match left.iter().position(|t| fits(truth, t)) {
            Some(at) => drop(left.remove(at)),
            None => check!(run, false, "no transfer is `{truth}`"),
        }
    }
    if !truths.contains(&"rest") {
        check!(run, left.is_empty(), "nobody made this transfer: {}", left[0].shown());
    }
}

/// Panics where the report breaks the contract, or accuses where nothing was changed.
pub fn blameless(run: &Run) {
    sound(run);
    for transfer in run.report.transfers() {
        check!(run, transfer.verdict() != "altered", "falsely altered: {}", transfer.shown());
    }
    for rule in ACCUSING {
        check!(run, !run.report.fired(rule), "falsely alarmed: {rule}");
    }
}

/// Panics where the report breaks INTERFACE.
pub fn sound(run: &Run) {
    let faults = run.report.faults();
    check!(run, faults.is_empty(), "the report is unsound: {faults:#?}");
}
