//! One content over two connections.

use super::*;
use crate::judged::Judged;

const BLOCKS: u64 = 8;

/// One direction of a TLS session with content 1 … 8, of which `changed` is another; the end named by
/// `tap`.
fn end(t: &mut Table, arena: ArenaId, object: u32, session: u8, tap: Tap, changed: Option<u64>) {
    let client = session.is_multiple_of(2) == (tap == Tap::TlsWrite);
    let socket = object + 100;
    let flags = if client { CONNECTED } else { ACCEPTED };
    t.say(
        arena,
        opened(socket, Channel::Tcp, |r| {
            r.header.flags = flags;
            let (near, far) = (address(1, 4000 + u16::from(session)), address(2, 443));
            (r.local, r.remote) = if client { (near, far) } else { (far, near) };
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
    t.wait(4);
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
