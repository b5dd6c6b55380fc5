//! One content over two connections.

use super::*;
use crate::judged::Judged;

const BLOCKS: u64 = 8;

/// One direction of a TLS session with content 1 … 8, of which `changed` is another; the end named by
/// `tap`.
fn end(t: &mut Table, arena: ArenaId, object: u32, session: u8, tap: Tap, changed: Option<u64>) {
    end_at(t, arena, object, session, tap, changed, None);
}

/// [`end`] of a connection with `stranger`.
fn end_at(
    t: &mut Table,
    arena: ArenaId,
    object: u32,
    session: u8,
    tap: Tap,
    changed: Option<u64>,
    stranger: Option<Address>,
) {
    let client = session.is_multiple_of(2) == (tap == Tap::TlsWrite);
    let socket = object + 100;
    let flags = if client { CONNECTED } else { ACCEPTED };
    t.say(
        arena,
        opened(socket, Channel::Tcp, |r| {
            r.header.flags = flags;
            let (near, far) = (address(1, 4000 + u16::from(session)), address(2, 443));
            (r.local, r.remote) = if client { (near, far) } else { (far, near) };
            r.remote = stranger.unwrap_or(r.remote);
        }),
    );
    t.say(arena, opened(object, Channel::Tls, |_| {}));
    let Record::Flow(mut told) = flow(object, session, client) else { unreachable!() };
    told.carrier = socket;
    t.say(arena, Record::Flow(told));
    for index in 0..BLOCKS {
        let value = index as u8 + 1 + if changed == Some(index) { 100 } else { 0 };
        t.say(arena, block(object, tap, index, value));
    }
    let total = BLOCKS * BLOCK;
    let (out, inward) = if tap == Tap::TlsWrite { (total, 0) } else { (0, total) };
    t.say(arena, ended(object, How::Freed, out, inward, |_| {}));
    t.say(arena, ended(socket, How::Closed, 0, 0, |_| {}));
}

/// What was said: transfers, and how often TLS was said to end on the way.
fn said(t: &mut Table) -> (Vec<Outward>, usize) {
    t.wait(9);
    let (mut transfers, mut terminated) = (Vec::new(), 0);
    for judged in t.assembler.out.drain(..) {
        match judged {
            Judged::Transfer { transfer, .. } => transfers.push(*transfer),
            Judged::Notice(notice) => {
                terminated += usize::from(matches!(notice.what, What::TlsTerminated { .. }));
            }
            _ => {}
        }
    }
    (transfers, terminated)
}

fn two_programs() -> Table {
    let mut t = table(Told::default());
    (1..4).for_each(|arena| t.program(arena, 0));
    t
}

#[test]
fn an_unseen_relay_that_passes_on_is_named_and_the_ends_are_laid_together() {
    let mut t = two_programs();
    end(&mut t, 1, 1, 2, Tap::TlsWrite, None);
    end(&mut t, 2, 1, 4, Tap::TlsRead, None);
    let (transfers, terminated) = said(&mut t);
    assert_eq!((transfers.len(), terminated), (3, 1), "{transfers:?}");
    let whole = transfers.iter().find(|t| !t.legs.is_empty()).unwrap();
    assert_eq!((whole.verdict, whole.legs.len()), (Verdict::Intact, 2));
    assert_eq!(whole.origin.as_ref().unwrap().pid, 1);
    assert_eq!(whole.destination.as_ref().unwrap().pid, 2);
}

#[test]
fn who_serves_what_he_fetches_from_elsewhere_is_no_relay() {
    for changed in [None, Some(5)] {
        let mut t = two_programs();
        // A server of this host's gives it to a stranger, a client of this host's gets it from another one.
        let strangers = [address(7, 5000), address(8, 443)];
        for (arena, tap, session, stranger) in
            [(1, Tap::TlsWrite, 3, strangers[0]), (2, Tap::TlsRead, 5, strangers[1])]
        {
            end_at(&mut t, arena, 1, session, tap, changed.filter(|_| arena == 2), Some(stranger));
        }
        let (transfers, terminated) = said(&mut t);
        assert_eq!((transfers.len(), terminated), (2, 0), "{transfers:?}");
    }
}

#[test]
fn an_unseen_relay_that_changes_bytes_is_altered_in_its_block() {
    let mut t = two_programs();
    end(&mut t, 1, 1, 2, Tap::TlsWrite, None);
    end(&mut t, 2, 1, 4, Tap::TlsRead, Some(5));
    let (transfers, terminated) = said(&mut t);
    assert_eq!(terminated, 1);
    let whole = transfers.iter().find(|t| !t.legs.is_empty()).unwrap();
    assert_eq!(whole.verdict, Verdict::Altered);
    assert_eq!(whole.altered, [crate::model::Range { offset: 5 * BLOCK, length: BLOCK }]);
}

