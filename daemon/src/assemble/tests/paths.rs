//! Unix sockets that were over before anybody could be asked which ends belong together.

use super::*;

fn end(object: u32, time: u64, accepted: bool, peer: u32) -> Record {
    opened(object, Channel::Unix, |o| {
        (o.header.time, o.header.flags) = (time, if accepted { ACCEPTED } else { CONNECTED });
        let inode = if accepted { object + 100 } else { object };
        (o.device, o.inode, o.peer_pid, o.name_len) = (9, u64::from(inode), peer, 2);
        o.name[..2].copy_from_slice(b"/s");
    })
}

fn is_over(object: u32, time: u64, out: u64, inward: u64) -> Record {
    ended(object, How::Closed, out, inward, |e| e.header.time = time)
}

/// One that nobody accepted, and one of which the other end has read something else, since it is another one's.
#[test]
fn what_nobody_accepted_accuses_nobody() {
    // What came late: the accepted one's real peer. 10: while it was open, 90: afterwards.
    for (late, verdict) in [(10, Verdict::Unverified), (90, Verdict::Altered)] {
        let mut t = table(Told::default());
        t.program(1, 0);
        t.say(1, end(1, 5, false, 1));
        t.say(1, partial(1, Tap::SockSend, 0, 100, 1));
        t.say(1, is_over(1, 6, 100, 0));
        t.say(1, end(2, 20, true, 1));
        t.say(1, partial(2, Tap::SockRecv, 0, 100, 2));
        t.say(1, is_over(2, 80, 0, 100));
        t.say(1, end(3, late, false, 1));
        t.say(1, partial(3, Tap::SockSend, 0, 100, 2));
        t.say(1, is_over(3, late + 5, 100, 0));
        t.wait(5);
        let all = t.transfers();
        let both = all.iter().find(|t| t.origin.is_some() && t.destination.is_some()).expect("by path");
        assert_eq!(both.verdict, verdict, "{both:?}");
        assert_eq!(both.reasons.contains(&Reason::DisputedClaim), verdict == Verdict::Unverified);
        t.assembler.gone(1);
        t.assembler.finish_all();
        t.wait(1);
        assert!(t.empty());
    }
}

/// Twenty at a time, of which each says something of its own, or all the same, and gets an answer or none. `mixed_up`: they were accepted
/// in another order.
fn twenty(own: bool, answer: u64, mixed_up: bool, at_once: bool) -> Vec<Outward> {
    let mut t = table(Told::default());
    t.program(1, 0);
    t.program(2, 0);
    for n in 1..=20 {
        let said = if own { n as u8 } else { 7 };
        let (asks, serves) = (u64::from(n) * 10, u64::from(n) * 10 + 1);
        t.say(1, end(n, asks, false, 2));
        t.say(1, partial(n, Tap::SockSend, 0, 100, said));
        t.say(2, end(n, serves, true, 1));
        t.say(2, partial(n, Tap::SockRecv, 0, 100, if mixed_up { 21 - said } else { said }));
        if answer > 0 {
            t.say(1, partial(n, Tap::SockRecv, 0, answer as u32, 9));
            t.say(2, partial(n, Tap::SockSend, 0, answer as u32, 9));
        }
        t.say(1, is_over(n, asks + 500, 100, answer));
        t.say(2, is_over(n, serves + 500, answer, 100));
    }
    if at_once {
        t.assembler.finish_all();
    } else {
        t.wait(2);
    }
    t.transfers()
}

/// What was said and answered, the same both ways, is a pair; what isn't the same accuses nobody.
#[test]
fn short_ones_are_laid_together_in_their_order() {
    for at_once in [false, true] {
        let well = twenty(true, 3, false, at_once);
        assert_eq!(well.len(), 40);
        assert!(well.iter().all(|t| t.verdict == Verdict::Intact), "{well:?}");
        let mixed_up = twenty(true, 3, true, at_once);
        assert!(mixed_up.iter().all(|t| t.reasons == [Reason::DisputedClaim]), "{mixed_up:?}");
    }
}

/// The same words to whoever listens, and no answer: any of them may be one that nobody accepted.
#[test]
fn what_has_no_answer_is_no_proof() {
    for own in [false, true] {
        let all = twenty(own, 0, false, false);
        assert_eq!(all.len(), 20);
        assert!(all.iter().all(|t| t.reasons == [Reason::DisputedClaim]), "{all:?}");
    }
}
