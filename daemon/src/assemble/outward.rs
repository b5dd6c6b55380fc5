//! From tables to the outward objects: transfers, endpoints, who an alarm is about.

use super::manifest::Manifest;
use super::object::{Direction, Object, Use};
use super::program::ArenaId;
use super::slab::Key;
use super::{Assembler, Transfer};
use crate::host::path_text;
use crate::judge::{End, Judgement};
use crate::judged::{Context, Judged, Notice, What};
use crate::model::{self, Bytes, Class, Connection, Endpoint, Process, ProcessName};
use counterfoil_abi::BLOCK;
use counterfoil_abi::record::Address;
use jiff::Timestamp;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `ip:port`, as people write it.
pub fn text(address: &Address) -> Option<String> {
    let ip: IpAddr = match address.version {
        4 => Ipv4Addr::new(address.ip[0], address.ip[1], address.ip[2], address.ip[3]).into(),
        6 => Ipv6Addr::from(address.ip).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, address.port).to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One flow id for both directions of a TCP connection: its two addresses, the lesser first.
fn address_flow(a: &Address, b: &Address) -> Option<String> {
    use sha2::{Digest, Sha256};
    let (a, b) = (text(a)?, text(b)?);
    let (first, second) = if a <= b { (a, b) } else { (b, a) };
    Some(hex(&Sha256::digest(format!("{first} {second}"))[..16]))
}

/// Who first moved bytes in a direction; else who was given that end; else who came first.
fn first_user(object: &Object, direction: Direction) -> Option<&Use> {
    let suits = |u: &&Use| {
        u.access.is_some_and(|a| match direction {
            Direction::Out => a.writes && !a.reads,
            Direction::In => a.reads && !a.writes,
        })
    };
    let active = object.uses.iter().find(|u| u.active(direction));
    active.or_else(|| object.uses.iter().find(suits)).or(object.uses.first())
}

/// What kind of content went from one to the other: as it was written, else as it was read.
fn class(origin: Option<&Object>, destination: Option<&Object>) -> Option<Class> {
    let ends = || {
        [(origin, Direction::Out), (destination, Direction::In)]
            .into_iter()
            .filter_map(|(o, d)| Some((o?, d)))
    };
    let known = ends().find_map(|(object, direction)| object.content[direction as usize]);
    let nothing = || ends().all(|(object, direction)| object.total(direction) == 0);
    known.map(|content| content.class).or_else(|| nothing().then_some(Class::Empty))
}

/// Something else of the same length and kind arrived: no block of it is the same.
fn replaced(transfer: &Transfer, ends: [Option<&End>; 2], objects: [Option<&Object>; 2]) -> bool {
    let ([Some(sent), Some(arrived)], [Some(origin), Some(destination)]) = (ends, objects) else {
        return false;
    };
    let classes = (origin.content[Direction::Out as usize], destination.content[Direction::In as usize]);
    let one_kind = matches!(classes, (Some(a), Some(b)) if a.class == b.class);
    let pair = &transfer.pair;
    one_kind
        && sent.total == arrived.total
        && sent.total >= 2 * BLOCK
        && pair.same.is_empty()
        && pair.same_partial.is_none()
        && pair.differs.count_below(sent.total / BLOCK) == sent.total / BLOCK
}

impl Assembler {
    /// The realtime of a monotonic moment that a record tells; a liar's is brought into bounds.
    pub(super) fn timestamp(&self, monotonic: u64) -> Timestamp {
        let at = i128::from(monotonic.min(self.now)) + self.settings.clock_offset;
        Timestamp::from_nanosecond(at).unwrap_or_default()
    }

    /// A transfer, and who was at its ends.
    pub(super) fn outward(
        &self,
        transfer: &Transfer,
        judgement: Judgement,
        from: &Option<End>,
        to: &Option<End>,
    ) -> (model::Transfer, Context) {
        let origin = transfer.origin.and_then(|k| self.objects.get(k)).filter(|_| from.is_some());
        let destination = transfer.destination.and_then(|k| self.objects.get(k)).filter(|_| to.is_some());
        let times = || origin.into_iter().chain(destination);
        let started = times().map(|o| o.opened).min().unwrap_or(self.now);
        let ended = times().map(|o| o.last).max().unwrap_or(self.now);
        let side = |object: Option<&Object>, end: &Option<End>, manifest: &Manifest, direction| {
            let (object, end) = (object?, end.as_ref()?);
            self.endpoint(object, direction, end, manifest)
        };
        let manifests = (&transfer.pair.origin, &transfer.pair.destination);
        let judgement_altered = judgement.verdict == model::Verdict::Altered;
        let outward = model::Transfer {
            id: transfer.id,
            verdict: judgement.verdict,
            reasons: judgement.reasons,
            channel: origin.or(destination).map_or(model::Channel::Tcp, Object::model_channel),
            flow: self.flow_text(origin.or(destination)),
            assurance: judgement.assurance,
            class: class(origin, destination),
            bytes: Bytes {
                origin: from.as_ref().map(|e| e.total),
                destination: to.as_ref().map(|e| e.total),
            },
            altered: judgement.altered,
            origin: side(origin, from, manifests.0, Direction::Out),
            destination: side(destination, to, manifests.1, Direction::In),
            legs: Vec::new(),
            started: self.timestamp(started.min(ended)),
            ended: self.timestamp(ended),
            strip: judgement.strip,
            origin_digest: from.as_ref().and_then(|e| manifests.0.digest(e.total)),
            destination_digest: to.as_ref().and_then(|e| manifests.1.digest(e.total)),
        };
        let replaced =
            judgement_altered && replaced(transfer, [from.as_ref(), to.as_ref()], [origin, destination]);
        let context = Context {
            replaced,
            origin: origin.and_then(|o| self.process_at(o, Direction::Out)),
            destination: destination.and_then(|o| self.process_at(o, Direction::In)),
            connection: match (origin, destination) {
                (Some(o), _) => Some(self.connection(o, Direction::Out)),
                (None, Some(o)) => Some(self.connection(o, Direction::In)),
                (None, None) => None,
            },
            ..Context::default()
        };
        (outward, context)
    }

    pub(super) fn flow_text(&self, object: Option<&Object>) -> Option<String> {
        flow(object?)
    }

    fn endpoint(
        &self,
        object: &Object,
        direction: Direction,
        end: &End,
        manifest: &Manifest,
    ) -> Option<Endpoint> {
        let first = first_user(object, direction)?;
        let process = self.process(first.arena, first.by[direction as usize])?;
        let mut also: Vec<ProcessName> = Vec::new();
        for user in object.uses.iter().filter(|u| u.active(direction)).take(64) {
            let Some(p) = self.process(user.arena, user.by[direction as usize]) else { continue };
            let name = ProcessName { pid: p.pid, exe: p.exe };
            if name.pid != process.pid && !also.contains(&name) {
                also.push(name);
            }
        }
        Some(Endpoint {
            host: self.settings.hostname.clone(),
            tap: object.tap(direction),
            pid: process.pid,
            exe: process.exe,
            argv: process.argv,
            uid: process.uid,
            parent: process.parents.into_iter().next(),
            local: text(&object.local),
            remote: text(&object.remote),
            path: (!object.path.is_empty()).then(|| path_name(&object.path)),
            sha256: None,
            bytes: end.total,
            witnessed: manifest.witnessed(end.total),
            offered: end.offered,
            also,
        })
    }

    pub(super) fn process(&self, arena: ArenaId, by: u32) -> Option<Process> {
        self.programs.get(&arena).map(|p| p.process(by))
    }

    /// Who an alarm about this end is about.
    pub(super) fn process_at(&self, object: &Object, direction: Direction) -> Option<Process> {
        let first = first_user(object, direction)?;
        self.process(first.arena, first.by[direction as usize])
    }

    /// The connection as this end's process sees it.
    pub(super) fn connection(&self, object: &Object, direction: Direction) -> Connection {
        connection(object, direction)
    }

    /// Something about a program.
    pub(super) fn notice(&mut self, arena: ArenaId, by: u32, what: What) {
        let notice = Notice {
            seen: self.timestamp(self.now),
            process: self.process(arena, by),
            connection: None,
            flow: None,
            transfer: None,
            what,
        };
        self.out.push_back(Judged::Notice(Box::new(notice)));
    }

    /// Something about a direction of an object.
    pub(super) fn notice_about(
        &mut self,
        arena: ArenaId,
        by: u32,
        key: Key,
        direction: Direction,
        what: What,
    ) {
        let Some(object) = self.objects.get(key) else { return };
        let leg = object.legs[direction as usize];
        let transfer = leg.and_then(|l| self.transfers.get(l)).map(|t| t.id);
        self.notice_of(arena, by, key, direction, transfer, what);
    }

    /// [`Self::notice_about`], of a transfer that is not the object's own.
    pub(super) fn notice_of(
        &mut self,
        arena: ArenaId,
        by: u32,
        key: Key,
        direction: Direction,
        transfer: Option<uuid::Uuid>,
        what: What,
    ) {
        let Some(object) = self.objects.get(key) else { return };
        let notice = Notice {
            seen: self.timestamp(self.now),
            process: self.process(arena, by),
            connection: Some(self.connection(object, direction)),
            flow: self.flow_text(Some(object)),
            transfer,
            what,
        };
        self.out.push_back(Judged::Notice(Box::new(notice)));
    }
}

/// The connection as this end's process sees it.
pub(super) fn connection(object: &Object, direction: Direction) -> Connection {
    let text_of = |direction| match direction {
        Direction::Out => "out",
        Direction::In => "in",
    };
    Connection {
        local: text(&object.local),
        remote: text(&object.remote),
        direction: Some(text_of(direction).into()),
        server_name: object.tls.as_ref().and_then(|t| t.name.clone()),
        bytes_out: Some(object.total(Direction::Out)),
        bytes_in: Some(object.total(Direction::In)),
    }
}

/// Its flow id.
pub(super) fn flow(object: &Object) -> Option<String> {
    match (&object.tls, object.model_channel()) {
        (Some(tls), _) => Some(hex(&tls.flow)),
        (None, model::Channel::Tcp) => address_flow(&object.local, &object.remote),
        _ => None,
    }
}

/// A Unix socket's path; an abstract one is written with `@`.
fn path_name(path: &[u8]) -> String {
    match path.strip_prefix(b"\0") {
        Some(name) => format!("@{}", path_text(name)),
        None => path_text(path),
    }
}
