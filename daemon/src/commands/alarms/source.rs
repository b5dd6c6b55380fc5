//! Where the alarm list is: in a ledger that we may read, else behind the control socket of the daemon that may.
#![forbid(unsafe_code)]

use super::Args;
use crate::commands::daemon::{CONFIG, default_socket};
use crate::config;
use crate::control::client::{self, Client, Found};
use crate::control::{Action, Reply, Request, Shown, offline};
use crate::ledger::{Filter, Load, Reader};
use crate::model::Alarm;
use crate::session::default_state;
use anyhow::{Context, anyhow, bail};
use jiff::Timestamp;
use std::io;
use std::path::{Path, PathBuf};

/// Who answers.
pub(super) enum Source {
    /// The file.
    Ledger(Reader),
    /// The daemon.
    Daemon(Client),
}

const MAY: &str =
    "the alarm list belongs to root and the group counterfoil (or to the user whose daemon it is)";

impl Source {
    /// To read from.
    pub fn reading(args: &Args) -> anyhow::Result<Self> {
        if let Some(socket) = &args.socket {
            return Ok(Self::Daemon(daemon(client::of_socket(socket), socket)?.with_context(|| {
                format!("no daemon answers on the control socket of {}", socket.display())
            })?));
        }
        let state = args.state.clone().unwrap_or_else(default_state);
        let why = match Reader::open(&state) {
            Ok(reader) => return Ok(Self::Ledger(reader)),
            Err(why) => why,
        };
        // Whoever may not read the file may still be allowed to ask.
        match reach(args, &state) {
            Ok(Some(client)) => Ok(Self::Daemon(client)),
            Ok(None) => Err(why.into()),
            Err(forbidden) => Err(anyhow::Error::from(why).context(forbidden)),
        }
    }

    /// Gives the alarms that fit to `each` until it says false. How many fit, limit or no.
    pub fn list(&mut self, filter: &Filter, each: &mut dyn FnMut(Alarm) -> bool) -> anyhow::Result<u64> {
        match self {
            Self::Ledger(reader) => {
                reader.list(filter, each)?;
                Ok(reader.count(filter)?)
            }
            Self::Daemon(client) => {
                let last = client.ask(&Request::List { filter: filter.clone() }, |reply| match reply {
                    Reply::Alarm(alarm) => each(*alarm),
                    _ => true,
                })?;
                ended(last)?.map_err(|why| anyhow!(why))
            }
        }
    }

    /// One alarm with all that is known; the inner error says why not.
    pub fn show(&mut self, id: &str) -> anyhow::Result<Result<Shown, String>> {
        match self {
            Self::Ledger(reader) => Ok(offline::show(reader, id)?.map_err(|e| e.to_string())),
            Self::Daemon(client) => {
                let mut found = None;
                let last = client.ask(&Request::Show { id: id.to_owned() }, |reply| {
                    if let Reply::Shown(shown) = reply {
                        found = Some(*shown);
                    }
                    true
                })?;
                match ended(last)? {
                    Ok(_) => Ok(Ok(found.context("the daemon gave no alarm")?)),
                    Err(why) => Ok(Err(why)),
                }
            }
        }
    }

    /// The measures.
    pub fn load(&mut self) -> anyhow::Result<Load> {
        match self {
            Self::Ledger(reader) => Ok(reader.load(Timestamp::now())?),
            Self::Daemon(client) => {
                let mut found = None;
                let last = client.ask(&Request::Stats, |reply| {
                    if let Reply::Stats(load) = reply {
                        found = Some(*load);
                    }
                    true
                })?;
                ended(last)?.map_err(|why| anyhow!(why))?;
                found.context("the daemon gave no measures")
            }
        }
    }
}

/// To change with.
pub(super) enum Changer {
    /// The daemon.
    Daemon(Client),
    /// Nobody holds the list: its file.
    Ledger(PathBuf, config::Alarms),
}

impl Changer {
    pub fn find(args: &Args) -> anyhow::Result<Self> {
        if let Some(socket) = &args.socket {
            return match Source::reading(args)? {
                Source::Daemon(client) => Ok(Self::Daemon(client)),
                Source::Ledger(_) => bail!("no daemon answers on the control socket of {}", socket.display()),
            };
        }
        let state = args.state.clone().unwrap_or_else(default_state);
        if let Some(client) = reach(args, &state)? {
            return Ok(Self::Daemon(client));
        }
        // What the next daemon would go by.
        let file = Some(Path::new(CONFIG)).filter(|f| args.state.is_none() && f.exists());
        let limits = config::load(file).map(|parsed| parsed.config.alarms).unwrap_or_default();
        Ok(Self::Ledger(state, limits))
    }

    /// The alarm as it stands then; the inner error says why not.
    pub fn change(
        &mut self,
        id: &str,
        action: Action,
        comment: Option<String>,
    ) -> anyhow::Result<Result<Alarm, String>> {
        match self {
            Self::Ledger(state, limits) => offline::change(state, id, action, comment, limits),
            Self::Daemon(client) => {
                let mut found = None;
                let last = client.ask(&Request::Change { id: id.to_owned(), action, comment }, |reply| {
                    if let Reply::Alarm(alarm) = reply {
                        found = Some(*alarm);
                    }
                    true
                })?;
                match ended(last)? {
                    Ok(_) => Ok(Ok(found.context("the daemon gave no alarm")?)),
                    Err(why) => Ok(Err(why)),
                }
            }
        }
    }
}

/// The daemon of `state`, else, where nobody named it, the host's. None: there is none.
fn reach(args: &Args, state: &Path) -> anyhow::Result<Option<Client>> {
    match client::of_state(state) {
        Found::Daemon(client) => Ok(Some(client)),
        _ if args.state.is_none() => {
            let socket = default_socket();
            daemon(client::of_socket(&socket), &socket)
        }
        Found::Nobody => Ok(None),
        Found::Forbidden(e) => Err(forbidden(e, state)),
    }
}

fn daemon(found: Found, place: &Path) -> anyhow::Result<Option<Client>> {
    match found {
        Found::Daemon(client) => Ok(Some(client)),
        Found::Nobody => Ok(None),
        Found::Forbidden(e) => Err(forbidden(e, place)),
    }
}

fn forbidden(e: io::Error, place: &Path) -> anyhow::Error {
    let may = if e.kind() == io::ErrorKind::PermissionDenied { MAY } else { "the daemon can't be reached" };
    anyhow!("{}: {e}; {may}", place.display())
}

/// The inner error: a refusal.
fn ended(last: Reply) -> anyhow::Result<Result<u64, String>> {
    match last {
        Reply::End(n) => Ok(Ok(n)),
        Reply::Refused(why) => Ok(Err(why)),
        Reply::Failed(why) => bail!(why),
        _ => bail!("the daemon said something else than expected; is it of another version?"),
    }
}
