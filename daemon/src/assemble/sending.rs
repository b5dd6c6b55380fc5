//! What the trail of sensitive files wants to know of the tables: who gives bytes to whom, and who sends where.
#![forbid(unsafe_code)]

use super::gifts::Standing;
use super::object::{Direction, Object, Place, Use, known, place};
use super::outward::{connection, flow, text};
use super::pending::Value;
use super::program::{ArenaId, Program};
use super::slab::{Key, Slab};
use super::{Assembler, Transfer};
use crate::config::Media;
use crate::content::Content;
use crate::files::chains::Gift;
use crate::media::Gallery;
use crate::model;
use crate::sensitive::lineage::{Asked, Given, Sending, World};
use crate::sensitive::{Setup, Trail};
use counterfoil_abi::record::{self, Blocks, Body, Channel, Classed, Ended, Prints, Tap};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, RwLock};

/// Processes of one program that are asked what they hold: of a server with more, what was seen to pass counts.
const LIVING: usize = 128;
/// Objects of one program that are looked at.
const MAX_OBJECTS: usize = 4096;

/// Bytes pass on through this: not through a named socket, behind which a service works for many.
pub(super) fn passes(channel: model::Channel, named: bool) -> bool {
    channel == model::Channel::Pipe || channel == model::Channel::Unix && !named
}

/// A gift in fewer words.
pub(super) fn given(gift: &Gift) -> Given {
    Given {
        to: gift.to,
        transfer: gift.transfer,
        channel: gift.channel,
        started: gift.started,
        last: gift.last,
    }
}

/// It leads out, or may: to an address.
fn outward(object: &Object) -> bool {
    let kind = matches!(
        object.channel,
        Channel::Tcp | Channel::Tls | Channel::GnuTls | Channel::Ssh | Channel::Datagram
    );
    kind && object.remote.version != 0 && object.remote.port != 0
}

/// It was connected here: what an accepted connection is asked for is its own story.
fn connected(object: &Object) -> bool {
    let here = object.uses.iter().any(|u| u.flags & record::CONNECTED != 0);
    let client = object.tls.as_ref().is_some_and(|t| t.client);
    !object.accepted && (here || client || object.channel == Channel::Datagram)
}

/// One user's part of a connection.
fn sending(
    programs: &HashMap<ArenaId, Program>,
    transfers: &Slab<Transfer>,
    object: &Object,
    user: &Use,
) -> Option<Sending> {
    let d = Direction::Out as usize;
    let program = programs.get(&user.arena)?;
    let transfer = object.legs[d].and_then(|leg| transfers.get(leg)).map(|t| t.id);
    Some(Sending {
        process: program.process(user.by[d]),
        connection: connection(object, Direction::Out),
        flow: flow(object),
        transfer,
        opened: object.opened,
        grew: user.grew[d],
        bytes: user.total(Direction::Out).saturating_sub(user.resumed[d]),
    })
}

/// The same for each destination of datagrams.
fn sendings(
    programs: &HashMap<ArenaId, Program>,
    transfers: &Slab<Transfer>,
    object: &Object,
    user: &Use,
) -> Vec<Sending> {
    let Some(one) = sending(programs, transfers, object, user) else { return Vec::new() };
    let Some(all) = &object.datagrams else { return vec![one] };
    let going = all.to.iter().filter(|going| going.remote.version != 0 && going.remote.port != 0);
    going
        .map(|going| {
            let mut one = Sending { grew: going.grew, bytes: going.moved[0], ..one.clone() };
            one.connection.remote = text(&going.remote);
            (one.connection.bytes_out, one.connection.bytes_in) =
                (Some(going.moved[0]), Some(going.moved[1]));
            one
        })
        .collect()
}

/// It was answered, and what it had asked was not seen: programs that pass libc by when they send datagrams (libuv) hear
/// what they get as others do.
fn answered(object: &Object, user: &Use) -> bool {
    object.channel == Channel::Datagram
        && user.flags & record::CONNECTED != 0
        && user.active(Direction::In)
        && !user.active(Direction::Out)
}

