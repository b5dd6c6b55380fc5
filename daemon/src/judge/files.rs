//! Judge a file: what one program read of it beside what another one wrote.
//!
//! Comes in: a [`FileCase`]. Goes out: a [`Judgement`]. A pure function, called by `files`.
//!
//! *Intact* if both contents are known as a whole and have one SHA-256; *truncated* if the destination
//! is the origin's beginning; *altered* only where nobody on the way changes content by trade; else
//! *unverified*, with the reason.

use super::{Finish, Judgement, Reasons};
use crate::files::tags::{Compared, Tags};
use crate::model::{Assurance, BlockRun, BlockState, Range, Reason, Verdict};
use counterfoil_abi::BLOCK;

/// One end's content.
#[derive(Clone, Debug)]
pub struct Content<'a> {
    /// Bytes of the whole.
    pub bytes: u64,
    /// SHA-256 of the whole, where all of it was seen.
    pub digest: Option<[u8; 32]>,
    /// Tags of what was seen.
    pub tags: &'a Tags,
    /// What makes all of it uncertain.
    pub doubts: Vec<Reason>,
    /// How the program's use of it ended.
    pub finish: Finish,
}

/// Who stands between.
#[derive(Clone, Copy, Debug, Default)]
pub struct Between {
    /// The programs at both ends carry content as it is.
    pub carriers: bool,
    /// All programs do, and can't be told otherwise: a length can't change.
    pub exact: bool,
    /// The programs at both ends copy file by file: what is written is one file's content, and all of it.
    pub whole: bool,
    /// One of them may do anything.
    pub filter: bool,
    /// One of them may serve another text than it got, and nobody else can have changed it.
    pub rewrites: bool,
    /// A leg between them is known to be altered.
    pub altered_leg: bool,
}

/// What is to be judged.
#[derive(Clone, Debug)]
pub struct FileCase<'a> {
    /// As it was read.
    pub origin: Content<'a>,
    /// As it was written.
    pub destination: Content<'a>,
    /// Is the destination the origin's first so many bytes? None: nobody looked.
    pub prefix: Option<bool>,
    /// Blocks of the origin that changed on disk while it was read.
    pub changed_source: Vec<Range>,
    /// So many bytes were at the destination before it was opened, and may be what stayed there (`rsync --append`,
    /// a resumed download): only what differs beyond them was written.
    pub kept: u64,
    /// Who stands between.
    pub between: Between,
}

/// Judges one file's way.
pub fn judge(case: &FileCase<'_>) -> Judgement {
    let (origin, destination) = (&case.origin, &case.destination);
    let compared = origin.tags.compared(destination.tags);
    let equal = match (origin.digest, destination.digest) {
        (Some(a), Some(b)) => Some(origin.bytes == destination.bytes && a == b),
        _ => None,
    };
    let mut reasons = Reasons::default();
    origin.doubts.iter().chain(&destination.doubts).for_each(|&doubt| reasons.add(doubt));
    let doubted = !reasons.0.is_empty();
    let done = |verdict, reasons: Reasons, altered: Vec<Range>, hash: bool| {
        let compared_tags = compared.same > 0 || compared.differ > 0 || compared.tail.is_some();
        let assurance = match (hash, compared_tags) {
            (true, _) => Some(Assurance::Hash),
            (false, true) => Some(Assurance::KeyedTag),
            (false, false) => None,
        };
        let strip = strip(case, verdict, &altered);
        Judgement { verdict, reasons: reasons.0, altered, strip, assurance }
    };
    if doubted {
        return done(Verdict::Unverified, reasons, Vec::new(), equal.is_some());
    }
    if !case.changed_source.is_empty() {
        // Who reads one file and writes another is accused of nothing.
        if equal == Some(true) || case.between.carriers && !case.between.filter {
            return done(Verdict::Altered, reasons, case.changed_source.clone(), equal.is_some());
        }
        reasons.add(Reason::OtherWriter);
        return done(Verdict::Unverified, reasons, Vec::new(), equal.is_some());
    }
    if equal == Some(true) {
        return done(Verdict::Intact, reasons, Vec::new(), true);
    }
    let shorter = destination.bytes < origin.bytes;
    let begins_so = case.prefix.or_else(|| begins(&compared, destination));
    // What a filter leaves away is its user's wish.
    if shorter && begins_so == Some(true) && !case.between.filter {
        return done(Verdict::Truncated, reasons, Vec::new(), case.prefix == Some(true));
    }
    let differ = equal == Some(false) || compared.differ > 0 || compared.tail == Some(false);
    if differ && accuses(case, &compared) {
        let altered = ranges(case, &compared);
        return done(Verdict::Altered, reasons, altered, equal.is_some());
    }
    if differ {
        reasons.add(Reason::Transformed);
    } else {
        for content in [origin, destination] {
            if content.digest.is_none() {
                unseen(content, &mut reasons);
            }
        }
    }
    done(Verdict::Unverified, reasons, Vec::new(), equal.is_some())
}

