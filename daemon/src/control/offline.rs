//! The same without a daemon: on the ledger itself, for who may write it.
#![forbid(unsafe_code)]

use super::{Action, Shown, event};
use crate::alarms::state::Event;
use crate::alarms::{Alarms, Asker, NotFound, find, room};
use crate::config;
use crate::host::user_name;
use crate::ledger::{Ledger, LedgerError, Letter, Owner, Reader};
use crate::model::Alarm;
use crate::sinks;
use anyhow::Context;
use jiff::Timestamp;
use std::path::Path;
use std::sync::Arc;

/// Changes an alarm's state. The inner error is a refusal.
///
/// # Errors
/// The ledger can't be used, or another program uses it and listens to nobody.
pub fn change(
    state: &Path,
    id: &str,
    action: Action,
    comment: Option<String>,
    limits: &config::Alarms,
) -> anyhow::Result<Result<Alarm, String>> {
    // None is made where there is none.
    drop(Reader::open(state)?);
    let _owner = Owner::claim(state, "alarms")?
        .context("no alarm can be changed now; when it has ended, or as a daemon does, it can")?;
    let mut ledger = Ledger::open(state, config::Ledger::default())?;
    let mut alarms = Alarms::resume(ledger.standing(room::ALL)?);
    let reader = Reader::open(state)?;
    let fetch = |id| reader.alarm(id).ok().flatten().map(|alarm| alarm.finding);
    let now = Timestamp::now();
    let event: Event = match event(&action, limits, now) {
        Ok(event) => event,
        Err(why) => return Ok(Err(why)),
    };
    let uid = rustix::process::getuid().as_raw();
    let by = Asker { uid: Some(uid), user: user_name(uid), why: action.word().into(), comment };
    let mut told: Vec<Alarm> = alarms.end_shelves(now, fetch).into_iter().map(|t| t.alarm).collect();
    let alarm = match alarms.change(id, event, &by, now, fetch) {
        Ok(taken) => taken.alarm,
        Err(why) => return Ok(Err(why.to_string())),
    };
    while let Some(row) = alarms.next_write() {
        ledger.alarm(row);
    }
    // The next daemon's sinks hear of it.
    told.push(alarm.clone());
    let last = ledger.undelivered()?.last().map_or(0, |l| l.number).max(sinks::highest(state));
    for (alarm, number) in told.into_iter().zip(last + 1..) {
        ledger.letter(Arc::new(Letter::new(number, Arc::new(alarm))));
    }
    ledger.write()?;
    Ok(Ok(alarm))
}

/// One alarm with all that the ledger has. The inner error: no one alarm is meant.
///
/// # Errors
/// The ledger can't be read.
pub fn show(reader: &Reader, id: &str) -> Result<Result<Shown, NotFound>, LedgerError> {
    let id = match find(id, reader.alarm_ids()?.into_iter()) {
        Ok(id) => id,
        Err(e) => return Ok(Err(e)),
    };
    // Forgotten at this moment.
    let Some(alarm) = reader.alarm(id)? else { return Ok(Err(NotFound::None(id.to_string()))) };
    let transfer = alarm.finding.transfer.map(|t| reader.transfer(t)).transpose()?.flatten();
    Ok(Ok(Shown { history: reader.history(id)?, transfer, alarm }))
}
