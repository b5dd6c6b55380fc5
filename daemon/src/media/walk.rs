//! From who read a media file to what came of it.
#![forbid(unsafe_code)]

use super::chain::{Chain, Made};
use super::changed::same_way;
use super::look::Ask;
use super::ordinary::approved;
use super::ran::{Code, Tool, base};
use super::told::{Link, Script};
use super::{ANSWERS, CAME_OUT, Doing, Gallery, SETTLE, Turn};
use crate::host::facts::Inode;
use crate::judged::{Judged, Notice, What};
use crate::model::{FileFact, ProcessName};
use crate::sensitive::lineage::{Lineage, Reach, Sending, World};
use crate::sensitive::origins::{Copy, Source};
use crate::sensitive::told::Step;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Shorter content proves nothing.
const LEAST: u32 = 48;
/// Files that one program made of one, looked at.
const OF_ONE: usize = 4;
/// Shorter names are in many texts.
const NAME: usize = 5;

/// A reading, as far as a walk needs it.
struct From {
    arena: u64,
    pid: u32,
    opened_as: String,
    since: u64,
    last: u64,
    source: Source,
    chain: Vec<Step>,
}

impl Gallery {
    /// Walks from every reading that counts.
    pub(super) fn walk(
        &mut self,
        now: u64,
        turn: Turn,
        lineage: &Lineage,
        world: &dyn World,
        out: &mut VecDeque<Judged>,
    ) {
        let starts = self.starts(now, lineage);
        for from in &starts {
            let said = self.said.entry(from.source.path.clone()).or_default();
            if said.since == 0 || from.since < said.since {
                said.since = from.since;
            }
            self.counted(from.arena, &from.source.path);
        }
        let starts: Vec<From> = self.without_other_files_of_tools(starts);
        let mut chains: BTreeMap<Arc<str>, Chain> = BTreeMap::new();
        for from in &starts {
            let mut chain = chains.remove(&from.source.path).unwrap_or_default();
            self.reading(&mut chain, from, now, lineage, world);
            chains.insert(from.source.path.clone(), chain);
        }
        for (root, mut chain) in chains {
            let from: Vec<&From> = starts.iter().filter(|f| f.source.path == root).collect();
            self.named_by_scripts(&mut chain, &root, &from, lineage);
            self.judge(root, chain, &from, now, turn, lineage, out);
        }
    }

    /// What a tool hides or takes out is not the medium, where it read one, too.
    fn without_other_files_of_tools(&self, starts: Vec<From>) -> Vec<From> {
        let media = |f: &From| {
            let class = self.said.get(&f.source.path).and_then(|said| said.class);
            class.is_some() || super::picture::named(&f.source.path)
        };
        let with_media: HashSet<u64> = starts.iter().filter(|f| media(f)).map(|f| f.arena).collect();
        starts.into_iter().filter(|f| media(f) || !with_media.contains(&f.arena)).collect()
    }

    fn starts(&self, now: u64, lineage: &Lineage) -> Vec<From> {
        let starts = self.origins.readings().filter(|(_, r)| r.sure).map(|(_, r)| {
            let mut chain = r.source.way.to_vec();
            chain.push(Step {
                at: lineage.at(r.since),
                did: "read",
                process: ProcessName { pid: r.pid, ..lineage.name(r.arena) },
                to: None,
                over: None,
                transfer: None,
                file: Some(r.opened_as.clone()),
            });
            let open = !r.open.is_empty() && !lineage.is_gone(r.arena);
            From {
                arena: r.arena,
                pid: r.pid,
                opened_as: r.opened_as.clone(),
                since: r.since,
                last: if open { now } else { r.last },
                source: r.source.clone(),
                chain,
            }
        });
        starts.collect()
    }