impl Standing<'_> {
    /// A gift over what is open, if more may still pass. Forks hold what their program had open, and nobody sees them let it
    /// go: sshd's listener has a pipe from each login, which the login has long closed. The kernel knows.
    fn standing(&self, leg: Key, mut gift: Gift) -> Option<Gift> {
        let transfer = self.transfers.get(leg)?;
        let end = |key: Option<Key>| key.and_then(|key| self.objects.get(key));
        let (origin, destination) = (end(transfer.origin)?, end(transfer.destination)?);
        if !self.held(gift.from, origin) || !self.held(gift.to, destination) {
            gift.last = origin.last.max(destination.last);
        }
        (gift.last == u64::MAX || gift.bytes > 0).then_some(gift)
    }

    /// Does the program, or a fork of it, still have that open? What can't be found out may be.
    fn held(&self, arena: ArenaId, object: &Object) -> bool {
        let (Some(program), Some(inode)) = (self.programs.get(&arena), object.inode) else { return true };
        let pids = self.living(arena, program);
        if pids.len() > LIVING {
            return false;
        }
        let fds = || object.uses.iter().filter(|u| u.arena == arena && u.fd >= 0).map(|u| u.fd);
        // Mostly it is where it was.
        pids.iter().any(|&pid| fds().any(|fd| self.proc.descriptor(pid, fd) == Some(inode)))
            || pids.iter().any(|&pid| self.proc.holds(pid, inode).unwrap_or(self.proc.thread_lives(pid, pid)))
    }

    /// A program's process, and those of its forks that live.
    fn living(&self, arena: ArenaId, program: &Program) -> Rc<[u32]> {
        let lives = |pid: &u32| self.proc.thread_lives(*pid, *pid);
        let forks = || program.children.values().map(|fork| fork.pid).filter(lives);
        let pids = || std::iter::once(program.pid(0)).chain(forks()).take(LIVING + 1).collect();
        self.living.borrow_mut().entry(arena).or_insert_with(pids).clone()
    }
}

impl World for Standing<'_> {
    fn given(&self, from: ArenaId) -> Vec<Given> {
        let Some(program) = self.programs.get(&from) else { return Vec::new() };
        let mut legs: HashSet<Key> = HashSet::new();
        for key in program.numbers.values().take(MAX_OBJECTS) {
            let object = self.objects.get(*key);
            let passes = object.filter(|o| passes(o.model_channel(), !o.path.is_empty()));
            legs.extend(passes.and_then(|o| o.legs[Direction::Out as usize]));
        }
        let of = |leg| self.gifts_over(leg, None).into_iter().filter_map(move |g| self.standing(leg, g));
        legs.into_iter().flat_map(of).filter(|g| g.from == from).map(|g| given(&g)).collect()
    }

    fn sendings(&self, from: ArenaId) -> Vec<Sending> {
        let Some(program) = self.programs.get(&from) else { return Vec::new() };
        let keys: HashSet<Key> = program.numbers.values().take(MAX_OBJECTS).copied().collect();
        let objects = keys.into_iter().filter_map(|key| self.objects.get(key));
        let uses = objects.filter(|o| outward(o) && connected(o)).flat_map(|o| {
            let sends = move |u: &&Use| u.arena == from && (u.active(Direction::Out) || answered(o, u));
            o.uses.iter().filter(sends).map(move |u| (o, u))
        });
        uses.flat_map(|(o, u)| sendings(self.programs, self.transfers, o, u)).collect()
    }
}

impl Assembler {
    /// Fingerprints of what is sent.
    pub(super) fn printed(&mut self, arena: ArenaId, number: u32, key: Key, prints: &Prints) {
        let Some(trail) = &mut self.trail else { return };
        let Some(object) = self.objects.get(key).filter(|o| outward(o)) else { return };
        let at = Tap::from_code(prints.header.tap).and_then(|tap| place(object.channel, tap));
        if at != Some(Place::Stream(Direction::Out)) {
            return;
        }
        let (programs, transfers) = (&self.programs, &self.transfers);
        trail.printed((arena, number), prints, || {
            let user = object.uses.iter().find(|u| u.arena == arena && u.number == number)?;
            sending(programs, transfers, object, user)
        });
    }

    /// A connection on which no hook saw a byte was sent on: the kernel says so. (libc sends what went through stdio.)
    pub(super) fn sent_unseen(&mut self, arena: ArenaId, number: u32, key: Key, ended: &Ended) {
        let Some(trail) = &mut self.trail else { return };
        let Some(object) = self.objects.get(key) else { return };
        if let Some(user) = object.uses.iter().find(|u| u.arena == arena && u.number == number)
            && answered(object, user)
            && outward(object)
            && let Some(mut sending) = sending(&self.programs, &self.transfers, object, user)
        {
            sending.grew = ended.header.time;
            sending.connection.bytes_out = None;
            trail.sent(arena, sending);
            return;
        }
        if object.channel != Channel::Tcp {
            return;
        }
        let sent = known(ended.kernel_out).filter(|&sent| sent > 0 && ended.out_total == 0);
        if let Some(bytes) = sent
            && outward(object)
            && connected(object)
            && let Some(user) = object.uses.iter().find(|u| u.arena == arena && u.number == number)
            && let Some(sending) = sending(&self.programs, &self.transfers, object, user)
        {
            let mut sending = Sending { bytes, grew: ended.header.time, ..sending };
            sending.connection.bytes_out = Some(bytes);
            trail.sent(arena, sending);
        }
    }

    /// A transfer is over: who sent on that connection is remembered for what may be found later.
    pub(super) fn remember_sending(&mut self, transfer: &Transfer) {
        let Some(trail) = &mut self.trail else { return };
        let Some(object) = transfer.origin.and_then(|k| self.objects.get(k)) else { return };
        if !outward(object) || !connected(object) {
            return;
        }
        for user in object.uses.iter().filter(|u| u.active(Direction::Out)) {
            for mut sending in sendings(&self.programs, &self.transfers, object, user) {
                sending.transfer = Some(transfer.id);
                trail.sent(user.arena, sending);
            }
        }
    }

