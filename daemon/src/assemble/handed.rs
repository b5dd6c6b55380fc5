//! Objects that were handed from one program image to the next one, by exec, or to another process, by SCM_RIGHTS.
//!
//! The library says of what the next one has, too. Is that one observed, it says hello and becomes a user of the object;
//! until then the object is not over. Is it not, nobody knows what it moved. Nor what those moved, and still do, whom a program
//! got it from.

use super::Assembler;
use super::finish::LOCAL_PATIENCE;
use super::object::{Direction, Object, Use};
use crate::host::facts::Inode;
use crate::judge::End;
use crate::model::Reason;
use counterfoil_abi::record::{self, Channel, How};

/// Inodes remembered of what programs that are not observed were started with. (A socket's is not used again.)
const MAX_HELD: usize = 4096;

impl Object {
    /// It was handed to a new program image that has not said hello, or not yet.
    pub fn awaits_heir(&self) -> bool {
        [Direction::Out, Direction::In].into_iter().any(|d| self.heirless(d))
    }

    fn heirless(&self, direction: Direction) -> bool {
        let handed = |u: &Use| u.flag(record::HANDED_ON) && u.may_move(direction);
        self.uses.iter().enumerate().any(|(i, u)| {
            // Another image that had it before, as who exec'd last had, is not this one's heir.
            let from = u.ended.filter(|e| e.how == How::Execed as u8).map_or(0, |e| e.header.time);
            let heir = |heir: &Use| heir.arena != u.arena && heir.may_move(direction) && heir.since >= from;
            handed(u) && !self.uses[i + 1..].iter().any(heir)
        })
    }

    /// Somebody has, or had, this direction of it whom nobody sees: another program image, which it was handed to.
    pub fn handed_unseen(&self, direction: Direction) -> bool {
        self.held_unseen || self.heirless(direction) || self.said_unseen(direction)
    }

    /// Who handed it to such a one said so.
    pub fn said_unseen(&self, direction: Direction) -> bool {
        self.uses.iter().any(|u| u.flag(record::HANDED_UNSEEN) && u.may_move(direction))
    }
}

impl Assembler {
    /// A program that is not observed was started with these.
    pub fn held_unseen(&mut self, held: &[Inode]) {
        for inode in held {
            if self.held_unseen.len() >= MAX_HELD {
                self.held_unseen.pop_front();
            }
            self.held_unseen.push_back(*inode);
            let object = self.by_inode.get(inode).and_then(|&key| self.objects.get_mut(key));
            // What else may have passed on others has no kernel's count, and accuses nobody.
            if let Some(object) = object.filter(|object| object.channel == Channel::Tcp) {
                object.held_unseen = true;
            }
        }
    }

    /// It was handed to another image whose hello may still come: that image's own start takes its time. One of which
    /// it is known that it says none is not waited for.
    pub(super) fn may_be_taken_over(&self, object: &Object) -> bool {
        let unseen = [Direction::Out, Direction::In].into_iter().any(|d| object.said_unseen(d));
        object.awaits_heir() && !unseen && !self.waited(object, LOCAL_PATIENCE)
    }
}

/// A program that nobody sees has, or had, an end, too: what it moved is not known, unless all that was sent arrived up to the
/// stream's end.
pub(super) fn held_unseen(
    origin: Option<&Object>,
    destination: Option<&Object>,
    from: &mut Option<End>,
    to: &mut Option<End>,
) {
    if let (Some(from), Some(to)) = (&from, &to)
        && from.total == to.total
        && to.eof
    {
        return;
    }
    for (object, direction, end) in [(origin, Direction::Out, from), (destination, Direction::In, to)] {
        let (Some(object), Some(end)) = (object, end) else { continue };
        if object.handed_unseen(direction) {
            end.doubts.push(Reason::HandedOver);
        }
        if object.uses.iter().any(|user| user.attached_late() && user.active(direction)) {
            end.doubts.push(Reason::AttachedLate);
        }
    }
}
