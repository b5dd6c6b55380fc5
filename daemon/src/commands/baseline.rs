//! `counterfoil baseline`: what is usual on this host, and what an operator says about it.
#![forbid(unsafe_code)]

mod approve;
mod show;

use super::{NO, print, say};
use crate::ledger::usual::{Approval, Errand, Held, Store, Tables, Usage};
use crate::session::default_state;
use clap::Subcommand;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Show what is usual on this host, approve what is in order, reset what is not
///
/// The daemon learns which program sends how much where for whom: its path and digest, the destination and port, the
/// user, and the most that went out within connection_duration. While it learns ([watch] baseline_days, 7 unless
/// configured) it raises no bulk-egress; it lists what it would have raised, so that you can look at it before it
/// counts as usual. Afterwards what is new is raised until it is approved. A running daemon takes a change up within a
/// second.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  counterfoil baseline                                    what was learnt, and what is approved
  counterfoil baseline would-have-raised                  look at this before learning ends
  counterfoil baseline approve 3f9a --owner ops --reason 'nightly backup' --expires 180d
  counterfoil baseline approve --exe /usr/bin/rsync --destination 10.2.0.0/16 --port 22 --user backup \\
      --volume 50GiB --owner ops --reason 'off-site copy, ticket 4711' --expires 2027-01-31
  counterfoil baseline reset 3f9a                         it is not usual, or no longer approved
  counterfoil baseline reset --all                        learn anew from now on; approvals stay

Exit status: 0; 1 if there is no such entry or no baseline; 2 for a wrong command line.")]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The daemon's state directory [default: /var/lib/counterfoil]
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    /// JSON Lines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// List what was learnt, and the approvals (the default)
    List,
    /// List what would have been raised while the baseline was learnt
    WouldHaveRaised,
    /// Say that a program may send to a destination
    Approve(Box<approve::Args>),
    /// Forget what was learnt, an approval, or what would have been raised
    Reset(Reset),
}

#[derive(clap::Args)]
struct Reset {
    /// Ids as `list` and `would-have-raised` show them, or as much of their beginnings as is unique
    #[arg(value_name = "ID", required_unless_present_any = ["exe", "all"])]
    ids: Vec<String>,
    /// Everything that was learnt about this program
    #[arg(long, value_name = "PATH")]
    exe: Option<String>,
    /// Everything that was learnt about anyone; learning begins anew
    #[arg(long, conflicts_with_all = ["ids", "exe"])]
    all: bool,
}

/// One entry of any kind.
enum Entry<'a> {
    Errand(&'a Errand, &'a Usage),
    Approval(&'a Approval),
    Held(&'a Held),
}

impl Entry<'_> {
    /// What it is called on a command line: it stays the same.
    fn id(&self) -> String {
        match self {
            Self::Errand(errand, _) => digest(format!("errand {errand:?}")),
            Self::Approval(approval) => approval.id.clone(),
            Self::Held(held) => digest(format!("held {}", held.finding.key)),
        }
    }
}

/// Eight hex digits.
fn digest(text: String) -> String {
    Sha256::digest(text).iter().take(4).map(|b| format!("{b:02x}")).collect()
}

fn entries(tables: &Tables) -> impl Iterator<Item = Entry<'_>> {
    let errands = tables.errands.iter().map(|(errand, usage)| Entry::Errand(errand, usage));
    errands.chain(tables.approvals.iter().map(Entry::Approval)).chain(tables.held.iter().map(Entry::Held))
}

/// The entry that an id names. None: that was said.
fn find<'a>(tables: &'a Tables, id: &str) -> Option<Entry<'a>> {
    let wanted = id.to_lowercase();
    let mut found: Vec<Entry<'_>> = entries(tables).filter(|e| e.id().starts_with(&wanted)).collect();
    match found.len() {
        1 => found.pop(),
        0 => {
            say(&format!("no entry's id begins with {id}"));
            None
        }
        n => {
            say(&format!("{n} entries' ids begin with {id}; give more of it"));
            None
        }
    }
}

/// Lists, approves or resets.
pub fn baseline(args: &Args) -> anyhow::Result<u8> {
    let mut store = Store::existing(&args.state.clone().unwrap_or_else(default_state))?;
    let tables = store.read()?;
    match args.what.as_ref().unwrap_or(&What::List) {
        What::List => show::list(&tables, args.json),
        What::WouldHaveRaised => show::held(&tables, args.json),
        What::Approve(wanted) => {
            let Some(approval) = approve::approval(wanted, &tables)? else { return Ok(NO) };
            store.approve(&approval)?;
            print(&show::approval(&approval, args.json))?;
            Ok(0)
        }
        What::Reset(reset) => forget(&mut store, &tables, reset),
    }
}

fn forget(store: &mut Store, tables: &Tables, reset: &Reset) -> anyhow::Result<u8> {
    if reset.all {
        let gone = store.begin_again()?;
        print(&format!("{gone} forgotten; learning begins anew\n"))?;
        return Ok(0);
    }
    let mut status = 0;
    let mut gone = 0;
    for id in &reset.ids {
        let known = match find(tables, id) {
            Some(Entry::Errand(errand, _)) => store.forget(errand)?,
            Some(Entry::Approval(approval)) => store.revoke(&approval.id)?,
            Some(Entry::Held(held)) => store.forget_held(Some(&held.finding.key))? > 0,
            None => false,
        };
        if known { gone += 1 } else { status = NO }
    }
    if let Some(exe) = &reset.exe {
        let of_it = tables.errands.iter().filter(|(errand, _)| errand.exe == *exe);
        for (errand, _) in of_it {
            gone += usize::from(store.forget(errand)?);
        }
        if gone == 0 {
            say(&format!("nothing was learnt about {exe}"));
            status = NO;
        }
    }
    print(&format!("{gone} forgotten\n"))?;
    Ok(status)
}
