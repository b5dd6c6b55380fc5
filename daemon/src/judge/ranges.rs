//! From differing blocks to ranges of bytes, and to the report's strip.

use super::End;
use crate::assemble::pair::Pair;
use crate::model::{BlockRun, BlockState, Range};
use counterfoil_abi::{BLOCK, UNKNOWN};

/// Ranges at origin offsets: whole blocks, neighbours merged; one range from where it begins to the
/// longer end where bytes were inserted or deleted.
pub fn altered(
    pair: &Pair,
    differences: &[u64],
    origin: &End,
    destination: &End,
    certain: u64,
) -> Vec<Range> {
    let longer = origin.total.max(destination.total);
    let shorter = origin.total.min(destination.total);
    let both_ended = origin.ended() && destination.ended();
    let shifted = both_ended && origin.total != destination.total && certain == UNKNOWN;
    if shifted {
        match differences.first() {
            Some(&first) if all_differ_from(pair, first) => return vec![between(first * BLOCK, longer)],
            None => return vec![between(shorter / BLOCK * BLOCK, longer)],
            Some(_) => {}
        }
    }
    let mut ranges: Vec<Range> = Vec::new();
    for &block in differences {
        push(&mut ranges, between(block * BLOCK, ((block + 1) * BLOCK).min(longer.max(block * BLOCK + 1))));
    }
    if shifted && destination.total > origin.total.saturating_add(origin.offered) {
        push(&mut ranges, between(shorter / BLOCK * BLOCK, longer));
    }
    ranges
}

fn between(start: u64, end: u64) -> Range {
    Range { offset: start, length: end - start }
}

fn push(ranges: &mut Vec<Range>, range: Range) {
    match ranges.last_mut() {
        Some(last) if last.offset + last.length >= range.offset => {
            last.length = last.length.max(range.offset + range.length - last.offset);
        }
        _ => ranges.push(range),
    }
}

/// No block from `first` on is the same.
fn all_differ_from(pair: &Pair, first: u64) -> bool {
    pair.same.end() <= first
}

/// The blocks in runs of one state.
pub fn strip(pair: &Pair, altered: &[Range], total: u64) -> Vec<BlockRun> {
    let blocks = total.div_ceil(BLOCK);
    let mut runs = Strip { at: 0, runs: Vec::new() };
    let mut differs = altered
        .iter()
        .map(|r| (r.offset / BLOCK, (r.offset + r.length).div_ceil(BLOCK).min(blocks)))
        .peekable();
    let last_same = pair.same_partial.filter(|&(offset, length)| offset + u64::from(length) == total);
    let tail = last_same.map(|(offset, _)| (offset / BLOCK, offset / BLOCK + 1));
    for (start, end) in pair.same.below(blocks).chain(tail) {
        let mut start = start.max(runs.at);
        while let Some(&(from, to)) = differs.peek() {
            if from >= end {
                break;
            }
            if start < from {
                runs.until(from, start, BlockState::Same);
            }
            runs.until(to, from, BlockState::Differs);
            start = start.max(to);
            differs.next();
        }
        if start < end {
            runs.until(end, start, BlockState::Same);
        }
    }
    for (from, to) in differs {
        runs.until(to, from, BlockState::Differs);
    }
    runs.until(blocks, blocks, BlockState::Unseen);
    runs.runs
}

struct Strip {
    at: u64,
    runs: Vec<BlockRun>,
}

impl Strip {
    /// Blocks from `from` to `end` are in `state`; those between here and `from` were not seen.
    fn until(&mut self, end: u64, from: u64, state: BlockState) {
        if from > self.at {
            self.push(from - self.at, BlockState::Unseen);
            self.at = from;
        }
        if end > self.at {
            self.push(end - self.at, state);
            self.at = end;
        }
    }

    fn push(&mut self, blocks: u64, state: BlockState) {
        match self.runs.last_mut() {
            Some(last) if last.state == state => last.blocks += blocks,
            _ => self.runs.push(BlockRun { state, blocks }),
        }
    }
}
