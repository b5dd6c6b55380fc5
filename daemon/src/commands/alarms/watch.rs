//! The list as it changes: on a terminal the screen anew, else a line for each alarm that comes or changes.
#![forbid(unsafe_code)]

use super::source::Source;
use super::{Args, LINES, print, row};
use crate::ledger::Filter;
use crate::model::Alarm;
use crate::report::style::Style;
use crate::sinks::alarm_json;
use jiff::Timestamp;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;
use uuid::Uuid;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Alarms whose last state is remembered, to tell what is new.
const KNOWN: usize = 100_000;

pub(super) fn watch(args: &Args) -> anyhow::Result<u8> {
    let style = Style::stdout();
    let terminal = std::io::stdout().is_terminal() && !args.json;
    let mut known: HashMap<Uuid, (Option<Timestamp>, u64)> = HashMap::new();
    loop {
        let mut text = String::new();
        // Anew each time: the daemon may have been started again.
        let mut source = Source::reading(args)?;
        if terminal {
            let height = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(24, |w| u32::from(w.ws_row));
            let filter = Filter {
                limit: Some(args.limit.unwrap_or(height.saturating_sub(3).max(1))),
                ..args.filter()
            };
            let mut lines = 0;
            let all = source.list(&filter, &mut |alarm| {
                lines += 1;
                text.push_str(&row::row(&alarm, &style));
                true
            })?;
            let now = Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ");
            text = format!("\x1b[H\x1b[2J{now}  {lines} of {all} alarms\n\n{text}");
        } else {
            // In whatever state: that one is shelved now is news, too.
            let asked = args.filter();
            let filter = Filter {
                states: vec![],
                latest_first: true,
                limit: Some(args.limit.unwrap_or(LINES)),
                ..asked
            };
            let first = known.is_empty();
            let mut news: Vec<Alarm> = Vec::new();
            source.list(&filter, &mut |alarm| {
                let now = (alarm.changed.as_ref().map(|c| c.at), alarm.count);
                if known.insert(alarm.id, now) != Some(now) {
                    news.push(alarm);
                }
                true
            })?;
            if known.len() > KNOWN {
                known.clear();
            }
            let states = args.filter().states;
            for alarm in
                news.iter().rev().filter(|a| !first || states.is_empty() || states.contains(&a.state))
            {
                text +=
                    &if args.json { alarm_json(alarm).to_string() + "\n" } else { row::row(alarm, &style) };
            }
        }
        if !print(&text)? {
            return Ok(0);
        }
        std::thread::sleep(LOOK);
    }
}
