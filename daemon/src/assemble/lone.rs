//! Connections of which one end is observed, for the files that went over them.

use super::gifts::{MAX_OBJECTS, Standing};
use super::object::{Direction, Object};
use super::outward::text;
use super::program::ArenaId;
use super::relay::Crossing;
use super::{Assembler, Transfer};
use crate::files::abroad::Lone;
use crate::files::open::Way;
use crate::model::{self, Channel, Reason};
use counterfoil_abi::record::Channel as Kind;

impl Assembler {
    /// A transfer that was judged just now. `crossing`: what is known of its content.
    pub(super) fn lone(&mut self, transfer: &Transfer, said: &model::Transfer, crossing: Option<&Crossing>) {
        let (key, direction) = match (&said.origin, &said.destination) {
            (Some(_), None) => (transfer.origin, Direction::Out),
            (None, Some(_)) => (transfer.destination, Direction::In),
            _ => return,
        };
        let connection = matches!(said.channel, Channel::Tls | Channel::Tcp);
        let Some(object) = key.and_then(|k| self.objects.get(k)).filter(|o| connection && !o.disputed) else {
            return;
        };
        let Some(user) = object.uses.iter().find(|u| u.active(direction)) else { return };
        if !said.reasons.contains(&Reason::PeerNotObserved) {
            return;
        }
        let content = crossing.map(|c| match direction {
            Direction::Out => c.left.clone(),
            Direction::In => c.arrived.clone(),
        });
        let arena = user.arena;
        let lone = Lone { content, ..lone(arena, object, direction, transfer.id) };
        if let Some(program) = self.programs.get(&arena) {
            self.files.program(arena, &program.facts);
        }
        self.files.lone(lone);
    }
}

fn lone(arena: ArenaId, object: &Object, direction: Direction, transfer: uuid::Uuid) -> Lone {
    Lone {
        arena,
        way: if direction == Direction::Out { Way::Read } else { Way::Written },
        transfer,
        local: text(&object.local),
        remote: text(&object.remote),
        bytes: object.total(direction),
        open: (object.opened, object.last),
        content: None,
    }
}

impl Standing<'_> {
    /// A connection of this program that is not over, by which it gets something from nobody that is known.
    pub(super) fn lone_of(&self, arena: ArenaId) -> Option<Lone> {
        let program = self.programs.get(&arena)?;
        let alone = program.numbers.values().take(MAX_OBJECTS).filter_map(|key| {
            let object = self.objects.get(*key)?;
            let connection = matches!(object.channel, Kind::Tcp | Kind::Tls | Kind::GnuTls);
            let known = object.remote.version != 0 && object.remote.port != 0;
            let leg = object.legs[Direction::In as usize].and_then(|leg| self.transfers.get(leg))?;
            (connection && known && object.carries_tls.is_none() && leg.origin.is_none())
                .then(|| lone(arena, object, Direction::In, leg.id))
        });
        alone.max_by_key(|lone| lone.bytes)
    }
}
