//! Changes of states, one alarm after the other: each is committed before it is said.
#![forbid(unsafe_code)]

use super::source::{Changer, Source};
use super::{Args, ChangeArgs, NO, print, row, say, usage};
use crate::control::Action;
use crate::report::style::Style;
use crate::sinks::alarm_json;

pub(super) fn change(args: &Args, action: Action, change: &ChangeArgs) -> anyhow::Result<u8> {
    let filtered = args.is_filtered();
    let ids = match (change.ids.is_empty(), filtered) {
        (false, false) => change.ids.clone(),
        (false, true) => return usage("name alarms by id or by filters, not both"),
        (true, false) => return usage("name an alarm by its id, or several by filters"),
        (true, true) => {
            let mut ids = Vec::new();
            Source::reading(args)?.list(&args.filter(), &mut |alarm| {
                ids.push(alarm.id.to_string());
                true
            })?;
            ids
        }
    };
    if ids.is_empty() {
        say("no alarm fits");
        return Ok(NO);
    }
    let mut changer = Changer::find(args)?;
    let style = Style::stdout();
    let mut status = 0;
    for id in &ids {
        match changer.change(id, action, change.comment.clone())? {
            Ok(alarm) => {
                let line =
                    if args.json { alarm_json(&alarm).to_string() + "\n" } else { row::row(&alarm, &style) };
                print(&line)?;
            }
            Err(why) => {
                say(&why);
                status = NO;
            }
        }
    }
    Ok(status)
}