/// By their tags: every whole block of the shorter destination is the origin's, and there is one.
fn begins(compared: &Compared, destination: &Content<'_>) -> Option<bool> {
    if destination.bytes == 0 {
        return Some(true);
    }
    if compared.differ > 0 {
        return Some(false);
    }
    (compared.same > 0 && compared.same == destination.bytes / BLOCK).then_some(true)
}

/// Does a difference mean that somebody changed the bytes?
fn accuses(case: &FileCase<'_>, compared: &Compared) -> bool {
    let between = &case.between;
    if between.altered_leg {
        return true;
    }
    if !between.carriers || between.filter || between.rewrites {
        return false;
    }
    if case.kept > 0 {
        return case.origin.bytes == case.destination.bytes && !ranges(case, compared).is_empty();
    }
    // Another length is a conversion's mark, or that of `cat a b >c`, unless nobody on the way converts, one
    // file is written for each that is read, and the beginning is the same.
    case.origin.bytes == case.destination.bytes
        || between.exact
            && between.whole
            && compared.same > 0
            && compared.first_difference.is_none_or(|first| first > 0)
}

/// Where they differ, whole blocks, neighbours merged; of what was kept, none.
fn ranges(case: &FileCase<'_>, compared: &Compared) -> Vec<Range> {
    let (origin, destination) = (&case.origin, &case.destination);
    let longer = origin.bytes.max(destination.bytes);
    if origin.bytes != destination.bytes {
        let shorter = origin.bytes.min(destination.bytes) / BLOCK * BLOCK;
        let from = compared.first_difference.map_or(shorter, |block| block * BLOCK);
        return vec![Range { offset: from, length: longer - from }];
    }
    let mut ranges: Vec<Range> = Vec::new();
    let kept = if case.between.altered_leg { 0 } else { case.kept };
    for block in kept.div_ceil(BLOCK)..longer.div_ceil(BLOCK) {
        if state(case, block) != BlockState::Differs {
            continue;
        }
        push(&mut ranges, block * BLOCK, ((block + 1) * BLOCK).min(longer));
    }
    if ranges.is_empty() && kept == 0 {
        // The digests differ: what was not compared block by block must hold it.
        for block in 0..longer.div_ceil(BLOCK) {
            if state(case, block) == BlockState::Unseen {
                push(&mut ranges, block * BLOCK, ((block + 1) * BLOCK).min(longer));
            }
        }
    }
    ranges
}

fn push(ranges: &mut Vec<Range>, start: u64, end: u64) {
    match ranges.last_mut() {
        Some(last) if last.offset + last.length == start => last.length += end - start,
        _ => ranges.push(Range { offset: start, length: end - start }),
    }
}

/// One block of both.
fn state(case: &FileCase<'_>, block: u64) -> BlockState {
    let (a, b) = (case.origin.tags, case.destination.tags);
    if a.kind() != b.kind() {
        return BlockState::Unseen;
    }
    let of = |equal| if equal { BlockState::Same } else { BlockState::Differs };
    if let (Some(x), Some(y)) = (a.get(block), b.get(block)) {
        return of(x == y);
    }
    match (a.partial, b.partial) {
        (Some(x), Some(y)) if x.offset == block * BLOCK && (x.offset, x.length) == (y.offset, y.length) => {
            of(x.value == y.value)
        }
        _ => BlockState::Unseen,
    }
}

/// The report's strip. Blocks beyond this many are not looked at one by one.
fn strip(case: &FileCase<'_>, verdict: Verdict, altered: &[Range]) -> Vec<BlockRun> {
    const LOOKED_AT: u64 = 1 << 22;
    let blocks = case.origin.bytes.max(case.destination.bytes).div_ceil(BLOCK);
    if verdict == Verdict::Intact {
        return run_of(BlockState::Same, blocks);
    }
    if blocks > LOOKED_AT {
        return run_of(BlockState::Unseen, blocks);
    }
    let mut strip: Vec<BlockRun> = Vec::new();
    let mut ranges = altered.iter().peekable();
    for block in 0..blocks {
        let at = block * BLOCK;
        while ranges.peek().is_some_and(|r| r.offset + r.length <= at) {
            ranges.next();
        }
        let inside = ranges.peek().is_some_and(|r| r.offset < at + BLOCK);
        let state = if inside {
            BlockState::Differs
        } else {
            match state(case, block) {
                // Differences that accuse nobody are not shown as such.
                BlockState::Differs => BlockState::Unseen,
                state => state,
            }
        };
        match strip.last_mut() {
            Some(run) if run.state == state => run.blocks += 1,
            _ => strip.push(BlockRun { state, blocks: 1 }),
        }
    }
    strip
}