#[test]
fn an_observed_relay_is_accused_only_of_what_it_changed() {
    for changed in [None, Some(0)] {
        let mut t = two_programs();
        end(&mut t, 1, 1, 2, Tap::TlsWrite, None);
        end(&mut t, 2, 1, 2, Tap::TlsRead, None);
        end(&mut t, 2, 2, 4, Tap::TlsWrite, changed);
        end(&mut t, 3, 1, 4, Tap::TlsRead, changed);
        assert_eq!(t.assembler.relaying, [2], "it is to be looked at closely");
        let (transfers, terminated) = said(&mut t);
        let whole = transfers.iter().find(|t| !t.legs.is_empty());
        assert_eq!((transfers.len(), terminated), (2 + usize::from(changed.is_some()), 1));
        assert_eq!(whole.map(|t| t.verdict), changed.map(|_| Verdict::Altered));
        assert!(t.assembler.budget.used() == 0);
    }
}

#[test]
fn the_same_content_sent_twice_is_no_relay() {
    let mut t = two_programs();
    // Program 2 gets an upload and somebody else gets the same from it: both asked it.
    end(&mut t, 1, 1, 2, Tap::TlsWrite, None);
    end(&mut t, 2, 1, 2, Tap::TlsRead, None);
    end(&mut t, 2, 2, 3, Tap::TlsWrite, None);
    end(&mut t, 3, 1, 3, Tap::TlsRead, None);
    let (transfers, terminated) = said(&mut t);
    assert_eq!((transfers.len(), terminated), (2, 0), "{transfers:?}");
    // And what one client sends to one server and gets from another.
    let mut t = two_programs();
    end(&mut t, 1, 1, 2, Tap::TlsWrite, None);
    end(&mut t, 1, 2, 3, Tap::TlsRead, None);
    assert_eq!(said(&mut t).1, 0);
}

/// One end of a TLS session over which an HTTP request with a body goes: the length of its head and the tag of the
/// block that has it; the tags of the body's blocks, the last of which is half of one.
fn request(t: &mut Table, arena: ArenaId, session: u8, tap: Tap, head: (u64, u8), body: &[u8]) {
    let client = session.is_multiple_of(2) == (tap == Tap::TlsWrite);
    t.say(
        arena,
        opened(100, Channel::Tcp, |r| {
            r.header.flags = if client { CONNECTED } else { ACCEPTED };
            let (near, far) = (address(1, 4000 + u16::from(session)), address(2, 443));
            (r.local, r.remote) = if client { (near, far) } else { (far, near) };
        }),
    );
    t.say(arena, opened(1, Channel::Tls, |_| {}));
    let Record::Flow(mut told) = flow(1, session, client) else { unreachable!() };
    told.carrier = 100;
    t.say(arena, Record::Flow(told));
    let half = BLOCK as u32 / 2;
    let last = body.len() - 1;
    let (before, first) = head;
    // The stream's own blocks lie elsewhere in the body for each length of the head.
    let moved = before as u8;
    for (index, &tag) in body.iter().enumerate() {
        if index < last {
            t.say(arena, block(1, tap, index as u64, if index == 0 { first } else { tag ^ moved }));
        }
        let mut record: Body = bytemuck::Zeroable::zeroed();
        record.header = Header { tap: tap as u8, ..header(Kind::Body, 1) };
        record.header.flags = if index == last { WHOLE } else { 0 };
        (record.offset, record.head) = (index as u64 * BLOCK, before as u32);
        record.at = before + record.offset;
        record.length = if index == last { half } else { BLOCK as u32 };
        record.tag = [tag; 16];
        t.say(arena, Record::Body(record));
    }
    let total = before + last as u64 * BLOCK + u64::from(half);
    t.say(arena, partial(1, tap, last as u64, (total % BLOCK) as u32, 77 ^ moved));
    let (out, inward) = if tap == Tap::TlsWrite { (total, 0) } else { (0, total) };
    t.say(arena, ended(1, How::Freed, out, inward, |_| {}));
    t.say(arena, ended(100, How::Closed, 0, 0, |_| {}));
}

/// The transfers from end to end: who wrote, who read, the verdict.
fn ways(transfers: &[Outward]) -> Vec<(u32, u32, Verdict)> {
    let pid = |e: &Option<crate::model::Endpoint>| e.as_ref().map_or(0, |e| e.pid);
    let mut ways: Vec<_> = transfers
        .iter()
        .filter(|t| !t.legs.is_empty())
        .map(|t| (pid(&t.origin), pid(&t.destination), t.verdict))
        .collect();
    ways.sort_unstable_by_key(|way| (way.0, way.1));
    ways
}

