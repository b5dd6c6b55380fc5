//! A table of manifests and what must be said of them.

use super::*;
use crate::assemble::manifest::{GapSpan, Partial};
use crate::assemble::pending::Budget;
use crate::model::BlockState;

const B: u64 = BLOCK;

/// A stream of `total` bytes; `flip` gives blocks another content.
struct Stream {
    total: u64,
    flip: Vec<u64>,
    gaps: Vec<GapSpan>,
    lost: Vec<u64>,
    kind: TagKind,
}

fn stream(total: u64) -> Stream {
    Stream { total, flip: vec![], gaps: vec![], lost: vec![], kind: TagKind::Mac }
}

impl Stream {
    fn flip(mut self, blocks: &[u64]) -> Self {
        self.flip = blocks.to_vec();
        self
    }
    fn lost(mut self, blocks: &[u64]) -> Self {
        self.lost = blocks.to_vec();
        self
    }
    fn gap(mut self, offset: u64, length: u64, reason: Reason) -> Self {
        self.gaps.push(GapSpan { offset, length, reason });
        self
    }
    fn feed(&self, pair: &mut Pair, side: Side) {
        let budget = &mut Budget::new(1 << 24);
        let whole = self.total / B;
        let value = |block: u64| [u128::from(block) + 1 + (u128::from(self.flip.contains(&block)) << 100), 0];
        let hidden = |block: u64| {
            self.lost.contains(&block)
                || self.gaps.iter().any(|g| {
                    let end = if g.length == UNKNOWN { (g.offset / B + 1) * B } else { g.offset + g.length };
                    g.offset < ((block + 1) * B).min(self.total) && end > block * B
                })
        };
        for block in (0..whole).filter(|&b| !hidden(b)) {
            pair.block(side, block, value(block), self.kind, budget);
        }
        let rest = self.total % B;
        if rest > 0 && !hidden(whole) {
            let mut v = value(whole);
            v[0] += u128::from(rest) << 64;
            pair.partial(side, Partial { offset: whole * B, length: rest as u32, value: v }, self.kind);
        }
        self.gaps.iter().for_each(|&g| pair.gap(side, g));
    }
}

fn lay(origin: &Stream, destination: &Stream) -> Pair {
    let mut pair = Pair::joined();
    origin.feed(&mut pair, Side::Origin);
    destination.feed(&mut pair, Side::Destination);
    pair
}

fn end(total: u64) -> End {
    End { total, ..End::default() }
}

fn counted(total: u64) -> End {
    End { kernel: Some(total), ..end(total) }
}

fn case(channel: Channel, o: &Stream, d: &Stream, oe: End, de: End) -> Judgement {
    let pair = lay(o, d);
    judge(Case { channel, pair: &pair, origin: Some(&oe), destination: Some(&de) })
}

fn tls(o: Stream, d: Stream) -> Judgement {
    let (oe, de) = (end(o.total), end(d.total));
    case(Channel::Tls, &o, &d, oe, de)
}

fn tcp(o: Stream, d: Stream) -> Judgement {
    let (oe, de) = (counted(o.total), counted(d.total));
    case(Channel::Tcp, &o, &d, oe, de)
}

fn range(offset: u64, length: u64) -> Range {
    Range { offset, length }
}

#[track_caller]
fn is(j: &Judgement, verdict: Verdict, reasons: &[Reason]) {
    assert_eq!((j.verdict, j.reasons.as_slice()), (verdict, reasons), "{j:?}");
}

use Verdict::{Altered, Intact, Truncated, Unverified};

#[test]
fn equal_streams_are_intact_at_every_length() {
    for total in [1, 100, B - 1, B, B + 1, 5 * B, 5 * B + 7] {
        let j = tls(stream(total), stream(total));
        is(&j, Intact, &[]);
        assert_eq!(j.assurance, Some(Assurance::KeyedTag));
        assert_eq!(j.strip, [BlockRun { state: BlockState::Same, blocks: total.div_ceil(B) }]);
        is(&tcp(stream(total), stream(total)), Intact, &[]);
        is(&case(Channel::Pipe, &stream(total), &stream(total), end(total), end(total)), Intact, &[]);
    }
}