fn run_of(state: BlockState, blocks: u64) -> Vec<BlockRun> {
    if blocks == 0 { Vec::new() } else { vec![BlockRun { state, blocks }] }
}

/// Why this end's content is not known as a whole.
fn unseen(content: &Content<'_>, reasons: &mut Reasons) {
    let before = reasons.0.len();
    content.tags.reasons().for_each(|reason| reasons.add(reason));
    match content.finish {
        Finish::Ended => {}
        Finish::Killed => reasons.add(Reason::ProcessKilled),
        Finish::Open => reasons.add(Reason::StillOpen),
    }
    if reasons.0.len() == before {
        reasons.add(Reason::BypassedBytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assemble::manifest::{Partial, TagKind};
    use crate::files::tags::Room;

    fn tags(values: &[u128], tail: Option<(u32, u128)>) -> Tags {
        let mut room = Room::new(1 << 30);
        let mut tags = Tags::default();
        for (i, &v) in values.iter().enumerate() {
            tags.put(i as u64, [v, 0], TagKind::Mac, &mut room);
        }
        if let Some((length, v)) = tail {
            let offset = values.len() as u64 * BLOCK;
            tags.put_partial(Partial { offset, length, value: [v, 0] }, TagKind::Mac);
        }
        tags
    }

    fn content(tags: &Tags, bytes: u64, digest: u8) -> Content<'_> {
        let digest = Some([digest; 32]);
        Content { bytes, digest, tags, doubts: Vec::new(), finish: Finish::Ended }
    }

    fn case<'a>(origin: Content<'a>, destination: Content<'a>) -> FileCase<'a> {
        let between = Between { carriers: true, exact: true, whole: true, ..Between::default() };
        FileCase { origin, destination, prefix: None, changed_source: Vec::new(), kept: 0, between }
    }

    #[test]
    fn equal_digests_are_intact_by_hash() {
        let none = Tags::default();
        let found = judge(&case(content(&none, 5, 1), content(&none, 5, 1)));
        assert_eq!((found.verdict, found.assurance), (Verdict::Intact, Some(Assurance::Hash)));
        assert_eq!(found.reasons, []);
    }

    #[test]
    fn a_changed_block_is_altered_between_carriers_and_transformed_elsewhere() {
        let (a, b) = (tags(&[1, 2, 3], Some((7, 9))), tags(&[1, 5, 3], Some((7, 9))));
        let bytes = 3 * BLOCK + 7;
        let mut case = case(content(&a, bytes, 1), content(&b, bytes, 2));
        let found = judge(&case);
        assert_eq!(found.verdict, Verdict::Altered);
        assert_eq!(found.altered, [Range { offset: BLOCK, length: BLOCK }]);
        assert_eq!(found.strip.len(), 3);
        case.between.filter = true;
        let found = judge(&case);
        assert_eq!((found.verdict, &found.reasons[..]), (Verdict::Unverified, &[Reason::Transformed][..]));
        assert_eq!(found.altered, []);
        (case.between.filter, case.between.rewrites) = (false, true);
        assert_eq!(judge(&case).reasons, [Reason::Transformed]);
        case.between.altered_leg = true;
        assert_eq!(judge(&case).verdict, Verdict::Altered);
    }

    #[test]
    fn the_tail_alone() {
        let (a, b) = (tags(&[1], Some((7, 9))), tags(&[1], Some((7, 8))));
        let found = judge(&case(content(&a, BLOCK + 7, 1), content(&b, BLOCK + 7, 2)));
        assert_eq!(found.altered, [Range { offset: BLOCK, length: 7 }]);
    }

    #[test]
    fn what_has_no_tags_is_altered_as_a_whole() {
        let none = Tags::default();
        let found = judge(&case(content(&none, 100, 1), content(&none, 100, 2)));
        assert_eq!(found.altered, [Range { offset: 0, length: 100 }]);
    }

    #[test]
    fn a_beginning_is_truncated_never_altered() {
        let (a, b) = (tags(&[1, 2, 3], None), tags(&[1, 2], None));
        let found = judge(&case(content(&a, 3 * BLOCK, 1), content(&b, 2 * BLOCK, 2)));
        assert_eq!((found.verdict, found.assurance), (Verdict::Truncated, Some(Assurance::KeyedTag)));
        let none = Tags::default();
        let mut short = case(content(&none, 300, 1), content(&none, 20, 2));
        short.prefix = Some(true);
        let found = judge(&short);
        assert_eq!((found.verdict, found.assurance), (Verdict::Truncated, Some(Assurance::Hash)));
        short.prefix = Some(false);
        assert_eq!(judge(&short).reasons, [Reason::Transformed]);
        assert_eq!(judge(&case(content(&none, 3, 1), content(&none, 0, 2))).verdict, Verdict::Truncated);
    }

    #[test]
    fn another_length_is_a_conversion_unless_nobody_converts() {
        let (a, b) = (tags(&[1, 2, 3], None), tags(&[1, 7, 8, 9], None));
        let mut case = case(content(&a, 3 * BLOCK, 1), content(&b, 4 * BLOCK, 2));
        assert_eq!(judge(&case).altered, [Range { offset: BLOCK, length: 3 * BLOCK }]);
        let longer = tags(&[1, 2, 3, 4], None);
        case.destination.tags = &longer;
        assert_eq!(judge(&case).verdict, Verdict::Altered, "bytes more, where files go one by one");
        case.between.whole = false;
        assert_eq!(judge(&case).reasons, [Reason::Transformed], "another file was added to it");
        case.between.whole = true;
        case.destination.tags = &b;
        case.between.exact = false;
        assert_eq!(judge(&case).reasons, [Reason::Transformed]);
        let c = tags(&[6, 7, 8, 9], None);
        case.destination.tags = &c;
        case.between.exact = true;
        assert_eq!(judge(&case).reasons, [Reason::Transformed], "nothing in common");
    }

    #[test]
    fn several_files_in_one_and_a_part_of_one_accuse_nobody() {
        // cat a b | ssh host 'cat >c'
        let (a, c) = (tags(&[1, 2], None), tags(&[1, 2, 3, 4], None));
        let mut case = case(content(&a, 2 * BLOCK, 1), content(&c, 4 * BLOCK, 2));
        case.between.whole = false;
        assert_eq!(judge(&case).reasons, [Reason::Transformed]);
        // head -c 16384 c | ssh host 'cat >d'
        std::mem::swap(&mut case.origin, &mut case.destination);
        assert_eq!(judge(&case).verdict, Verdict::Truncated);
        case.between.filter = true;
        assert_eq!(judge(&case).reasons, [Reason::Transformed]);
    }

    #[test]
    fn what_was_there_before_accuses_nobody() {
        // rsync --append, curl -C -: the first block and a half is another file's.
        let (a, b) = (tags(&[1, 2, 3, 4], None), tags(&[9, 8, 3, 4], None));
        let mut case = case(content(&a, 4 * BLOCK, 1), content(&b, 4 * BLOCK, 2));
        case.kept = BLOCK + BLOCK / 2;
        assert_eq!(judge(&case).reasons, [Reason::Transformed]);
        let c = tags(&[9, 8, 3, 5], None);
        case.destination.tags = &c;
        assert_eq!(
            judge(&case).altered,
            [Range { offset: 3 * BLOCK, length: BLOCK }],
            "written, and altered"
        );
        // Killed on the way: what follows is what was there.
        case.kept = 4 * BLOCK;
        assert_eq!(judge(&case).reasons, [Reason::Transformed]);
        case.destination.bytes = 3 * BLOCK;
        assert_eq!(judge(&case).reasons, [Reason::Transformed]);
        let none = Tags::default();
        case.origin.tags = &none;
        case.destination.bytes = 4 * BLOCK;
        assert_eq!(judge(&case).reasons, [Reason::Transformed], "nobody knows where");
    }

    #[test]
    fn who_did_not_see_all_says_why() {
        let none = Tags::default();
        let mut case = case(content(&none, 5, 1), content(&none, 5, 1));
        case.destination.digest = None;
        assert_eq!(judge(&case).reasons, [Reason::BypassedBytes]);
        case.destination.finish = Finish::Killed;
        assert_eq!(judge(&case).reasons, [Reason::ProcessKilled]);
        case.destination.digest = Some([1; 32]);
        case.destination.doubts = vec![Reason::OtherWriter];
        assert_eq!(judge(&case).reasons, [Reason::OtherWriter]);
    }

    #[test]
    fn a_source_that_changed_is_altered_there() {
        let none = Tags::default();
        let mut case = case(content(&none, 5, 1), content(&none, 5, 1));
        case.changed_source = vec![Range { offset: 0, length: 5 }];
        let found = judge(&case);
        assert_eq!((found.verdict, found.altered), (Verdict::Altered, case.changed_source));
    }
}
