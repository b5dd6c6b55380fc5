//! From who read a media file to what came of it.
#![forbid(unsafe_code)]

use super::chain::{Chain, Kind, Made};
use super::look::Ask;
use super::ordinary::approved;
use super::ran::{Code, Tool, base};
use super::round::From;
use super::told::{Link, Script};
use super::{ANSWERS, CAME_OUT, Doing, Gallery, SETTLE, Turn};
use crate::assemble::program::ArenaId;
use crate::judged::{Judged, Notice, What};
use crate::model::FileFact;
use crate::sensitive::lineage::{Asked, Lineage, Reach, Sending, Wrote};
use crate::sensitive::origins::{Copy, Source, WAY};
use crate::sensitive::told::Step;
use memchr::memmem::Finder;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// Shorter content proves nothing.
const LEAST: u32 = 48;
/// Files that one program made of one, looked at.
const OF_ONE: usize = 4;
/// Shorter names are in many texts.
const NAME: usize = 5;
/// Names of one picture and its copies that are looked for in scripts.
const NAMES: usize = 64;

/// Of what a program wrote, what was run, or is a picture.
pub(super) type Works = HashMap<ArenaId, Rc<[Wrote]>>;

impl Gallery {
    /// What one program's reading of it adds to the chain.
    pub(super) fn reading(
        &mut self,
        chain: &mut Chain,
        from: &From,
        lineage: &Lineage,
        asked: &mut Asked<'_>,
        works: &mut Works,
    ) {
        chain.steps(from.chain());
        chain.process = lineage.facts(from.arena).map(|f| f.process.clone());
        if let Some(process) = &mut chain.process {
            process.pid = from.pid;
        }
        let reached = lineage.reach(asked, from.arena, from.since);
        let many = self.many(from.arena);
        if let Some(doing) = self.doing.get(&from.arena)
            && !approved(&self.settings(), doing)
        {
            self.tool(chain, doing);
            self.script_that_reads(chain, from, doing, many);
        }
        for reach in &reached {
            let way = || from.chain().chain(lineage.steps(&reached, reach));
            self.files_of(from, reach, way, lineage, asked);
            self.works_of(chain, reach, way, lineage, works);
            let Some(doing) = self.doing.get(&reach.arena) else { continue };
            if approved(&self.settings(), doing) {
                continue;
            }
            if reach.piped() && matches!(doing.ran.code, Some(Code::Input)) {
                chain.link(Link::Output { path: None });
                chain.link(script(doing, CAME_OUT));
                chain.steps(way());
            } else if reach.piped() && !many && self.unusual(doing) == Some(true) {
                chain.link(script(doing, "gets it on its standard input"));
                chain.steps(way());
            }
            if many || self.many(reach.arena) {
                continue;
            }
            let until = from.last.max(reach.since).saturating_add(self.window());
            for sending in lineage.sendings(asked, reach.arena).iter() {
                if (reach.since..=until).contains(&sending.grew) {
                    self.sent(chain, from, reach.arena, sending, way(), lineage);
                }
            }
        }
    }

    fn tool(&self, chain: &mut Chain, doing: &Doing) {
        match doing.ran.tool {
            Some(Tool::Hides) => chain.tool(&doing.ran.name, true, false),
            Some(Tool::Metadata { payload }) => chain.tool(&doing.ran.name, payload, payload),
            Some(Tool::Converts) => chain.tool(&doing.ran.name, false, false),
            None => {}
        }
    }

    fn script_that_reads(&self, chain: &mut Chain, from: &From, doing: &Doing, many: bool) {
        if doing.ran.code.is_none() {
            return;
        }
        let derived = !from.own();
        if derived && doing.ran.script() == Some(from.opened_as.as_str()) {
            chain.link(Link::Output { path: Some(from.opened_as.clone()) });
            chain.link(script(doing, CAME_OUT));
        } else if !many && self.unusual(doing) == Some(true) {
            if derived {
                chain.link(Link::Output { path: Some(from.opened_as.clone()) });
            }
            chain.link(script(doing, "reads it"));
        }
    }

    fn sent(
        &self,
        chain: &mut Chain,
        from: &From,
        sender: u64,
        sending: &Sending,
        steps: impl Iterator<Item = Step>,
        lineage: &Lineage,
    ) {
        let proven = self.streams.get(sending).any(|first| {
            first.0 >= LEAST && self.known.get(&first).is_some_and(|(root, _)| *root == from.source.path)
        });
        let changed = if proven { None } else { self.changed_on_the_way(&from.source.path, sending) };
        // Enough is known of where it went.
        if chain.full(&Kind::Socket) && !proven && changed.is_none() {
            return;
        }
        if !from.own() {
            chain.link(Link::Output { path: Some(from.opened_as.clone()) });
        }
        let libraries = self.doing.get(&sender).map_or(0, |doing| doing.libraries);
        if sender == from.arena && libraries != 0 {
            chain.link(Link::Libraries { names: counterfoil_abi::images::names(libraries).collect() });
        }
        if let Some(link) = changed {
            chain.link(link);
        }
        // Of one that is growing only the place where it goes is told.
        let mut connection = sending.connection.clone();
        (connection.bytes_out, connection.bytes_in) = (None, None);
        let (flow, transfer) = (sending.flow.clone(), sending.transfer);
        chain.link(Link::Socket { connection, flow, transfer, proven });
        chain.steps(steps);
        chain.steps([lineage.sent_step(sending)]);
        chain.process = Some(sending.process.clone());
    }