#[test]
fn a_flipped_block_is_named_and_no_other() {
    for block in 0..=5 {
        let total = 5 * B + 7;
        let j = tls(stream(total), stream(total).flip(&[block]));
        is(&j, Altered, &[]);
        let length = if block == 5 { 7 } else { B };
        assert_eq!(j.altered, [range(block * B, length)]);
        let differing: u64 =
            j.strip.iter().filter(|r| r.state == BlockState::Differs).map(|r| r.blocks).sum();
        assert_eq!(differing, 1);
        assert_eq!(j.strip.iter().map(|r| r.blocks).sum::<u64>(), 6);
    }
}

#[test]
fn several_changes_are_several_ranges_and_neighbours_merge() {
    let j = tls(stream(9 * B), stream(9 * B).flip(&[1, 2, 5, 8]));
    is(&j, Altered, &[]);
    assert_eq!(j.altered, [range(B, 2 * B), range(5 * B, B), range(8 * B, B)]);
}

#[test]
fn an_insertion_is_one_range_to_the_longer_end() {
    let j = tls(stream(5 * B), stream(5 * B + 10).flip(&[2, 3, 4, 5]));
    is(&j, Altered, &[]);
    assert_eq!(j.altered, [range(2 * B, 3 * B + 10)]);
    // In the last block: nothing before it differs.
    let j = tls(stream(100), stream(150));
    is(&j, Altered, &[]);
    assert_eq!(j.altered, [range(0, 150)]);
    let j = tls(stream(2 * B + 5), stream(2 * B + 9));
    assert_eq!(j.altered, [range(2 * B, 9)]);
}

#[test]
fn a_deletion_is_one_range_to_the_longer_end() {
    let j = tls(stream(5 * B), stream(5 * B - 10).flip(&[2, 3, 4]));
    is(&j, Altered, &[]);
    assert_eq!(j.altered, [range(2 * B, 3 * B)]);
}

#[test]
fn a_change_and_a_cut_are_told_apart() {
    let j = tls(stream(8 * B), stream(6 * B).flip(&[2]));
    is(&j, Altered, &[]);
    assert_eq!(j.altered, [range(2 * B, B)]);
}

#[test]
fn a_prefix_is_truncated() {
    is(&tls(stream(5 * B), stream(3 * B)), Truncated, &[]);
    is(&tls(stream(5 * B), stream(3 * B + 5)), Truncated, &[]);
    is(&tcp(stream(5 * B), stream(5)), Truncated, &[]);
    let hung_up = End { eof: false, ..end(3 * B) };
    let j = case(Channel::Tls, &stream(5 * B), &stream(3 * B), end(5 * B), hung_up);
    is(&j, Truncated, &[Reason::AbandonedByReceiver]);
    let nothing = case(Channel::Tls, &stream(5 * B), &stream(0), end(5 * B), end(0));
    is(&nothing, Truncated, &[]);
    assert_eq!(nothing.assurance, None);
}

#[test]
fn differences_after_an_unknown_gap_prove_nothing() {
    let gap = |s: Stream| s.gap(2 * B + 5, UNKNOWN, Reason::BypassedBytes);
    for j in [
        tls(gap(stream(6 * B)), stream(6 * B).flip(&[3, 4])),
        tls(stream(6 * B), gap(stream(6 * B).flip(&[3, 4]))),
        tls(stream(6 * B), gap(stream(6 * B + 9).flip(&[3, 4]))),
    ] {
        is(&j, Unverified, &[Reason::BypassedBytes]);
        assert!(j.altered.is_empty());
    }
    // Before it, they do.
    let j = tls(gap(stream(6 * B)), stream(6 * B).flip(&[1, 3]));
    assert_eq!((j.verdict, j.altered), (Altered, vec![range(B, B)]));
    // In the very block where it begins, they don't.
    let mut pair = Pair::joined();
    let budget = &mut Budget::new(1 << 20);
    pair.block(Side::Origin, 0, [1, 0], TagKind::Mac, budget);
    pair.block(Side::Destination, 0, [2, 0], TagKind::Mac, budget);
    pair.gap(Side::Origin, GapSpan { offset: 10, length: UNKNOWN, reason: Reason::SharedDescriptor });
    let e = end(B);
    let j = judge(Case { channel: Channel::Tls, pair: &pair, origin: Some(&e), destination: Some(&e) });
    is(&j, Unverified, &[Reason::SharedDescriptor]);
}

