//! When is a transfer final, and what does `judge` get to see.

use super::handed::held_unseen;
use super::object::{Direction, Object, Proof};
use super::slab::Key;
use super::{Assembler, Transfer, join};
use crate::judge::{self, Case, End, Finish};
use crate::judged::Judged;
use crate::model::{Channel, Reason, Verdict};
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::record::{self, IN_EOF, NOTIFY_SEEN};

/// How often an unfinished thing is looked at again, nanoseconds.
const AGAIN: u64 = 100_000_000;
/// How much longer than usual an end waits whose other end must be on this host.
pub(super) const LOCAL_PATIENCE: u64 = 15;

impl Assembler {
    /// An object's uses have changed and every lane was read since, or it was to be looked at
    /// again: judges what is final, forgets what is done.
    pub(super) fn settle(&mut self, key: Key) {
        let now = self.patience;
        let Some(object) = self.objects.get_mut(key) else { return };
        if !object.ended() {
            object.settled = false;
            return;
        }
        // All is told by then; and whichever end settles last finds the other.
        if object.settled && (AGAIN..3 * AGAIN).contains(&now.saturating_sub(object.settled_at)) {
            self.join_in_order(key);
        }
        let Some(object) = self.objects.get_mut(key) else { return };
        let (legs, peer) = (object.legs, object.peer);
        if !object.settled {
            object.settled = true;
            object.settled_at = now;
            // It may have waited for this one.
            if let Some(peer) = peer.filter(|&p| self.objects.get(p).is_some_and(|p| p.settled)) {
                self.settle_soon(peer);
            }
        }
        let Some(object) = self.objects.get(key) else { return };
        if object.tls.is_some() && now.saturating_sub(object.settled_at) >= AGAIN {
            // It needs no other end, which may be long in coming.
            self.say_cipher(key);
        }
        self.read_last(key);
        for leg in legs.into_iter().flatten() {
            self.judge_if_final(leg);
        }
        let Some(object) = self.objects.get(key) else { return };
        let waits = object.legs.iter().flatten().any(|&leg| self.transfers.get(leg).is_some());
        if !waits && self.done_waiting(key) {
            self.say_cipher(key);
            self.say_tunnel(key);
            self.forget(key);
        } else if peer.and_then(|p| self.objects.get(p)).is_none_or(|p| p.settled) {
            // With a peer that has not ended, its end brings us back here.
            self.look_again(key);
        }
    }

    pub(super) fn look_again(&mut self, key: Key) {
        let at = self.now + AGAIN;
        if let Some(object) = self.objects.get_mut(key)
            && object.look_at == 0
        {
            object.look_at = at;
            self.later.insert((at, key));
        }
    }

    /// An object without transfers: a later `Opened` may still inherit it.
    fn done_waiting(&self, key: Key) -> bool {
        self.objects.get(key).is_some_and(|o| {
            // What was given to another image is not used yet: sshd's connections are. Who is at the other end may
            // know better than anybody how long that takes.
            let lives = o.peer.and_then(|p| self.objects.get(p)).is_some_and(|peer| !peer.ended());
            let used = match o.channel {
                record::Channel::Pipe => o.total(Direction::Out) > 0,
                record::Channel::Tcp | record::Channel::Unix => {
                    o.total(Direction::Out) > 0 || o.total(Direction::In) > 0
                }
                _ => true,
            };
            let heir = self.may_be_taken_over(o);
            (used && !heir || !lives && !heir && self.waited(o, 1)) && self.tunnel_is_done(o)
        })
    }

    pub(super) fn waited(&self, object: &Object, times: u64) -> bool {
        let patience = self.settings.peer_wait.as_nanos() as u64 * times;
        self.patience.saturating_sub(object.settled_at) >= patience
    }

    fn judge_if_final(&mut self, leg: Key) {
        let Some(transfer) = self.transfers.get(leg) else { return };
        let ends = [transfer.origin, transfer.destination].map(|k| k.and_then(|k| self.objects.get(k)));
        let is_final = match ends {
            [Some(origin), Some(destination)] => {
                let over = |o: &Object| o.settled && !self.may_be_taken_over(o);
                over(origin) && over(destination) && self.agree_or_waited(origin, destination)
            }
            [Some(one), None] | [None, Some(one)] => {
                let times = if join::local_peer(one) { LOCAL_PATIENCE } else { 1 };
                let over = one.settled && !self.may_be_taken_over(one);
                over && (one.peer.is_some() || one.disputed || self.waited(one, times))
            }
            [None, None] => true,
        };
        if is_final {
            self.judge(leg);
        }
    }