#[test]
fn other_heads_are_no_alteration_and_other_bodies_are() {
    let (body, other) = ([1, 2, 3, 4, 5], [1, 2, 3, 9, 5]);
    for (arrived, verdict) in [(body, Verdict::Unverified), (other, Verdict::Altered)] {
        let mut t = two_programs();
        request(&mut t, 1, 2, Tap::TlsWrite, (200, 70), &body);
        request(&mut t, 2, 4, Tap::TlsRead, (230, 71), &arrived);
        let (transfers, terminated) = said(&mut t);
        assert_eq!(terminated, 1);
        assert_eq!(ways(&transfers), [(1, 2, verdict)]);
        let whole = transfers.iter().find(|t| !t.legs.is_empty()).unwrap();
        match verdict {
            Verdict::Altered => {
                let range = crate::model::Range { offset: 200 + 3 * BLOCK, length: BLOCK };
                assert_eq!(whole.altered, [range]);
            }
            _ => assert_eq!(whole.reasons, [Reason::Transformed]),
        }
    }
}

#[test]
fn another_head_of_the_same_length_is_no_alteration() {
    let mut t = two_programs();
    request(&mut t, 1, 2, Tap::TlsWrite, (200, 70), &[1, 2, 3, 4, 5]);
    // Only the first block differs, and what it has of the body does not.
    request(&mut t, 2, 4, Tap::TlsRead, (200, 71), &[1, 2, 3, 4, 5]);
    let (transfers, _) = said(&mut t);
    assert_eq!(ways(&transfers), [(1, 2, Verdict::Unverified)]);
    // And the same one is the same.
    let mut t = two_programs();
    request(&mut t, 1, 2, Tap::TlsWrite, (200, 70), &[1, 2, 3, 4, 5]);
    request(&mut t, 2, 4, Tap::TlsRead, (200, 70), &[1, 2, 3, 4, 5]);
    let (transfers, _) = said(&mut t);
    assert_eq!(ways(&transfers), [(1, 2, Verdict::Intact)]);
}

#[test]
fn two_versions_on_their_way_at_a_time_are_not_taken_for_each_other() {
    let (first, second) = ([1, 2, 3, 4, 5], [1, 2, 3, 9, 5]);
    let mut t = table(Told::default());
    (1..5).for_each(|arena| t.program(arena, 0));
    // The second one arrives before anything is known of where the first one does.
    request(&mut t, 1, 2, Tap::TlsWrite, (200, 70), &first);
    request(&mut t, 4, 8, Tap::TlsRead, (230, 71), &second);
    for _ in 0..50 {
        t.now += 50_000_000;
        t.assembler.tick(t.now);
    }
    request(&mut t, 2, 4, Tap::TlsRead, (230, 71), &first);
    request(&mut t, 3, 6, Tap::TlsWrite, (200, 70), &second);
    let (transfers, terminated) = said(&mut t);
    assert_eq!(ways(&transfers), [(1, 2, Verdict::Unverified), (3, 4, Verdict::Unverified)]);
    assert_eq!(terminated, 2);
}

/// One end of a TLS session with fingerprints `prints`, `shift` bytes further on.
fn printed(t: &mut Table, arena: ArenaId, session: u8, tap: Tap, shift: u64, prints: std::ops::Range<u64>) {
    end(t, arena, 1, session, tap, None);
    let mut record: Prints = bytemuck::Zeroable::zeroed();
    record.header = Header { tap: tap as u8, ..header(Kind::Prints, 1) };
    record.bits = 6;
    for (i, print) in prints.enumerate() {
        (record.offset, record.length, record.count) = (shift + 100 * i as u64, 100, 1);
        record.samples[0] = Sample { end: 50, print: print.to_le_bytes() };
        t.say(arena, Record::Prints(record));
    }
}

#[test]
fn what_is_shifted_is_found_by_its_fingerprints() {
    // All of it, and a document that has less than that in common.
    for (there, found) in [(0..40, 1), (20..60, 0)] {
        let mut t = two_programs();
        printed(&mut t, 1, 2, Tap::TlsWrite, 0, 0..40);
        // A gap, so that nothing is compared by offsets.
        t.say(2, opened(1, Channel::Tls, |_| {}));
        t.say(2, gap(1, Tap::TlsRead, 5, 7, counterfoil_abi::record::Reason::KernelCopy));
        printed(&mut t, 2, 4, Tap::TlsRead, 33, there);
        let (transfers, terminated) = said(&mut t);
        assert_eq!(terminated, found, "{transfers:?}");
        assert!(transfers.iter().all(|t| t.verdict != Verdict::Altered));
    }
}
