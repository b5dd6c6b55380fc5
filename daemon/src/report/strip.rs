//! The strip: a transfer's blocks in one line, so that the eye sees where it was changed.
#![forbid(unsafe_code)]

use super::style::{Colour, Style};
use crate::model::{BlockRun, BlockState};

/// Cells at most.
const CELLS: u64 = 48;

/// `████▒██`: same, differing (`▒`), unseen (`·`). A cell stands for several blocks where there are
/// many, and shows the worst of them. None where there is no block.
pub(super) fn strip(runs: &[BlockRun], style: &Style) -> Option<String> {
    let total = runs.iter().fold(0u64, |n, r| n.saturating_add(r.blocks));
    if total == 0 {
        return None;
    }
    let per_cell = total.div_ceil(CELLS.min(style.width as u64 / 2));
    let mut out = String::new();
    let mut last = None;
    let mut cell = String::new();
    for at in 0..total.div_ceil(per_cell) {
        let state = worst(runs, at * per_cell, per_cell);
        if last.is_some_and(|l| l != state) {
            flush(&mut out, &mut cell, last, style);
        }
        cell.push(match (state, style.unicode) {
            (BlockState::Same, true) => '█',
            (BlockState::Differs, true) => '▒',
            (BlockState::Unseen, true) => '·',
            (BlockState::Same, false) => '#',
            (BlockState::Differs, false) => '!',
            (BlockState::Unseen, false) => '.',
        });
        last = Some(state);
    }
    flush(&mut out, &mut cell, last, style);
    let kib = per_cell.saturating_mul(16);
    if per_cell > 1 {
        out.push_str(&format!(
            "  ({} a cell)",
            if kib < 1024 { format!("{kib} KiB") } else { format!("{} MiB", kib / 1024) }
        ));
    }
    Some(out)
}

fn flush(out: &mut String, cell: &mut String, state: Option<BlockState>, style: &Style) {
    let colour = match state {
        Some(BlockState::Differs) => Colour::Red,
        _ => Colour::Plain,
    };
    out.push_str(&style.paint(colour, cell));
    cell.clear();
}

/// The worst state among `count` blocks from `from` on.
fn worst(runs: &[BlockRun], from: u64, count: u64) -> BlockState {
    let (mut start, mut worst) = (0u64, BlockState::Same);
    for run in runs {
        let end = start.saturating_add(run.blocks);
        if start < from.saturating_add(count) && end > from && run.blocks > 0 {
            match run.state {
                BlockState::Differs => return BlockState::Differs,
                BlockState::Unseen => worst = BlockState::Unseen,
                BlockState::Same => {}
            }
        }
        start = end;
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(state: BlockState, blocks: u64) -> BlockRun {
        BlockRun { state, blocks }
    }

    #[test]
    fn each_block_is_a_cell_while_there_is_room() {
        use BlockState::{Differs, Same, Unseen};
        let runs = [run(Same, 4), run(Differs, 1), run(Same, 2), run(Unseen, 1)];
        assert_eq!(strip(&runs, &Style::plain()).unwrap(), "████▒██·");
        let ascii = Style { unicode: false, ..Style::plain() };
        assert_eq!(strip(&runs, &ascii).unwrap(), "####!##.");
        assert_eq!(strip(&[], &Style::plain()), None);
        assert_eq!(strip(&[run(Same, 0)], &Style::plain()), None);
    }

    #[test]
    fn one_differing_block_among_a_million_shows() {
        use BlockState::{Differs, Same};
        for at in [0, 1, 499_999, 999_998] {
            let runs = [run(Same, at), run(Differs, 1), run(Same, 999_999 - at)];
            let out = strip(&runs, &Style::plain()).unwrap();
            assert_eq!(out.matches('▒').count(), 1, "{at}: {out}");
            assert!(out.contains("a cell"), "{out}");
            assert!(out.chars().count() < 80);
        }
    }

    #[test]
    fn absurd_lengths_do_no_harm() {
        let runs = [run(BlockState::Same, u64::MAX), run(BlockState::Differs, u64::MAX)];
        assert!(strip(&runs, &Style::plain()).is_some());
    }
}