    /// The first block of what is sent, or its beginning, has a tag.
    pub(super) fn began(&mut self, arena: ArenaId, number: u32, key: Key, blocks: &Blocks) {
        let Some(object) = self.objects.get(key).filter(|o| outward(o)) else { return };
        let at = Tap::from_code(blocks.header.tap).and_then(|tap| place(object.channel, tap));
        if at == Some(Place::Stream(Direction::Out)) {
            let (length, value) = super::apply::first(blocks);
            self.sent_first((arena, number), key, length, value, blocks.header.time);
        }
    }

    /// A block of what an HTTP message carries.
    pub(super) fn bodied(&mut self, arena: ArenaId, number: u32, key: Key, body: &Body) {
        let Some(object) = self.objects.get(key).filter(|o| outward(o) && body.offset == 0) else { return };
        let at = Tap::from_code(body.header.tap).and_then(|tap| place(object.channel, tap));
        if at == Some(Place::Stream(Direction::Out)) {
            self.sent_first(
                (arena, number),
                key,
                body.length,
                super::apply::body_tag(body),
                body.header.time,
            );
        }
    }

    /// What is sent is a picture, and how large it is.
    pub(super) fn pictured(&mut self, arena: ArenaId, number: u32, key: Key, classed: &Classed) {
        let Some(gallery) = &mut self.gallery else { return };
        let Some(Content { magic: Some(format), size: Some(size), .. }) = Content::of(classed) else {
            return;
        };
        let Some(object) = self.objects.get(key).filter(|o| outward(o)) else { return };
        let at = Tap::from_code(classed.header.tap).and_then(|tap| place(object.channel, tap));
        if at != Some(Place::Stream(Direction::Out)) {
            return;
        }
        let (programs, transfers) = (&self.programs, &self.transfers);
        gallery.sent_picture(format, size, || {
            let user = object.uses.iter().find(|u| u.arena == arena && u.number == number)?;
            sending(programs, transfers, object, user)
        });
    }

    fn sent_first(
        &mut self,
        (arena, number): (ArenaId, u32),
        key: Key,
        length: u32,
        value: Value,
        time: u64,
    ) {
        let Some(trail) = &mut self.trail else { return };
        let Some(object) = self.objects.get_mut(key) else { return };
        let Some(at) = object.uses.iter().position(|u| u.arena == arena && u.number == number) else {
            return;
        };
        if object.uses[at].has_begun(length, value, time) {
            return;
        }
        let Some(who) = sending(&self.programs, &self.transfers, object, &object.uses[at]) else { return };
        object.uses[at].began = Some((length, value, time));
        trail.sent_first(length, value, &who, &mut self.out);
        if let Some(gallery) = &mut self.gallery {
            gallery.sent_first(length, value, &who);
        }
    }

    /// Sensitive files are followed.
    pub fn follow(&mut self, setup: &Setup) {
        self.files.followed();
        self.trail = Some(Trail::new(setup, self.settings.proc.clone(), self.settings.clock_offset));
    }

    /// Media files are followed, too: by the same lineage.
    ///
    /// # Errors
    /// No thread.
    pub fn follow_media(&mut self, media: Arc<RwLock<Media>>) -> std::io::Result<()> {
        self.gallery = Some(Gallery::new(media)?);
        Ok(())
    }

    /// Programs that are to be looked at closely from now on, and those that are not any more.
    pub fn turned(&mut self) -> Vec<(ArenaId, bool)> {
        self.trail.as_mut().map(|trail| std::mem::take(&mut trail.turned)).unwrap_or_default()
    }

    /// It has to do with sensitive files.
    #[must_use]
    pub fn is_turned_up(&self, arena: ArenaId) -> bool {
        self.trail.as_ref().is_some_and(|trail| trail.is_up(arena))
    }

    /// Its streams are tagged whatever it does.
    #[must_use]
    pub fn is_watched(&self, arena: ArenaId) -> bool {
        self.programs.get(&arena).is_some_and(|p| p.watched)
    }

    /// Observation ends: looks once more where sensitive files went.
    pub(super) fn follow_to_the_end(&mut self) {
        let Some(mut trail) = self.trail.take() else { return };
        for closed in self.files.closed.drain(..) {
            if let Some(gallery) = &mut self.gallery {
                gallery.closed(&closed);
            }
            trail.closed(closed);
        }
        let standing = Standing::of(
            (&self.programs, &self.objects, &self.transfers),
            &self.passages,
            &self.relays,
            &*self.settings.proc,
        );
        let mut asked = Asked::new(&standing);
        trail.finish(&mut asked, &mut self.out);
        if let Some(gallery) = &mut self.gallery {
            gallery.finish(self.now, trail.lineage(), &mut asked, &mut self.out);
        }
        self.trail = Some(trail);
    }
}