    /// What one program's reading of it adds to the chain.
    fn reading(&mut self, chain: &mut Chain, from: &From, now: u64, lineage: &Lineage, world: &dyn World) {
        chain.steps(from.chain.iter().cloned());
        chain.process = lineage.facts(from.arena).map(|f| f.process.clone());
        if let Some(process) = &mut chain.process {
            process.pid = from.pid;
        }
        let reached = lineage.reach(world, from.arena, from.since);
        let many = self.many(from.arena);
        if let Some(doing) = self.doing.get(&from.arena)
            && !approved(&self.settings(), doing)
        {
            self.tool(chain, doing);
            self.script_that_reads(chain, from, doing, many);
        }
        for reach in &reached {
            let wrote = self.files_of(from, reach, lineage);
            self.runs_of(chain, &wrote, reach.since, lineage);
            let made = wrote.into_iter().map(|(path, inode, _)| Made { path, inode, by: reach.arena });
            let pictures = made.filter(|m| super::picture::named(&m.path) || self.shots.wrote(m.inode));
            chain.made.extend(pictures.take(OF_ONE));
            let steps = || from.chain.iter().chain(&reach.steps).cloned();
            let Some(doing) = self.doing.get(&reach.arena) else { continue };
            if approved(&self.settings(), doing) {
                continue;
            }
            let piped = reach.steps.last().is_some_and(|step| step.over.is_some());
            if piped && matches!(doing.ran.code, Some(Code::Input)) {
                chain.link(Link::Output { path: None });
                chain.link(script(doing, CAME_OUT));
                chain.steps(steps());
            } else if piped && !many && self.unusual(doing) == Some(true) {
                chain.link(script(doing, "gets it on its standard input"));
                chain.steps(steps());
            }
            if many || self.many(reach.arena) {
                continue;
            }
            for sending in lineage.sendings(world, reach.arena) {
                let since = from.last.max(reach.since);
                if sending.grew >= reach.since && sending.grew <= since.saturating_add(self.window()) {
                    self.sent(chain, from, reach.arena, &sending, steps(), lineage);
                }
            }
        }
        if now.saturating_sub(from.since) > self.window() && from.source.way.is_empty() {
            self.known.retain(|_, root| *root != from.source.path);
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
        let derived = !from.source.way.is_empty();
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
        let proven = self.streams.iter().any(|(first, other)| {
            same_way(other, sending)
                && first.0 >= LEAST
                && self.known.get(first).is_some_and(|root| *root == from.source.path)
        });
        if !from.source.way.is_empty() {
            chain.link(Link::Output { path: Some(from.opened_as.clone()) });
        }
        let libraries = self.doing.get(&sender).map_or(0, |doing| doing.libraries);
        if sender == from.arena && libraries != 0 {
            chain.link(Link::Libraries { names: counterfoil_abi::images::names(libraries).collect() });
        }
        if !proven && let Some(link) = self.changed_on_the_way(&from.source.path, sending) {
            chain.link(link);
        }
        // Of one that is growing only the place where it goes is told.
        let mut connection = sending.connection.clone();
        (connection.bytes_out, connection.bytes_in) = (None, None);
        let (flow, transfer) = (sending.flow.clone(), sending.transfer);
        chain.link(Link::Socket { connection, flow, transfer, proven });
        chain.steps(steps);
        chain.steps([Step {
            at: lineage.at(sending.grew),
            did: "sent",
            process: ProcessName { pid: sending.process.pid, exe: sending.process.exe.clone() },
            to: None,
            over: None,
            transfer,
            file: None,
        }]);
        chain.process = Some(sending.process.clone());
    }

    /// What was written after the reading came of it.
    fn files_of(&mut self, from: &From, reach: &Reach, lineage: &Lineage) -> Vec<(String, Inode, Source)> {
        let mut all = Vec::new();
        for w in lineage.written(reach.arena).filter(|w| w.last >= reach.since) {
            let mut way: Vec<Step> = from.chain.iter().chain(&reach.steps).cloned().collect();
            way.push(Step {
                at: lineage.at(w.last),
                did: "wrote",
                process: lineage.name(reach.arena),
                to: None,
                over: None,
                transfer: None,
                file: Some(w.path.clone()),
            });
            let source = Source { way: way.into(), same: false, ..from.source.clone() };
            all.push((w.path.clone(), w.inode, source.clone()));
            let made = w.made && w.opened.saturating_add(1_000_000_000) >= reach.since;
            self.came_of(w.inode, Copy { source, written: w.last, made, modified: w.modified });
        }
        all
    }

    /// A file that came of it was run, as a script or as a program.
    fn runs_of(&self, chain: &mut Chain, wrote: &[(String, Inode, Source)], since: u64, lineage: &Lineage) {
        for (path, _, source) in wrote {
            let ran = self.doing.iter().filter(|(_, d)| {
                d.born >= since && (d.exe == *path || d.ran.script() == Some(path.as_str()))
            });
            for (&arena, doing) in ran {
                chain.link(Link::Output { path: Some(path.clone()) });
                chain.link(script(doing, CAME_OUT));
                chain.steps(source.way.iter().cloned());
                chain.steps([Step {
                    at: lineage.at(doing.born),
                    did: "ran",
                    process: lineage.name(arena),
                    to: None,
                    over: None,
                    transfer: None,
                    file: Some(path.clone()),
                }]);
                chain.process = lineage.facts(arena).map(|f| f.process.clone());
            }
        }
    }

    /// Scripts that get it as an argument, or name it.
    fn named_by_scripts(&mut self, chain: &mut Chain, root: &Arc<str>, from: &[&From], lineage: &Lineage) {
        let Some(since) = from.iter().map(|f| f.since).min() else { return };
        let until = from.iter().map(|f| f.last).max().unwrap_or(since).saturating_add(self.window());
        let earliest = since.saturating_sub(self.window());
        let near = |d: &Doing| {
            (earliest..=until).contains(&d.born) && d.ran.code.is_some() && !approved(&self.settings(), d)
        };
        let paths: Vec<&str> = from.iter().map(|f| f.opened_as.as_str()).chain([&**root]).collect();
        let mut asks = Vec::new();
        let mut found = Vec::new();
        for (&arena, doing) in self.doing.iter().filter(|(_, d)| near(d)) {
            let unusual = self.unusual(doing);
            if let Some(script) = doing.ran.script()
                && !self.scripts.contains_key(script)
                && let Some(user) = &doing.user
            {
                asks.push(Ask { path: script.to_owned(), inode: None, user: user.clone(), script: true });
            }
            if unusual != Some(true) || self.many(arena) {
                continue;
            }
            // A shell's inline code mostly is another program's way to start a third one.
            let script = doing.ran.script();
            if doing.ran.files.iter().any(|file| paths.contains(&file.as_str())) {
                found.push((arena, "gets it as an argument"));
            } else if let Some(Some(seen)) = script.and_then(|s| self.scripts.get(s))
                && paths.iter().any(|path| names(&seen.text, path))
            {
                found.push((arena, "names it"));
            }
        }
        for (arena, how) in found {
            if self.given_many(arena, root) {
                continue;
            }
            let Some(doing) = self.doing.get(&arena) else { continue };
            chain.link(script(doing, how));
            chain.steps([Step {
                at: lineage.at(doing.born),
                did: "ran",
                process: lineage.name(arena),
                to: None,
                over: None,
                transfer: None,
                file: Some(doing.ran.script().unwrap_or("code on its command line").to_owned()),
            }]);
        }
        for ask in asks {
            let path = ask.path.clone();
            if self.looker.ask(ask) {
                self.scripts.insert(path, None);
            }
        }
    }

    /// Says what there is to say, once it has settled.
    #[allow(clippy::too_many_arguments, reason = "one chain's facts")]
    fn judge(
        &mut self,
        root: Arc<str>,
        mut chain: Chain,
        from: &[&From],
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
    fn look_at(&mut self, root: &Arc<str>, from: &[&From], made: &[Made], many: bool) {
        let Some(said) = self.said.get_mut(root) else { return };
        let new: HashMap<&str, u64> = from
            .iter()
            .filter(|f| f.source.way.is_empty() || super::picture::named(&f.opened_as))
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

/// A text has the file's name, as a word of its own.
fn names(text: &[u8], path: &str) -> bool {
    let name = base(path).as_bytes();
    let word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    name.len() >= NAME
        && memchr::memmem::find_iter(text, name)
            .any(|at| !word(at.checked_sub(1).and_then(|i| text.get(i))) && !word(text.get(at + name.len())))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn whole_words() {
        assert!(names(b"open('cat.png')", "/tmp/cat.png") && names(b"cat.png", "cat.png"));
        assert!(
            !names(b"concat.png", "cat.png") && !names(b"cat.png2", "cat.png") && !names(b"a.py", "/x/a.py")
        );
    }
}
