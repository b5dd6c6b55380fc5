//! How the report looks: colour, width, and which characters the terminal can show.
#![forbid(unsafe_code)]

use std::io::IsTerminal;

/// The colours that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Colour {
    Plain,
    Bold,
    Green,
    Yellow,
    Red,
}

/// How to write for one output.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Escape sequences may be used.
    pub colour: bool,
    /// The locale has UTF-8.
    pub unicode: bool,
    /// Columns.
    pub width: usize,
}

impl Style {
    /// For stderr as it is: colour only on a terminal, and not where NO_COLOR is set or TERM is
    /// dumb.
    #[must_use]
    pub fn stderr() -> Self {
        Self::of(&std::io::stderr())
    }

    /// For stdout as it is.
    #[must_use]
    pub fn stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    fn of(out: &(impl IsTerminal + std::os::fd::AsFd)) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let terminal = out.is_terminal();
        let columns = if terminal {
            rustix::termios::tcgetwinsize(out).ok().map(|w| usize::from(w.ws_col)).filter(|w| *w > 0)
        } else {
            None
        };
        let dumb = set("TERM").is_none_or(|t| t == "dumb");
        // The first of these that is set decides (locale(7)).
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
        let unicode = match locale {
            Some(l) => {
                let l = l.to_string_lossy().to_lowercase();
                l.contains("utf-8") || l.contains("utf8")
            }
            // Nothing set, as under cron or in containers: a file or a pipe takes UTF-8.
            None => !terminal,
        };
        Self {
            colour: terminal && !dumb && set("NO_COLOR").is_none(),
            unicode,
            width: columns.unwrap_or(100).clamp(40, 160),
        }
    }

    /// For tests and files: no colour, 100 columns.
    #[must_use]
    pub fn plain() -> Self {
        Self { colour: false, unicode: true, width: 100 }
    }

    /// `text` in `colour`, where colour may be used.
    #[must_use]
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            _ if !self.colour || text.is_empty() => return text.to_owned(),
            Colour::Plain => return text.to_owned(),
            Colour::Bold => "1",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// An arrow.
    #[must_use]
    pub fn arrow(&self) -> &'static str {
        if self.unicode { "→" } else { "->" }
    }

    /// `text` in lines that fit beside an indent.
    #[must_use]
    pub fn wrap(&self, text: &str, indent: usize) -> Vec<String> {
        let room = self.width.saturating_sub(indent).max(20);
        let mut lines = vec![String::new()];
        for word in text.split(' ') {
            let line = lines.last_mut().expect("never empty");
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                lines.push(word.to_owned());
            } else {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
        }
        lines
    }
}