    /// What was written after the reading came of it: whoever reads that, or runs it, goes on with the chain.
    fn files_of<S: Iterator<Item = Step>>(
        &mut self,
        from: &From,
        reach: &Reach,
        way: impl Fn() -> S,
        lineage: &Lineage,
        asked: &mut Asked<'_>,
    ) {
        // With the reading, and the writing.
        if from.source.way.len() + reach.depth + 2 > WAY {
            return;
        }
        let span = reach.since..asked.unseen(reach.arena, reach.since, 0);
        for w in lineage.written(reach.arena).filter(|w| span.contains(&w.last)) {
            if !self.origins.knows(w.inode, w.last, false) {
                let way = way().chain([lineage.wrote_step(w, reach.arena)]).collect();
                let source = Source { way, same: false, ..from.source.clone() };
                let made = w.made && w.opened.saturating_add(1_000_000_000) >= reach.since;
                self.came_of(
                    w.inode,
                    Copy { source, written: w.last, made, modified: w.modified, until: u64::MAX },
                );
            }
        }
    }

    /// Of those files the ones that were run, and the pictures.
    fn works_of<S: Iterator<Item = Step>>(
        &self,
        chain: &mut Chain,
        reach: &Reach,
        way: impl Fn() -> S,
        lineage: &Lineage,
        works: &mut Works,
    ) {
        let media = |w: &Wrote| super::picture::named(&w.path) || self.shots.wrote(w.inode);
        let work = |w: &&Wrote| self.runs.contains_key(&w.path) || media(w);
        let all = || lineage.written(reach.arena).filter(work).cloned().collect();
        let works = works.entry(reach.arena).or_insert_with(all).iter().filter(|w| w.last >= reach.since);
        let mut made = 0;
        for w in works {
            let way = || way().chain([lineage.wrote_step(w, reach.arena)]);
            self.runs_of(chain, &w.path, reach.since, way, lineage);
            if made < OF_ONE && media(w) {
                made += 1;
                chain.made(Made { path: w.path.clone(), inode: w.inode, by: reach.arena });
            }
        }
    }

    /// A file that came of it was run, as a script or as a program.
    fn runs_of<S: Iterator<Item = Step>>(
        &self,
        chain: &mut Chain,
        path: &str,
        since: u64,
        way: impl Fn() -> S,
        lineage: &Lineage,
    ) {
        let ran = self.runs.get(path).into_iter().flatten();
        let ran = ran.filter_map(|arena| self.doing.get(arena).map(|doing| (*arena, doing)));
        for (arena, doing) in ran.filter(|(_, doing)| doing.born >= since).take(OF_ONE) {
            chain.link(Link::Output { path: Some(path.to_owned()) });
            chain.link(script(doing, CAME_OUT));
            chain.steps(way());
            chain.steps([ran_step(arena, doing, path, lineage)]);
            chain.process = lineage.facts(arena).map(|f| f.process.clone());
        }
    }

    /// Scripts that get it as an argument, or name it.
    pub(super) fn named_by_scripts(
        &mut self,
        chain: &mut Chain,
        root: &Arc<str>,
        from: &[From],
        scripts: &[(u64, ArenaId)],
        lineage: &Lineage,
    ) {
        let Some(since) = from.iter().map(|f| f.since).min() else { return };
        let until = from.iter().map(|f| f.last).max().unwrap_or(since).saturating_add(self.window());
        let earliest = since.saturating_sub(self.window());
        let after = &scripts[scripts.partition_point(|(born, _)| *born < earliest)..];
        let near = &after[..after.partition_point(|(born, _)| *born <= until)];
        if near.is_empty() {
            return;
        }
        let mut paths: HashSet<&str> = HashSet::from([&**root]);
        for f in from {
            if paths.len() < NAMES {
                paths.insert(&f.opened_as);
            }
        }
        let words: HashSet<&str> = paths.iter().map(|path| base(path)).filter(|w| w.len() >= NAME).collect();
        let words: Vec<Finder<'_>> = words.into_iter().map(Finder::new).collect();
        let mut found = Vec::new();
        for (_, arena) in near {
            let Some(doing) = self.doing.get(arena) else { continue };
            // A shell's inline code mostly is another program's way to start a third one.
            let script = doing.ran.script();
            if doing.ran.files.iter().any(|file| paths.contains(file.as_str())) {
                found.push((*arena, "gets it as an argument"));
            } else if let Some(Some(seen)) = script.and_then(|s| self.scripts.get(s))
                && words.iter().any(|word| names(&seen.text, word))
            {
                found.push((*arena, "names it"));
            }
        }
        for (arena, how) in found {
            if self.given_many(arena, root) {
                continue;
            }
            let Some(doing) = self.doing.get(&arena) else { continue };
            chain.link(script(doing, how));
            let runs = doing.ran.script().unwrap_or("code on its command line");
            chain.steps([ran_step(arena, doing, runs, lineage)]);
        }
    }