#[test]
fn known_gaps_make_unverified_and_later_blocks_stay_comparable() {
    let j = tls(stream(6 * B).gap(B + 10, B, Reason::KernelCopy), stream(6 * B));
    is(&j, Unverified, &[Reason::KernelCopy]);
    assert_eq!(
        j.strip,
        [
            BlockRun { state: BlockState::Same, blocks: 1 },
            BlockRun { state: BlockState::Unseen, blocks: 2 },
            BlockRun { state: BlockState::Same, blocks: 3 }
        ]
    );
    let j = tls(stream(6 * B).gap(B + 10, B, Reason::KernelCopy), stream(6 * B).flip(&[4]));
    assert_eq!((j.verdict, j.altered), (Altered, vec![range(4 * B, B)]));
    // A gap beyond the end is none (handed over, and nothing written afterwards).
    is(&tls(stream(100).gap(100, B - 100, Reason::HandedOver), stream(100)), Intact, &[]);
}

#[test]
fn lost_records_are_dropped_records() {
    is(&tls(stream(6 * B).lost(&[3]), stream(6 * B)), Unverified, &[Reason::RecordsDropped]);
    is(&tls(stream(6 * B), stream(6 * B).lost(&[3])), Unverified, &[Reason::RecordsDropped]);
    is(&tls(stream(6 * B + 5), stream(6 * B + 5).lost(&[6])), Unverified, &[Reason::RecordsDropped]);
    let unwatched = End { watched: false, ..end(2 * B) };
    let j = case(Channel::Tls, &stream(2 * B), &stream(2 * B).lost(&[0, 1]), end(2 * B), unwatched);
    is(&j, Unverified, &[Reason::AttachedLate]);
}

#[test]
fn what_was_dropped_may_have_been_a_gap() {
    let dropped = || End { dropped: true, ..end(6 * B) };
    let j = case(Channel::Tls, &stream(6 * B).lost(&[1]), &stream(6 * B).flip(&[3]), dropped(), end(6 * B));
    is(&j, Unverified, &[Reason::RecordsDropped]);
    // Whole at both ends: nothing that matters was dropped.
    let j = case(Channel::Tls, &stream(6 * B), &stream(6 * B).flip(&[3]), dropped(), end(6 * B));
    is(&j, Altered, &[]);
    is(&case(Channel::Tls, &stream(6 * B), &stream(6 * B), dropped(), end(6 * B)), Intact, &[]);
}

#[test]
fn one_end_is_unverified() {
    let pair = {
        let mut p = Pair::default();
        stream(3 * B).feed(&mut p, Side::Origin);
        p
    };
    let e = end(3 * B);
    let j = judge(Case { channel: Channel::Tls, pair: &pair, origin: Some(&e), destination: None });
    is(&j, Unverified, &[Reason::PeerNotObserved]);
    assert_eq!(j.assurance, None);
    assert_eq!(j.strip, [BlockRun { state: BlockState::Unseen, blocks: 3 }]);
    let j = judge(Case { channel: Channel::Datagram, pair: &pair, origin: Some(&e), destination: Some(&e) });
    is(&j, Unverified, &[Reason::Datagram]);
}

