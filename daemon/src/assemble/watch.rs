//! What can't wait for a transfer's end: differences while it is open, what the cipher witness
//! found, and what programs note about themselves.

use super::object::{Direction, Object};
use super::program::ArenaId;
use super::slab::Key;
use super::{Assembler, Suspect};
use crate::host::path_text;
use crate::judge::{self, Case, Finish};
use crate::judged::{Judged, What};
use crate::model::{Channel, Coverage, Range, Tap, Verdict};
use crate::surround::{Beginning, Seen};
use counterfoil_abi::BLOCK;
use counterfoil_abi::record::{self, About, Code, FOREIGN_BEHIND, Lost, Note, Touch, Written};

/// Ticks between two looks at a plain TCP difference that the kernel's counts don't settle yet.
const PATIENCE: u64 = 50;
/// Ranges told of at once, at most.
const MAX_RANGES: usize = 64;
/// Notes of one program that are passed on, at most.
const MAX_NOTES: u32 = 1000;
/// How functions begin is told ten times or so by each process.
const MAX_CODES: u32 = 100_000;

impl Assembler {
    /// Every lane was read since these differences were seen: no gap before them can turn up.
    pub(super) fn look_at_suspects(&mut self) {
        let tick = self.tick;
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.suspects).into_iter().partition(|&(at, _)| at <= tick);
        self.suspects = rest;
        for (_, suspect) in due {
            match suspect {
                Suspect::Cipher(key, direction) => self.say_cipher_of(key, direction),
                Suspect::Transfer(leg) => {
                    if !self.say_altered_while_open(leg) {
                        self.suspects.push((tick + PATIENCE, suspect));
                    }
                }
            }
        }
    }

    /// False: look again later.
    fn say_altered_while_open(&mut self, leg: Key) -> bool {
        let Some(transfer) = self.transfers.get(leg) else { return true };
        let (Some(from), Some(to)) = (transfer.origin, transfer.destination) else { return true };
        let (Some(origin), Some(destination)) = (self.objects.get(from), self.objects.get(to)) else {
            return true;
        };
        if origin.channel == record::Channel::Ssh || transfer.said || (origin.settled && destination.settled)
        {
            return true;
        }
        let by_path = origin.rival.is_some() && origin.channel == record::Channel::Unix;
        if by_path || origin.has_rival() || destination.has_rival() {
            // Another end may turn up, or has.
            return true;
        }
        let channel = origin.model_channel();
        let mut ends = [(origin, Direction::Out), (destination, Direction::In)]
            .map(|(o, d)| (self.end(o, d, u64::MAX), o, d));
        if channel == Channel::Tcp {
            for (end, object, direction) in &mut ends {
                if end.finish != Finish::Ended {
                    end.kernel = self.kernel_count(object, *direction);
                }
            }
            if ends.iter().any(|(end, ..)| end.kernel.is_none_or(|k| k > end.total + end.urgent)) {
                // Bytes of the running block are not told of yet, or bytes passed that no hook saw:
                // not to be known now.
                return false;
            }
        }
        let [(mut a, ..), (mut b, ..)] = ends;
        // Lengths are not final: only blocks can differ now.
        (a.finish, b.finish) = (Finish::Open, Finish::Open);
        let judgement =
            judge::judge(Case { channel, pair: &transfer.pair, origin: Some(&a), destination: Some(&b) });
        if judgement.verdict != Verdict::Altered || a.dropped || b.dropped {
            return true;
        }
        let mut altered = judgement.altered;
        altered.truncate(MAX_RANGES);
        let peer = self.process_at(destination, Direction::In);
        let Some(user) = origin.uses.first() else { return true };
        let (arena, by) = (user.arena, user.by[0]);
        if let Some(transfer) = self.transfers.get_mut(leg) {
            transfer.said = true;
        }
        let what = What::AlteredWhileOpen { channel, altered, peer };
        self.notice_about(arena, by, from, Direction::Out, what);
        true
    }

    /// What the kernel counts now, asked of whichever user still has the socket.
    fn kernel_count(&self, object: &Object, direction: Direction) -> Option<u64> {
        object.uses.iter().find_map(|user| {
            let pid = self.programs.get(&user.arena)?.pid(user.by[direction as usize]);
            let socket = self.settings.proc.socket(pid, user.fd)?;
            if Some(socket.inode) != object.inode {
                return None;
            }
            match direction {
                Direction::Out => socket.sent,
                Direction::In => socket.received,
            }
        })
    }

    /// Says what the cipher witness found about an object that has ended, if it found something.
    pub(super) fn say_cipher(&mut self, key: Key) {
        for direction in [Direction::Out, Direction::In] {
            self.say_cipher_of(key, direction);
            if let Some((altered, lacking)) = self.cipher_length(key, direction) {
                self.say_mismatch(key, direction, vec![altered], lacking);
            }
        }
    }

    /// Where program and cipher had streams of different lengths, though all of both was witnessed; and how much of
    /// what the program gave was never encrypted.
    fn cipher_length(&self, key: Key, direction: Direction) -> Option<(Range, u64)> {
        let object = self.objects.get(key)?;
        let [user] = &object.uses[..] else { return None };
        let whole = object.tls.as_ref().is_some_and(|t| t.wholly_witnessed())
            && user.finish == Some(Finish::Ended)
            && !self.programs.get(&user.arena)?.dropped
            && !object.cipher_said[direction as usize];
        let (pair, ended) = (object.cipher[direction as usize].as_ref()?, user.ended.as_ref()?);
        let both = pair.origin.kind.is_some() && pair.destination.kind.is_some();
        if !whole || !both || !pair.origin.gaps.is_empty() || !pair.destination.gaps.is_empty() {
            return None;
        }
        let (program, cipher) = match direction {
            Direction::Out => (ended.out_total, ended.seal_total),
            Direction::In => (ended.in_total, ended.open_total),
        };
        let differ = match direction {
            Direction::Out => cipher < program || cipher > program + ended.out_offered,
            // What the cipher opened and the program never read is no difference.
            Direction::In => program > cipher,
        };
        let (shorter, longer) = (program.min(cipher), program.max(cipher));
        let offset = shorter / BLOCK * BLOCK;
        let lacking = if direction == Direction::Out { program.saturating_sub(cipher) } else { 0 };
        (differ && cipher > 0).then_some((Range { offset, length: longer - offset }, lacking))
    }

    fn say_cipher_of(&mut self, key: Key, direction: Direction) {
        let Some(object) = self.objects.get_mut(key) else { return };
        let d = direction as usize;
        if object.cipher_said[d] {
            return;
        }
        let Some(pair) = &object.cipher[d] else { return };
        let differences = pair.proven_differences();
        if differences.is_empty() {
            return;
        }
        let total = object.total(direction);
        let mut altered: Vec<Range> = Vec::new();
        for block in differences {
            let (offset, end) = (block * BLOCK, (block + 1) * BLOCK);
            let length = if total > offset { end.min(total) - offset } else { BLOCK };
            let full = altered.len() >= MAX_RANGES;
            match altered.last_mut() {
                Some(last) if last.offset + last.length == offset => last.length += length,
                _ if full => break,
                _ => altered.push(Range { offset, length }),
            }
        }
        self.say_mismatch(key, direction, altered, 0);
    }

    fn say_mismatch(&mut self, key: Key, direction: Direction, altered: Vec<Range>, lacking: u64) {
        let Some(object) = self.objects.get_mut(key) else { return };
        object.cipher_said[direction as usize] = true;
        let Some(user) = object.uses.first() else { return };
        let (arena, by) = (user.arena, user.by[direction as usize]);
        let tap = match direction {
            Direction::Out => Tap::TlsWrite,
            Direction::In => Tap::TlsRead,
        };
        self.notice_about(arena, by, key, direction, What::CipherMismatch { tap, altered, lacking });
    }

    /// A program notes something about itself.
    pub(super) fn note(&mut self, arena: ArenaId, by: u32, note: &Note) {
        let text = &note.text[..usize::from(note.text_len).min(note.text.len())];
        let Some(program) = self.programs.get_mut(&arena) else { return };
        // Each fork tells how functions begin.
        let (notes, most) = match About::from_code(note.about) {
            Some(About::Code) => (&mut program.codes, MAX_CODES),
            _ => (&mut program.notes, MAX_NOTES),
        };
        *notes = notes.saturating_add(1);
        if *notes > most {
            return;
        }
        match About::from_code(note.about) {
            Some(About::ForeignHook) => {
                let text = path_text(text);
                let (symbol, object) = text.split_once(' ').unwrap_or((&text, ""));
                let family = match symbol {
                    s if s.starts_with("SSL_") || s.starts_with("BIO_") || s.starts_with("EVP_") => 0,
                    s if s.starts_with("gnutls_") => 1,
                    _ => 2,
                };
                // Behind ours it can change what passes, but not what we see of it: that the ends
                // differ then is just what is to be found.
                let before = note.code != FOREIGN_BEHIND;
                program.foreign[family] |= before;
                let (symbol, object) = (symbol.to_owned(), object.to_owned());
                self.notice(arena, by, What::ForeignHook { symbol, object, before });
            }
            Some(About::CoverageLost) => {
                let exe = path_text(text);
                let reason = Lost::from_code(note.code).map_or("unknown", Lost::word).to_owned();
                let inherits_tracked = !program.numbers.is_empty();
                self.out.push_back(Judged::Coverage(Coverage {
                    pid: note.number,
                    exe: Some(exe.clone()),
                    observed: false,
                    reason: Some(reason.clone()),
                }));
                self.notice(arena, by, What::CoverageLost { exe, reason, inherits_tracked });
            }
            Some(About::MemoryWrite) => {
                let (Some(how), Ok(written)) =
                    (Touch::from_code(note.code), bytemuck::try_pod_read_unaligned::<Written>(text))
                else {
                    return;
                };
                let writer = Box::new(program.process(by));
                let same_namespace = program.facts.nspid.len() <= 1;
                let target = note.number;
                self.see(Seen::Wrote { id: arena, writer, target, same_namespace, how, written });
            }
            Some(About::ImageLibraries) => {
                if let Some(gallery) = &mut self.gallery {
                    gallery.loaded(arena, note.number);
                }
            }
            Some(About::Code) => {
                let Some((code, path)) = text.split_at_checked(size_of::<Code>()) else { return };
                let code = bytemuck::pod_read_unaligned(code);
                let what = Beginning { path: path_text(path), code, build_id: note.code };
                let pid = program.pid(by);
                self.see(Seen::Begins { id: arena, pid, what });
            }
            Some(About::Exec) | None => {}
        }
    }
}