    /// The lengths agree; or nothing can come any more that would make them agree: another image that
    /// inherits a pipe, a fork that still has the socket.
    fn agree_or_waited(&self, origin: &Object, destination: &Object) -> bool {
        let (sent, received) = (origin.total(Direction::Out), destination.total(Direction::In));
        if sent == received {
            return true;
        }
        let shared = |o: &Object| {
            o.uses
                .iter()
                .any(|u| self.programs.get(&u.arena).is_some_and(|p| !p.gone && !p.children.is_empty()))
        };
        let pipe = origin.channel == counterfoil_abi::record::Channel::Pipe;
        if !pipe && !shared(origin) && !shared(destination) {
            return true;
        }
        self.waited(origin, 1) && self.waited(destination, 1)
    }

    /// Says the last word about a transfer.
    pub(super) fn judge(&mut self, leg: Key) {
        self.confirm(leg);
        let Some(mut transfer) = self.transfers.remove(leg) else { return };
        self.say_judged(&mut transfer);
        let Transfer { mut pair, origin, destination, .. } = transfer;
        pair.forget_waiting(&mut self.budget);
        for (key, direction) in [(origin, Direction::Out), (destination, Direction::In)] {
            let Some(object) = key.and_then(|k| self.objects.get_mut(k)) else { continue };
            object.legs[direction as usize] = None;
            if object.settled
                && let Some(key) = key
            {
                self.settle_soon(key);
            }
        }
    }

    fn say_judged(&mut self, transfer: &mut Transfer) {
        let origin = transfer.origin.and_then(|k| self.objects.get(k));
        let destination = transfer.destination.and_then(|k| self.objects.get(k));
        let Some(any) = origin.or(destination) else { return };
        if any.channel == record::Channel::Ssh {
            return self.say_between(transfer);
        }
        let channel = any.model_channel();
        let clip = tls_from(origin, destination);
        if clip != UNKNOWN {
            transfer.pair.ends_in_the_clear(clip);
        }
        let mut from = origin.map(|o| self.end(o, Direction::Out, clip));
        let mut to = destination.map(|o| self.end(o, Direction::In, clip));
        if channel == Channel::Pipe {
            (from, to) = pipe_ends(any, from, to);
        }
        let bytes = |end: &Option<End>| end.as_ref().map_or(0, |e| e.total);
        if bytes(&from) == 0 && bytes(&to) == 0 {
            return;
        }
        if (from.is_none() || to.is_none()) && outside(any, channel) {
            return;
        }
        overlap(origin, destination, &mut from, &mut to);
        held_unseen(origin, destination, &mut from, &mut to);
        let case = |from: &Option<End>, to: &Option<End>| {
            judge::judge(Case {
                channel,
                pair: &transfer.pair,
                origin: from.as_ref(),
                destination: to.as_ref(),
            })
        };
        let mut judgement = case(&from, &to);
        if judgement.verdict == Verdict::Altered && channel != Channel::Tls {
            // Who can't show that he has the socket, and could not have changed the other's bytes
            // anyway (another user), does not get that word about it.
            let strangers = !self.same_user(origin, destination);
            for (end, object) in [(&mut from, origin), (&mut to, destination)] {
                let unproven = object.is_some_and(|o| o.proof() < needed_proof(channel));
                if let (true, Some(end)) = (strangers && unproven, end) {
                    end.doubts.push(Reason::DisputedClaim);
                }
            }
            judgement = case(&from, &to);
        }
        if judgement.verdict == Verdict::Unverified && self.outlived([origin, destination]) {
            // What is missing went to the earlier daemon.
            for reason in judgement.reasons.iter_mut().filter(|r| **r == Reason::RecordsDropped) {
                *reason = Reason::DaemonRestarted;
            }
        }
        self.remember_gifts(transfer, &judgement);
        self.remember_sending(transfer);
        let said = self.outward(transfer, judgement, &from, &to);
        let crossing = self.crossing(transfer, [from.as_ref(), to.as_ref()], &said);
        self.lone(transfer, &said.0, crossing.as_ref());
        self.out.push_back(Judged::Transfer { transfer: Box::new(said.0), context: Box::new(said.1) });
        if let Some(crossing) = crossing {
            self.pass_on(crossing);
        }
    }

    /// Was one of the ends' programs there before this daemon, and lost nothing since?
    fn outlived(&self, ends: [Option<&Object>; 2]) -> bool {
        let users = ends.into_iter().flatten().flat_map(|o| &o.uses);
        users.filter_map(|u| self.programs.get(&u.arena)).any(|p| p.restarted && !p.dropped)
    }

