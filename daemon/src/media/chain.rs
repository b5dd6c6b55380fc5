//! One media file's chain: which links there are, which rule that is, how bad.
//!
//! Comes in: links and steps as they are found, in any order. Goes out: a [`MediaChain`], where there is something to say.
#![forbid(unsafe_code)]

use super::told::{Link, MediaChain};
use crate::host::facts::Inode;
use crate::model::{FileFact, Process, Severity};
use crate::sensitive::told::Step;
use std::collections::BTreeSet;

/// Steps that an alarm shows.
const STEPS: usize = 64;
/// Media files made of one that are looked at.
const MADE: usize = 64;
/// Links of one kind that an alarm shows.
const OF_A_KIND: usize = 8;

/// What is known of one media file at this moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    links: Vec<Link>,
    /// A tool whose work is ordinary: it counts where more follows.
    mild: Option<String>,
    steps: Vec<Step>,
    /// Media files that were made of it, and by whom.
    pub made: Vec<Made>,
    /// Who did what was found last.
    pub process: Option<Process>,
}

/// A file that was made of it.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// Its name.
    pub path: String,
    /// Which.
    pub inode: Inode,
    /// By whom.
    pub by: u64,
}

/// Kinds of links, in the order in which one leads to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Mismatch,
    Tool,
    Output,
    Script,
    Socket,
}

fn kind(link: &Link) -> Kind {
    match link {
        Link::Mismatch { .. } => Kind::Mismatch,
        Link::Tool { .. } | Link::Libraries { .. } => Kind::Tool,
        Link::Output { .. } | Link::Changed { .. } => Kind::Output,
        Link::Script(_) => Kind::Script,
        Link::Socket { .. } => Kind::Socket,
    }
}

impl Chain {
    pub fn link(&mut self, link: Link) {
        // How else the same script has to do with it is no news.
        if let Link::Script(new) = &link
            && let Some(known) = self.links.iter_mut().find_map(|l| match l {
                Link::Script(s) if (&s.interpreter, &s.runs) == (&new.interpreter, &new.runs) => Some(s),
                _ => None,
            })
        {
            if new.how == super::CAME_OUT {
                known.how = new.how;
            }
            return;
        }
        if self.links.contains(&link) {
            return;
        }
        if self.full(&kind(&link)) {
            // What is proven is worth more than what is not.
            let unproven = |l: &Link| matches!(l, Link::Socket { proven: false, .. });
            if matches!(link, Link::Socket { proven: true, .. })
                && let Some(at) = self.links.iter().position(unproven)
            {
                self.links[at] = link;
            }
            return;
        }
        self.links.push(link);
    }

    /// No more links of that kind are shown.
    pub fn full(&self, of: &Kind) -> bool {
        self.links.iter().filter(|l| kind(l) == *of).count() >= OF_A_KIND
    }

    pub fn tool(&mut self, name: &str, strong: bool, payload: bool) {
        if strong {
            self.link(Link::Tool { name: name.into(), payload });
        } else {
            self.mild.get_or_insert_with(|| name.into());
        }
    }

    pub fn steps(&mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            if self.steps.len() < 4 * STEPS && !self.steps.contains(&step) {
                self.steps.push(step);
            }
        }
    }

    /// One more file that was made of it.
    pub fn made(&mut self, made: Made) {
        if self.made.len() < MADE && !self.made.iter().any(|known| known.path == made.path) {
            self.made.push(made);
        }
    }

    fn has(&self, what: impl Fn(&Link) -> bool) -> bool {
        self.links.iter().any(what)
    }

    /// The kinds of links that count.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        // Libraries are what every program for pictures has.
        let counts = self.links.iter().filter(|l| !matches!(l, Link::Libraries { .. }));
        let mut kinds: BTreeSet<Kind> = counts.map(kind).collect();
        let follows = kinds.contains(&Kind::Script) || kinds.contains(&Kind::Socket);
        if follows && self.mild.is_some() {
            kinds.insert(Kind::Tool);
        }
        // A copy is nothing by itself: what a tool made is, and what was taken out and run, and a picture that was changed.
        let tool = kinds.contains(&Kind::Tool);
        let taken = self.has(|l| matches!(l, Link::Script(s) if s.how == super::CAME_OUT));
        let changed = self.has(|l| matches!(l, Link::Changed { .. }));
        if !(follows && (tool || taken || changed)) {
            kinds.remove(&Kind::Output);
        }
        kinds
    }

    /// What is to be said. None: nothing.
    pub fn told(mut self, mut file: FileFact, window: u64) -> Option<MediaChain> {
        let kinds = self.kinds();
        let rule = match () {
            () if kinds.contains(&Kind::Script) => "media-script",
            () if kinds.contains(&Kind::Socket) => "media-egress",
            () if kinds.contains(&Kind::Tool) => "stego-tool",
            () if kinds.contains(&Kind::Mismatch) => "media-mismatch",
            () => return None,
        };
        if let (Some(name), true) = (self.mild.take(), kinds.contains(&Kind::Tool)) {
            self.links.push(Link::Tool { name, payload: false });
        }
        if let (1, Some(Link::Mismatch { path, .. })) =
            (kinds.len(), self.links.iter().find(|link| matches!(link, Link::Mismatch { .. })))
        {
            file.path = Some(path.clone());
        }
        // That a picture was changed is worth knowing whatever came of it; by what file it was is worth more than that it was.
        let named = self.has(|l| matches!(l, Link::Changed { path: Some(_), .. }));
        self.links.retain(|link| match link {
            Link::Changed { path, .. } => path.is_some() || !named,
            Link::Libraries { .. } => true,
            link => kinds.contains(&kind(link)),
        });
        self.links
            .sort_by_key(|link| (kind(link), matches!(link, Link::Libraries { .. } | Link::Changed { .. })));
        self.steps.sort_by_key(|step| step.at);
        self.steps.truncate(STEPS);
        let seen = self.steps.last().map(|step| step.at).unwrap_or_else(jiff::Timestamp::now);
        let proven = self.links.iter().any(|link| matches!(link, Link::Socket { proven: true, .. }));
        Some(MediaChain {
            rule,
            severity: severity(&kinds),
            proven,
            file,
            process: self.process,
            links: self.links,
            steps: self.steps,
            window,
            seen,
        })
    }
}