#[test]
fn tcp_needs_the_kernels_word() {
    let total = 4 * B;
    let flipped = || stream(total).flip(&[1]);
    // Counts agree: altered.
    let j = tcp(stream(total), flipped());
    is(&j, Altered, &[]);
    // Not known at one end, or more than witnessed: bytes that no hook saw may explain it.
    let j = case(Channel::Tcp, &stream(total), &flipped(), end(total), counted(total));
    is(&j, Unverified, &[Reason::BypassedBytes]);
    let more = || End { kernel: Some(total + 5), ..end(total) };
    is(
        &case(Channel::Tcp, &stream(total), &flipped(), counted(total), more()),
        Unverified,
        &[Reason::BypassedBytes],
    );
    is(
        &case(Channel::Tcp, &stream(total), &stream(total), more(), counted(total)),
        Unverified,
        &[Reason::BypassedBytes],
    );
    // Less than witnessed: the hooks saw bytes that the kernel never had.
    let less = End { kernel: Some(total - 5), ..end(total) };
    is(&case(Channel::Tcp, &stream(total), &flipped(), less, counted(total)), Altered, &[]);
    // Not available is no objection to intact.
    is(&case(Channel::Tcp, &stream(total), &stream(total), end(total), end(total)), Intact, &[]);
    // Urgent bytes count, and shift.
    let urgent = |kernel| End { urgent: 1, kernel: Some(kernel), ..end(total) };
    is(
        &case(Channel::Tcp, &stream(total), &stream(total), urgent(total + 1), urgent(total + 1)),
        Intact,
        &[],
    );
    let j = case(Channel::Tcp, &stream(total), &flipped(), urgent(total + 1), urgent(total + 1));
    is(&j, Unverified, &[Reason::BypassedBytes]);
}

#[test]
fn as_many_bytes_may_pass_unseen_at_both_ends_of_a_pipe() {
    let total = 4 * B;
    let judged = |to: Stream, from: Unseen, into: Unseen| {
        let end = |unseen| End { unseen, ..end(total) };
        case(Channel::Pipe, &stream(total), &to, end(from), end(into))
    };
    let flipped = || stream(total).flip(&[1]);
    use Unseen::{None, Possible, Stdio};
    // At one end alone the lengths would tell.
    for (from, into) in [(None, None), (Stdio, None), (None, Stdio), (Possible, None)] {
        is(&judged(flipped(), from, into), Altered, &[]);
        is(&judged(stream(total), from, into), Intact, &[]);
    }
    for (from, into) in [(Stdio, Stdio), (Possible, Stdio), (Possible, Possible)] {
        is(&judged(flipped(), from, into), Unverified, &[Reason::BypassedBytes]);
    }
    is(&judged(stream(total), Possible, Possible), Intact, &[]);
    is(&judged(stream(total), Stdio, Stdio), Unverified, &[Reason::BypassedBytes]);
}

#[test]
fn tcp_lengths() {
    // Longer at the destination: inserted on the path, if the kernels agree.
    let j = tcp(stream(2 * B), stream(2 * B + 9));
    assert_eq!((j.verdict, j.altered), (Altered, vec![range(2 * B, 9)]));
    let j = case(Channel::Tcp, &stream(2 * B), &stream(2 * B + 9), end(2 * B), end(2 * B + 9));
    is(&j, Unverified, &[Reason::BypassedBytes]);
}

#[test]
fn pipes_of_unequal_length_were_bypassed() {
    for channel in [Channel::Pipe, Channel::Unix] {
        is(&case(channel, &stream(0), &stream(9), end(0), end(9)), Unverified, &[Reason::BypassedBytes]);
        is(
            &case(channel, &stream(2 * B), &stream(B), end(2 * B), end(B)),
            Unverified,
            &[Reason::BypassedBytes],
        );
        let j = case(channel, &stream(2 * B), &stream(3 * B).flip(&[0]), end(2 * B), end(3 * B));
        is(&j, Unverified, &[Reason::BypassedBytes]);
        let gone = End { eof: false, ..end(B) };
        let j = case(channel, &stream(2 * B), &stream(B), end(2 * B), gone);
        is(&j, Unverified, &[Reason::AbandonedByReceiver, Reason::BypassedBytes]);
        let j = case(channel, &stream(2 * B), &stream(2 * B).flip(&[1]), end(2 * B), end(2 * B));
        assert_eq!((j.verdict, j.altered), (Altered, vec![range(B, B)]));
    }
}