    pub(super) fn same_user(&self, a: Option<&Object>, b: Option<&Object>) -> bool {
        let uid = |o: Option<&Object>| {
            let user = o?.uses.first()?;
            self.programs.get(&user.arena)?.facts.process.uid
        };
        uid(a).is_some() && uid(a) == uid(b)
    }

    /// What is known of one end.
    pub(super) fn end(&self, object: &Object, direction: Direction, clip: u64) -> End {
        let d = direction as usize;
        let furthest = object.uses.iter().max_by_key(|u| {
            u.ended.map(|e| match direction {
                Direction::Out => e.out_total,
                Direction::In => e.in_total,
            })
        });
        let total = object.total(direction);
        let (kernel, urgent) = furthest.map_or((None, 0), |u| u.counted(direction));
        let mut end = End {
            total,
            offered: match direction {
                Direction::Out => furthest.and_then(|u| u.ended).map_or(0, |e| e.out_offered),
                Direction::In => 0,
            },
            finish: object.finish(direction),
            eof: object
                .uses
                .iter()
                .filter_map(|u| u.ended)
                .any(|e| e.header.flags & (IN_EOF | NOTIFY_SEEN) != 0),
            kernel,
            urgent,
            watched: true,
            dropped: false,
            unseen: object.unseen(direction),
            doubts: Vec::new(),
        };
        for user in object.uses.iter().filter(|u| u.extent[d] > u.resumed[d] || object.uses.len() == 1) {
            if let Some(program) = self.programs.get(&user.arena) {
                end.watched &= program.watched;
                // Of an object that is older than this daemon, a gap may have gone to the last one.
                end.dropped |= program.dropped || program.restarted && object.opened < program.adopted_at;
            }
            if let Some(doubt) = self.program_doubt(user.arena, object.channel) {
                end.doubts.push(doubt);
            }
            if user.attached_late() && !user.moved_all(direction) {
                end.doubts.push(Reason::AttachedLate);
            }
        }
        if object.disputed {
            end.doubts.push(Reason::DisputedClaim);
        }
        if total > clip {
            // What the kernel counted beyond belongs to TLS: it agrees, or it does not, as a whole.
            let bypassed = end.kernel.is_some_and(|k| k > total + end.urgent);
            end.kernel = end.kernel.map(|_| if bypassed { u64::MAX } else { clip });
            (end.total, end.offered, end.finish, end.eof) = (clip, 0, Finish::Ended, true);
        }
        end
    }
}

/// From here on the connection carries a session, and is no transfer of its own.
pub(super) fn tls_from(origin: Option<&Object>, destination: Option<&Object>) -> u64 {
    let of = |o: Option<&Object>, d: Direction| {
        o.and_then(Object::session_from).map_or(UNKNOWN, |from| from[d as usize])
    };
    of(origin, Direction::Out).min(of(destination, Direction::In))
}

fn needed_proof(channel: Channel) -> Proof {
    if channel == Channel::Tcp { Proof::Full } else { Proof::Held }
}

/// It came from outside observation and belongs to whoever started this.
fn outside(object: &Object, channel: Channel) -> bool {
    let standard = object.uses.iter().all(|u| (0..=2).contains(&u.fd));
    object.from_outside() && (standard || matches!(channel, Channel::Pipe | Channel::Unix))
}

/// A pipe is one object: which of its ends were observed shows in who used it, and how.
fn pipe_ends(pipe: &Object, from: Option<End>, to: Option<End>) -> (Option<End>, Option<End>) {
    let observed = |direction: Direction, total: u64| {
        total > 0
            || pipe.uses.iter().any(|u| {
                u.access.is_some_and(|a| match direction {
                    Direction::Out => a.writes && !a.reads,
                    Direction::In => a.reads && !a.writes,
                })
            })
    };
    (from.filter(|e| observed(Direction::Out, e.total)), to.filter(|e| observed(Direction::In, e.total)))
}

/// Users who moved bytes at the same time: nobody knows whose bytes stand where.
fn overlap(
    origin: Option<&Object>,
    destination: Option<&Object>,
    from: &mut Option<End>,
    to: &mut Option<End>,
) {
    for (object, direction, end) in [(origin, Direction::Out, from), (destination, Direction::In, to)] {
        if let (Some(object), Some(end)) = (object, end)
            && object.overlap(direction).is_some()
        {
            end.doubts.push(Reason::SharedDescriptor);
        }
    }
}
