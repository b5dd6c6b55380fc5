//! Two hosts' halves of one transfer, laid together.
//!
//! Comes in: transfers of two ledgers, each of which saw one end. Goes out: pairs. Called by `verify::plan` and
//! `commands::transfers`. The flow's id is the same at both ends of a TLS or TCP connection. A file transfer has its
//! own flow or that of the legs it went over; where several files went over one connection, the content tells which
//! is which, then the name, and a single one that is left on either side.
#![forbid(unsafe_code)]

use crate::model::{Channel, Tap, Transfer};
use crate::verify::bytes::Sha;
use crate::verify::checksums::unhex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use uuid::Uuid;

/// One of a transfer's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "DESIGN's words")]
pub enum Role {
    Origin,
    Destination,
}

impl Role {
    fn other(self) -> Self {
        match self {
            Self::Origin => Self::Destination,
            Self::Destination => Self::Origin,
        }
    }
}

/// The end that was observed of a transfer whose other end wasn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Half {
    /// The transfer.
    pub id: Uuid,
    /// Which end.
    pub role: Role,
    /// Connections that it went over.
    pub flows: Vec<String>,
    /// It is a file's.
    pub file: bool,
    /// Where it was observed.
    pub host: String,
    /// The file.
    pub path: Option<String>,
    /// Its SHA-256.
    pub sha256: Option<Sha>,
    /// The digest of a stream's tags.
    pub digest: Option<String>,
    /// Bytes that passed.
    pub bytes: u64,
}

impl Half {
    /// `host:path`, or the host alone.
    fn name(&self) -> String {
        match &self.path {
            Some(path) => format!("{}:{path}", self.host),
            None => self.host.clone(),
        }
    }

    fn file_name(&self) -> Option<&str> {
        self.path.as_deref().map(|p| p.rsplit('/').next().unwrap_or(p))
    }
}

/// Gathers halves from transfers.
#[derive(Default)]
pub struct Halves {
    flows: HashMap<Uuid, String>,
    found: Vec<(Half, Vec<Uuid>)>,
}

impl Halves {
    /// Looks at a transfer. `end`: take only halves of this end.
    pub fn take(&mut self, t: &Transfer, end: Option<Role>) {
        if let Some(flow) = &t.flow {
            self.flows.insert(t.id, flow.clone());
        }
        let (role, e, digest) = match (&t.origin, &t.destination) {
            (Some(e), None) => (Role::Origin, e, &t.origin_digest),
            (None, Some(e)) => (Role::Destination, e, &t.destination_digest),
            _ => return,
        };
        if (t.flow.is_none() && t.legs.is_empty()) || end.is_some_and(|wanted| wanted != role) {
            return;
        }
        let half = Half {
            id: t.id,
            role,
            flows: t.flow.iter().cloned().collect(),
            file: t.channel == Channel::File || matches!(e.tap, Tap::FileRead | Tap::FileWrite),
            host: e.host.clone(),
            path: e.path.clone(),
            sha256: e.sha256.as_ref().and_then(|s| unhex(s.as_bytes())),
            digest: digest.clone(),
            bytes: e.bytes,
        };
        self.found.push((half, t.legs.clone()));
    }

    /// All halves that have a flow.
    #[must_use]
    pub fn finish(self) -> Vec<Half> {
        let Self { flows, found } = self;
        let resolve = |(mut half, legs): (Half, Vec<Uuid>)| {
            half.flows.extend(legs.iter().filter_map(|leg| flows.get(leg).cloned()));
            half.flows.sort();
            half.flows.dedup();
            Some(half).filter(|h| !h.flows.is_empty())
        };
        found.into_iter().filter_map(resolve).collect()
    }
}

/// Two halves of one transfer; or one that has no other although they share its connection.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "as in verify::Side")]
pub struct Pair<'h> {
    pub a: Option<&'h Half>,
    pub b: Option<&'h Half>,
}