/// That of the first link, one higher for each further one.
fn severity(kinds: &BTreeSet<Kind>) -> Severity {
    const LEVELS: [Severity; 4] = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    let own = |kind: &Kind| usize::from(matches!(kind, Kind::Script | Kind::Socket));
    let first = kinds.first().map_or(0, own);
    let worst = kinds.iter().map(own).max().unwrap_or(0);
    let level = (first + kinds.len().saturating_sub(1)).max(worst);
    LEVELS[level.min(LEVELS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::super::told::Script;
    use super::*;
    use crate::model::Connection;
    use counterfoil_abi::record::Magic;

    fn told(links: Vec<Link>, mild: bool) -> Option<(&'static str, Severity)> {
        let mut chain = Chain::default();
        links.into_iter().for_each(|link| chain.link(link));
        if mild {
            chain.tool("convert", false, false);
        }
        chain.told(FileFact::default(), 300).map(|c| (c.rule, c.severity))
    }

    fn script(how: &'static str) -> Link {
        Link::Script(Script { interpreter: "python3".into(), runs: "/tmp/a.py".into(), how })
    }

    #[test]
    fn one_higher_for_each_further_link() {
        let tool = || Link::Tool { name: "steghide".into(), payload: false };
        let output = || Link::Output { path: Some("/tmp/x".into()) };
        let socket =
            || Link::Socket { connection: Connection::default(), flow: None, transfer: None, proven: false };
        let libraries = || Link::Libraries { names: vec!["libpng"] };
        let changed = || Link::Changed { path: Some("/tmp/x".into()), format: Magic::Png, size: (320, 240) };
        let mismatch = || Link::Mismatch { path: "/a.png".into(), behind: None, content: Some("zip".into()) };
        for (links, mild, expected) in [
            (vec![], true, None),
            (vec![output()], true, None),
            (vec![tool()], false, Some(("stego-tool", Severity::Low))),
            (vec![tool(), output()], false, Some(("stego-tool", Severity::Low))),
            (vec![mismatch()], false, Some(("media-mismatch", Severity::Low))),
            (vec![socket()], false, Some(("media-egress", Severity::Medium))),
            (vec![socket(), output()], false, Some(("media-egress", Severity::Medium))),
            (vec![script("reads it")], false, Some(("media-script", Severity::Medium))),
            (vec![script("reads it"), socket()], false, Some(("media-script", Severity::High))),
            // What it was decoded with, and that it was changed, is evidence and makes it no worse.
            (vec![libraries(), socket()], false, Some(("media-egress", Severity::Medium))),
            (
                vec![libraries(), output(), script("reads it"), socket()],
                false,
                Some(("media-script", Severity::High)),
            ),
            (vec![changed()], false, None),
            (vec![changed(), socket()], false, Some(("media-egress", Severity::Medium))),
            (
                vec![output(), changed(), script("reads it"), socket()],
                false,
                Some(("media-script", Severity::High)),
            ),
            (vec![tool(), changed()], false, Some(("stego-tool", Severity::Low))),
            (vec![socket()], true, Some(("media-egress", Severity::Medium))),
            (vec![socket(), tool(), output()], false, Some(("media-egress", Severity::High))),
            (
                vec![script(super::super::CAME_OUT), tool(), output()],
                false,
                Some(("media-script", Severity::High)),
            ),
            (
                vec![script("reads it"), tool(), output(), socket()],
                false,
                Some(("media-script", Severity::Critical)),
            ),
        ] {
            assert_eq!(told(links.clone(), mild), expected, "{links:?}");
        }
    }
}