#[test]
fn killed_and_open_ends() {
    let killed = |total| End { finish: Finish::Killed, eof: false, ..end(total) };
    let open = |total| End { finish: Finish::Open, eof: false, ..end(total) };
    // The destination had everything: nothing more could come.
    is(&case(Channel::Tls, &stream(B + 9), &stream(B + 9), end(B + 9), killed(B + 9)), Intact, &[]);
    is(&case(Channel::Tls, &stream(B + 9), &stream(B + 9), end(B + 9), open(B + 9)), Intact, &[]);
    // It had not, or nobody knows.
    let j = case(Channel::Tls, &stream(3 * B), &stream(B), end(3 * B), killed(B));
    is(&j, Unverified, &[Reason::ProcessKilled]);
    let j = case(Channel::Tls, &stream(B), &stream(B), killed(B), end(B));
    is(&j, Unverified, &[Reason::ProcessKilled]);
    is(&case(Channel::Tls, &stream(B), &stream(B), open(B), open(B)), Unverified, &[Reason::StillOpen]);
    // Longer than what a killed origin had told of: no insertion.
    is(
        &case(Channel::Tls, &stream(B), &stream(2 * B), killed(B), end(2 * B)),
        Unverified,
        &[Reason::ProcessKilled],
    );
    // A difference is one, however they ended.
    let j = case(Channel::Tls, &stream(3 * B), &stream(3 * B).flip(&[1]), killed(3 * B), open(3 * B));
    assert_eq!((j.verdict, j.altered), (Altered, vec![range(B, B)]));
}

#[test]
fn doubts_forbid_the_word() {
    for doubt in [Reason::DisputedClaim, Reason::ForeignHook, Reason::DaemonRestarted] {
        let doubted = End { doubts: vec![doubt], ..end(2 * B) };
        let j = case(Channel::Tls, &stream(2 * B), &stream(2 * B).flip(&[0]), doubted.clone(), end(2 * B));
        is(&j, Unverified, &[doubt]);
        is(&case(Channel::Tls, &stream(2 * B), &stream(2 * B), end(2 * B), doubted), Unverified, &[doubt]);
    }
}

#[test]
fn offered_bytes_are_never_altered() {
    let offered = |total| End { offered: 3 * B, ..end(total) };
    let cut = case(Channel::Tls, &stream(B), &stream(2 * B), offered(B), end(2 * B));
    is(&cut, Unverified, &[Reason::BypassedBytes]);
    is(&case(Channel::Tls, &stream(B), &stream(B), offered(B), end(B)), Intact, &[]);
    let left = End { eof: false, ..end(2 * B) };
    let j = case(Channel::Tls, &stream(B), &stream(2 * B), offered(B), left);
    is(&j, Unverified, &[Reason::AbandonedByReceiver]);
    is(&case(Channel::Tls, &stream(4 * B), &stream(4 * B), offered(B), end(4 * B)), Intact, &[]);
    // Beyond what was offered, somebody inserted.
    is(&case(Channel::Tls, &stream(B), &stream(4 * B + 1), offered(B), end(4 * B + 1)), Altered, &[]);
}

#[test]
fn wide_tags_give_hash() {
    let wide = || Stream { kind: TagKind::Wide, ..stream(3 * B + 5) };
    let j = tls(wide(), wide());
    is(&j, Intact, &[]);
    assert_eq!(j.assurance, Some(Assurance::Hash));
    // Tags of two kinds can't be compared.
    let j = tls(wide(), stream(3 * B + 5));
    is(&j, Unverified, &[Reason::RecordsDropped]);
    assert_eq!(j.altered, []);
}