    /// Says what there is to say, once it has settled.
    #[allow(clippy::too_many_arguments, reason = "one chain's facts")]
    pub(super) fn judge(
        &mut self,
        root: Arc<str>,
        mut chain: Chain,
        from: &[From],
        now: u64,
        turn: Turn,
        lineage: &Lineage,
        out: &mut VecDeque<Judged>,
    ) {
        let waited = now.saturating_sub(self.said.get(&root).map_or(now, |said| said.since));
        if waited < SETTLE && turn == Turn::Usual {
            return;
        }
        let many = from.iter().all(|f| self.many(f.arena));
        self.look_at(&root, from, &chain.made, many);
        for f in from {
            if let Some(Some(link)) = self.pictures.get(&f.opened_as) {
                chain.link(link.clone());
            }
        }
        let until = from.iter().map(|f| f.last).min().unwrap_or(now);
        let until = lineage.at(until).as_second().cast_unsigned();
        for Made { path, inode, .. } in std::mem::take(&mut chain.made) {
            if let Some(Some(link)) = self.pictures.get(&path) {
                chain.link(link.clone());
            }
            if let Some(link) = self.changed(&root, until, &path, inode) {
                chain.link(link);
            }
        }
        let answers = self.looker.waiting > 0 && waited < SETTLE + ANSWERS;
        if turn == Turn::Ask || turn == Turn::Usual && answers {
            return;
        }
        let kinds = chain.kinds();
        let window = self.window() / 1_000_000_000;
        let Some(said) = self.said.get_mut(&root) else { return };
        if kinds.is_subset(&said.said) {
            return;
        }
        let class = said.class.or_else(|| super::picture::named(&root).then_some(crate::model::Class::Media));
        let file = FileFact { path: Some(root.to_string()), label: None, sha256: None, class };
        let Some(told) = chain.told(file, window) else { return };
        said.said.extend(kinds);
        let socket = told.links.iter().find_map(|link| match link {
            Link::Socket { connection, flow, transfer, .. } => {
                Some((connection.clone(), flow.clone(), *transfer))
            }
            _ => None,
        });
        let (connection, flow, transfer) = socket.map_or((None, None, None), |(c, f, t)| (Some(c), f, t));
        out.push_back(Judged::Notice(Box::new(Notice {
            seen: told.seen,
            process: told.process.clone(),
            connection,
            flow,
            transfer,
            what: What::Media(Arc::new(told)),
        })));
    }

    /// Has the file looked at, and those that were made of it.
    fn look_at(&mut self, root: &Arc<str>, from: &[From], made: &[Made], many: bool) {
        let Some(said) = self.said.get_mut(root) else { return };
        let new: HashMap<&str, u64> = from
            .iter()
            .filter(|f| f.own() || super::picture::named(&f.opened_as))
            .map(|f| (f.opened_as.as_str(), f.arena))
            .chain(made.iter().map(|m| (m.path.as_str(), m.by)))
            .filter(|(path, _)| !self.pictures.contains_key(*path))
            .collect();
        if many || said.asked && new.is_empty() {
            return;
        }
        said.asked = true;
        let new: Vec<(String, u64)> = new.into_iter().map(|(path, arena)| (path.to_owned(), arena)).collect();
        for (path, arena) in new {
            let Some(user) = self.doing.get(&arena).and_then(|d| d.user.clone()) else { continue };
            if self.looker.ask(Ask { path: path.clone(), inode: None, user, script: false }) {
                self.pictures.insert(path, None);
            }
        }
    }
}

fn script(doing: &Doing, how: &'static str) -> Link {
    let runs = match &doing.ran.code {
        Some(Code::File(path)) => path.clone(),
        Some(Code::Inline) => "code on its command line".into(),
        Some(Code::Module(module)) => format!("the module {module}"),
        Some(Code::Input) => "its standard input".into(),
        None => doing.exe.clone(),
    };
    Link::Script(Script { interpreter: doing.ran.name.clone(), runs, how })
}

fn ran_step(arena: ArenaId, doing: &Doing, file: &str, lineage: &Lineage) -> Step {
    Step { file: Some(file.to_owned()), ..lineage.step(doing.born, "ran", arena) }
}

/// A text has the name, as a word of its own.
fn names(text: &[u8], name: &Finder<'_>) -> bool {
    let word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    name.find_iter(text).any(|at| {
        !word(at.checked_sub(1).and_then(|i| text.get(i))) && !word(text.get(at + name.needle().len()))
    })
}

#[cfg(test)]
mod tests {
    use super::{Finder, names};

    #[test]
    fn whole_words() {
        let finds = |text: &[u8], name| names(text, &Finder::new(name));
        assert!(finds(b"open('cat.png')", "cat.png") && finds(b"cat.png", "cat.png"));
        assert!(!finds(b"concat.png", "cat.png") && !finds(b"cat.png2", "cat.png"));
    }
}