impl Pair<'_> {
    /// The same content. None: it can't be told.
    #[must_use]
    pub fn equal(&self) -> Option<bool> {
        let (a, b) = (self.a?, self.b?);
        match (a.sha256, b.sha256) {
            (Some(x), Some(y)) => Some(x == y),
            // Tags under one key are equal where the content is; under two keys they tell nothing.
            _ => (a.bytes == b.bytes && a.digest.is_some() && a.digest == b.digest).then_some(true),
        }
    }

    /// `origin → destination`.
    #[must_use]
    pub fn name(&self) -> String {
        let name = |h: Option<&Half>| h.map_or_else(|| "?".to_owned(), Half::name);
        let backwards = self
            .a
            .map_or_else(|| self.b.is_some_and(|b| b.role == Role::Origin), |a| a.role == Role::Destination);
        let (from, to) = if backwards { (self.b, self.a) } else { (self.a, self.b) };
        format!("{} → {}", name(from), name(to))
    }
}

/// Lays them together. False: they share no connection, so nothing can be said.
#[must_use]
pub fn pair<'h>(a: &'h [Half], b: &'h [Half]) -> (Vec<Pair<'h>>, bool) {
    let flows = |halves: &'h [Half]| halves.iter().flat_map(|h| &h.flows).collect::<BTreeSet<_>>();
    let (ours, theirs) = (flows(a), flows(b));
    let shared: BTreeSet<&String> = ours.intersection(&theirs).copied().collect();
    let on_shared = |h: &Half| h.flows.iter().any(|f| shared.contains(f));
    let mut left: Vec<&Half> = a.iter().filter(|h| on_shared(h)).collect();
    let mut right: Vec<Option<&Half>> = b.iter().filter(|h| on_shared(h)).map(Some).collect();
    let mut pairs = Vec::new();
    let by_content = |h: &Half| h.sha256.map(|s| Key::Content(h.file, s, h.file_name().map(str::to_owned)));
    let by_sha = |h: &Half| h.sha256.map(|s| Key::Content(h.file, s, None));
    let by_name = |h: &Half| h.file_name().map(|n| Key::Name(h.file, n.to_owned()));
    let by_kind = |h: &Half| Some(Key::Kind(h.file));
    round(&mut left, &mut right, &mut pairs, &by_content, false);
    round(&mut left, &mut right, &mut pairs, &by_sha, false);
    round(&mut left, &mut right, &mut pairs, &by_name, false);
    round(&mut left, &mut right, &mut pairs, &by_kind, true);
    pairs.extend(left.into_iter().map(|h| Pair { a: Some(h), b: None }));
    pairs.extend(right.into_iter().flatten().map(|h| Pair { a: None, b: Some(h) }));
    (pairs, !shared.is_empty())
}

/// By what two halves on one flow may belong together.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Content(bool, Sha, Option<String>),
    Name(bool, String),
    Kind(bool),
}

/// Pairs what has the same key. `single`: only where one alone is left on either side.
fn round<'h>(
    left: &mut Vec<&'h Half>,
    right: &mut [Option<&'h Half>],
    pairs: &mut Vec<Pair<'h>>,
    key: &dyn Fn(&Half) -> Option<Key>,
    single: bool,
) {
    let mut waiting: HashMap<(String, Role, Key), VecDeque<usize>> = HashMap::new();
    for (at, half) in right.iter().enumerate() {
        let Some((half, key)) = half.and_then(|h| Some((h, key(h)?))) else { continue };
        for flow in &half.flows {
            waiting.entry((flow.clone(), half.role, key.clone())).or_default().push_back(at);
        }
    }
    let mut count: HashMap<(String, Role, Key), u32> = HashMap::new();
    for half in left.iter().filter(|_| single) {
        let Some(key) = key(half) else { continue };
        for flow in &half.flows {
            *count.entry((flow.clone(), half.role.other(), key.clone())).or_default() += 1;
        }
    }
    left.retain(|half| {
        let Some(key) = key(half) else { return true };
        for flow in &half.flows {
            let place = (flow.clone(), half.role.other(), key.clone());
            let Some(list) = waiting.get_mut(&place) else { continue };
            if single && (list.len() > 1 || count.get(&place) != Some(&1)) {
                continue;
            }
            while let Some(at) = list.pop_front() {
                if let Some(other) = right[at].take() {
                    pairs.push(Pair { a: Some(half), b: Some(other) });
                    return false;
                }
            }
        }
        true
    });
}
