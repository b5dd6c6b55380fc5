use super::*;
use crate::model::Reason;
use crate::{alarms::Alarms, detect::Rules, judged::Judged, sample};

fn alarm() -> Alarm {
    let transfer = Box::new(sample::transfer(Verdict::Altered));
    let judged = Judged::Transfer { transfer, context: Box::new(sample::context()) };
    Alarms::default().take(Rules::default().findings(&judged).remove(0)).alarm
}

fn report(transfers: &[Transfer], alarms: &[Alarm], quiet: bool) -> String {
    let mut gathered = Gathered::default();
    let mut summary = Summary { processes_observed: 2, ..Summary::default() };
    for t in transfers {
        gathered.add(t);
        let word = serde_json::to_value(t.verdict).unwrap().as_str().unwrap().to_owned();
        *summary.transfers.entry(word).or_default() += 1;
    }
    for a in alarms {
        *summary.alarms.entry(a.finding.rule.clone()).or_default() += 1;
    }
    let mut out = vec![];
    gathered.write(alarms, &summary, quiet, &Style::plain(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn an_altered_transfer_at_3_am() {
    let out =
        report(&[sample::transfer(Verdict::Altered), sample::transfer(Verdict::Intact)], &[alarm()], false);
    let expected = "
intact       TLS   curl (pid 11) → nginx (pid 22)  65536 bytes
             10.0.0.1:40000 → 10.0.0.2:443
             ████
ALTERED      TLS   curl (pid 11) → nginx (pid 22)  65536 bytes
             10.0.0.1:40000 → 10.0.0.2:443
             █▒██  bytes 16384–32767 differ
             digest written aa11aa11aa11aa11aa11aa11aa11aa11
             digest read    bb22bb22bb22bb22bb22bb22bb22bb22

CRITICAL     payload-altered: Data changed between curl (pid 11) and nginx (pid 22)
";
    assert!(out.starts_with(expected), "{out}");
    assert!(out.contains("Next: TLS protects the path"), "{out}");
    let last = out.lines().last().unwrap();
    assert_eq!(
        last,
        "counterfoil: 2 transfers: 1 altered, 1 intact; 1 alarm (1 payload-altered); 2 processes observed"
    );
    assert!(out.lines().all(|l| l.chars().count() <= 100), "{out}");
}

#[test]
fn quiet_is_silent_only_when_all_is_well() {
    assert_eq!(report(&[sample::transfer(Verdict::Intact)], &[], true), "");
    assert_eq!(report(&[], &[], true), "");
    let out = report(&[sample::transfer(Verdict::Intact), sample::transfer(Verdict::Truncated)], &[], true);
    assert!(out.contains("truncated") && !out.contains("intact  "), "{out}");
    assert!(report(&[], &[alarm()], true).contains("CRITICAL"));
    assert!(report(&[], &[], false).contains("no transfer seen"), "not quiet: silence is no answer");
}

#[test]
fn an_end_that_nobody_saw_is_said_so() {
    let mut t = sample::transfer(Verdict::Unverified);
    (t.destination, t.bytes.destination) = (None, None);
    t.reasons = vec![Reason::PeerNotObserved];
    let out = report(&[t], &[], false);
    assert!(out.contains("curl (pid 11) → (not observed)  65536 bytes written"), "{out}");
    assert!(out.contains("peer-not-observed: the receiver ran without the library"), "{out}");
}

#[test]
fn a_thousand_alike_are_three_and_a_number() {
    let many: Vec<Transfer> = (0..1000).map(|_| sample::transfer(Verdict::Intact)).collect();
    let out = report(&many, &[], false);
    assert!(out.contains("… and 997 more like these, 65536000 bytes in all"), "{out}");
    assert!(out.lines().count() < 20);
    // And so many different ones that they don't fit are counted.
    let different: Vec<Transfer> = (0..GROUPS + 7)
        .map(|i| {
            let mut t = sample::transfer(Verdict::Intact);
            t.origin.as_mut().unwrap().exe = Some(format!("/bin/p{i}"));
            t
        })
        .collect();
    assert!(report(&different, &[], false).contains("… and 7 more transfers of other kinds"));
}

#[test]
fn nothing_from_an_observed_process_reaches_the_terminal_raw() {
    let nasty = "\x1b]0;owned\x07\n\u{202e}";
    let mut t = sample::transfer(Verdict::Altered);
    for e in [t.origin.as_mut().unwrap(), t.destination.as_mut().unwrap()] {
        e.exe = Some(nasty.into());
        e.also = vec![ProcessName { pid: 1, exe: Some(nasty.into()) }];
        e.local = Some(nasty.into());
        e.path = Some(nasty.into());
    }
    t.origin_digest = Some(nasty.into());
    let mut a = alarm();
    (a.finding.title, a.finding.message, a.finding.next) = (nasty.into(), nasty.into(), nasty.into());
    a.finding.rule = nasty.into();
    let out = report(&[t], &[a], false);
    let bad = out.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
    assert_eq!(bad, None, "{out:?}");
    assert!(!out.contains("\nowned") && out.contains("\\x1b]0;owned\\x07\\x0a"), "{out}");
}

#[test]
fn every_reason_has_its_word_and_says_more() {
    for code in 1..=18 {
        let reason = Reason::from_code(code).unwrap();
        let t = sample::transfer(Verdict::Unverified);
        let line = words::reason(reason, &t);
        assert!(line.starts_with(&format!("{}: ", reason.word())) && line.len() > 40, "{line}");
    }
}

#[test]
fn colour_is_only_where_it_is_allowed() {
    let style = Style { colour: true, ..Style::plain() };
    assert_eq!(style.paint(Colour::Red, "x"), "\x1b[1;31mx\x1b[0m");
    assert_eq!(Style::plain().paint(Colour::Red, "x"), "x");
}

fn file(n: u32, verdict: Verdict) -> Transfer {
    let mut t = sample::transfer(verdict);
    t.channel = crate::model::Channel::File;
    for (end, path) in [(&mut t.origin, format!("/a/f{n}")), (&mut t.destination, format!("/b/f{n}"))] {
        let end = end.as_mut().unwrap();
        (end.local, end.remote, end.path) = (None, None, Some(path));
        end.sha256 = Some(format!("{n:02x}").repeat(32));
    }
    t
}

#[test]
fn files_come_first_and_a_thousand_take_few_lines() {
    let mut all = vec![sample::transfer(Verdict::Intact)];
    all.extend((0..1000).map(|n| file(n % 256, Verdict::Intact)));
    all.push(file(7, Verdict::Altered));
    let out = report(&all, &[], false);
    let first = "
intact       file  /a/f0
                →  /b/f0  65536 bytes
             curl (pid 11) → nginx (pid 22)
";
    assert!(out.starts_with(first), "{out}");
    assert!(out.contains("… and 997 more files intact, 65536000 bytes in all"), "{out}");
    assert!(out.contains("ALTERED      file  /a/f7"), "{out}");
    assert!(out.lines().count() < 45, "{out}");
    assert!(!report(&all, &[], true).contains("/a/f0"), "quiet: not what is intact");
}
