//! `[[alarms.suppress]]`: alarms that are off the list by design, and who answers for it.
//!
//! Comes in: their tables. Goes out: [`Suppress`]es. Called by `read`; asked by the alarm list, and by `check --dry-run`.
#![forbid(unsafe_code)]

use super::section::{Mistakes, Section};
use crate::detect::CRITICAL;
use crate::model::Finding;
use jiff::civil::Date;
use std::fmt;

/// What an entry can go by, in the words of the filters of `counterfoil alarms`.
const BY: [&str; 7] = ["rule", "exe", "file", "destination", "user", "tag", "condition"];

/// One `[[alarms.suppress]]`: all that it names must fit. Texts are a whole value, or a pattern (`*`, `?`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppress {
    /// For each of [`BY`]: what it must be.
    by: [Option<String>; BY.len()],
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// The last day on which it holds.
    pub expires: Date,
}

impl Suppress {
    /// It can be about alarms of this rule.
    #[must_use]
    pub fn of_rule(&self, rule: &str) -> bool {
        self.by[0].as_ref().is_none_or(|p| like(p, rule))
    }

    /// Rules whose alarms can be critical, of which it can hold some back.
    pub fn critical(&self) -> impl Iterator<Item = &'static str> {
        // Tags and conditions are what alarms of a process have.
        let tagged = self.by[5].is_some() || self.by[6].is_some();
        let of_process =
            |rule: &str| matches!(rule, "process-alarm" | "process-alarm-altered" | "alarm-suppressed");
        CRITICAL.into_iter().filter(move |rule| self.of_rule(rule) && (!tagged || of_process(rule)))
    }

    /// It is about this finding.
    #[must_use]
    pub fn fits(&self, f: &Finding) -> bool {
        let point = |name: &str| f.point.as_ref().and_then(|p| p[name].as_str());
        let process = f.process.as_ref();
        let connection = f.connection.as_ref();
        BY.iter().zip(&self.by).all(|(name, wanted)| {
            let Some(p) = wanted.as_deref() else { return true };
            let path = |text: Option<&str>| text.is_some_and(|t| like(p, t) || like(&format!("*/{p}"), t));
            match *name {
                "rule" => like(p, &f.rule),
                "exe" => path(process.and_then(|p| p.exe.as_deref())),
                "file" => path(f.file.as_ref().and_then(|f| f.path.as_deref())),
                "destination" => {
                    let remote = connection.and_then(|c| c.remote.as_deref()).is_some_and(|to| {
                        like(p, to) || like(&format!("{p}:*"), to) || like(&format!("[{p}]:*"), to)
                    });
                    remote || connection.and_then(|c| c.server_name.as_deref()).is_some_and(|to| like(p, to))
                }
                "user" => process.is_some_and(|of| {
                    of.user.as_deref().is_some_and(|u| like(p, u))
                        || of.uid.is_some_and(|u| u.to_string() == p)
                }),
                name => point(name).is_some_and(|t| like(p, t)),
            }
        })
    }

    /// It holds on this day.
    #[must_use]
    pub fn holds(&self, day: Date) -> bool {
        day <= self.expires
    }

    /// Who answers for it, why and how long, as alarms show it.
    #[must_use]
    pub fn answer(&self) -> String {
        format!("{} ({}, until {})", self.reason, self.owner, self.expires)
    }
}

/// `rule="coverage-lost" exe="backup.sh"`.
impl fmt::Display for Suppress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = BY.iter().zip(&self.by).filter_map(|(name, p)| Some((name, p.as_ref()?)));
        let words: Vec<String> = some.map(|(name, p)| format!("{name}={p:?}")).collect();
        f.write_str(&words.join(" "))
    }
}

/// `*` stands for anything, `?` for one character; all else for itself.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, t) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// One table.
pub(super) fn read(mut s: Section<'_, '_>, m: &mut Mistakes) -> Option<Suppress> {
    let span = s.span.clone();
    let mut text = |s: &mut Section<'_, '_>, key| {
        s.parsed(key, m, |text| match text.trim() {
            "" => Err("it is empty".into()),
            text => Ok(text.to_owned()),
        })
    };
    let by = BY.map(|key| text(&mut s, key));
    let (owner, reason) = (text(&mut s, "owner"), text(&mut s, "reason"));
    let day = |text: &str| text.parse::<Date>().map_err(|_| format!("`{text}` is no day; write 2026-12-31"));
    let expires = s.parsed("expires", m, day);
    s.finish(m);
    if !by.iter().flatten().any(|p| p.chars().any(|c| !matches!(c, '*' | '?'))) {
        m.at(&span, format!("this would suppress everything; say what it is about: {}", BY.join(", ")));
        return None;
    }
    let (Some(owner), Some(reason), Some(expires)) = (owner, reason, expires) else {
        m.at(&span, "what is suppressed by design needs an owner, a reason and a day on which it expires");
        return None;
    };
    let suppress = Suppress { by, owner, reason, expires };
    if !suppress.holds(jiff::Zoned::now().date()) {
        m.warn(&span, format!("the suppression of {suppress} expired on {expires}"));
        return Some(suppress);
    }
    let critical: Vec<&str> = suppress.critical().collect();
    if !critical.is_empty() {
        let what = critical.join(", ");
        m.warn(
            &span,
            format!(
                "the suppression of {suppress} can hold back critical alarms ({what}): where it fits, nobody is told that \
                 data is being changed, taken or hidden; name a rule that is none of these, or make it as narrow as can \
                 be (exe, file, destination, user) and see with `counterfoil check --dry-run` what it would have held back"
            ),
        );
    }
    Some(suppress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::sinks::tests::most_of_everything;

    fn one(lines: &str) -> Suppress {
        let answer = "owner = \"ann\"\nreason = \"known\"\nexpires = \"2100-01-31\"";
        let text = format!("[[alarms.suppress]]\n{answer}\n{lines}\n");
        parse(&text).unwrap_or_else(|e| panic!("{lines}: {e:?}")).config.alarms.suppress.remove(0)
    }

    #[test]
    fn all_that_an_entry_names_must_fit() {
        let finding = most_of_everything().finding;
        for fits in [
            "rule = \"payload-altered\"",
            "rule = \"payload-*\"\nexe = \"curl\"",
            "exe = \"/usr/bin/curl\"\nuser = \"batch\"",
            "user = \"1001\"",
            "file = \"prices.csv\"",
            "file = \"out/*\"",
            "destination = \"2001:db8::1\"",
            "destination = \"[2001:db8::1]:443\"",
            "destination = \"api.*\"",
            "tag = \"TI-1?1\"\ncondition = \"HI\"",
        ] {
            assert!(one(fits).fits(&finding), "{fits}");
            assert!(one(fits).of_rule("payload-altered"));
        }
        for not in [
            "rule = \"payload\"",
            "rule = \"payload-altered\"\nexe = \"wget\"",
            "exe = \"url\"",
            "destination = \"2001:db8::\"",
            "user = \"100\"",
            "tag = \"TI-10\"",
            "condition = \"HIHI\"",
        ] {
            assert!(!one(not).fits(&finding), "{not}");
        }
        let mut bare = finding;
        (bare.process, bare.file, bare.connection, bare.point) = (None, None, None, None);
        assert!(!one("tag = \"T*\"").fits(&bare), "what is not there fits nothing");
        let words = one("rule = \"x\"\ntag = \"y\"");
        assert_eq!(words.to_string(), "rule=\"x\" tag=\"y\"");
        assert_eq!(words.answer(), "known (ann, until 2100-01-31)");
    }

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "é", true),
            ("?", "", false),
            ("a?c*", "abc", true),
            ("[a]", "a", false),
            ("[a]", "[a]", true),
            ("**x", "yyx", true),
        ] {
            assert_eq!(like(pattern, text), fits, "{pattern} {text}");
        }
        // In steps that grow with the text, not with the stars.
        assert!(!like(&"*a".repeat(50), &"a".repeat(49)));
    }

    #[test]
    fn mistakes_and_where() {
        let wrong = |lines: &str, words: &str| {
            let found = parse(&format!("[[alarms.suppress]]\n{lines}\n")).expect_err(lines);
            assert!(found.iter().any(|f| f.message.contains(words)), "{lines} {found:?}");
        };
        let answer = "owner = \"a\"\nreason = \"b\"\nexpires = \"2100-01-01\"";
        wrong(answer, "would suppress everything");
        wrong(&format!("{answer}\nrule = \"*\"\nexe = \"?*\""), "would suppress everything");
        wrong("rule = \"x\"\nowner = \"a\"\nexpires = \"2100-01-01\"", "needs an owner, a reason and a day");
        wrong("rule = \"x\"\nowner = \" \"\nreason = \"b\"\nexpires = \"2100-01-01\"", "it is empty");
        wrong("rule = \"x\"\nexpires = \"soon\"", "is no day");
        wrong(&format!("{answer}\nruel = \"x\""), "did you mean `rule`?");
        let text = "[[alarms.suppress]]\nrule=\"x\"\nowner=\"a\"\nreason=\"b\"\nexpires=\"2001-01-01\"";
        assert!(parse(text).unwrap().warnings[0].message.contains("expired on 2001-01-01"));
        assert!(parse("[alarms]\nsuppress = 1").is_err());
    }

    #[test]
    fn what_can_hold_back_critical_alarms_is_said() {
        let warnings = |lines: &str, expires: &str| {
            let answer = format!("owner = \"a\"\nreason = \"b\"\nexpires = \"{expires}\"");
            parse(&format!("# mine\n[[alarms.suppress]]\n{answer}\n{lines}\n")).expect(lines).warnings
        };
        for (lines, rules) in [
            ("rule = \"payload-altered\"", "payload-altered"),
            ("rule = \"payload-*\"\nexe = \"curl\"", "payload-altered"),
            ("rule = \"*-egress\"", "sensitive-egress, media-egress"),
            // No rule is all rules.
            (
                "exe = \"backup.sh\"",
                "payload-altered, cipher-mismatch, sensitive-egress, media-script, media-egress, ",
            ),
            ("tag = \"T*\"", "process-alarm, process-alarm-altered, alarm-suppressed"),
        ] {
            let warned = warnings(lines, "2100-01-01");
            assert_eq!(warned.len(), 1, "{lines} {warned:?}");
            let (line, column, message) = (warned[0].line, warned[0].column, &warned[0].message);
            assert_eq!((line, column), (2, 1), "{lines}");
            assert!(message.contains(&format!("critical alarms ({rules}")), "{lines} {message}");
            assert!(message.contains("check --dry-run"), "{message}");
        }
        for harmless in
            ["rule = \"coverage-lost\"", "rule = \"bulk-*\"", "rule = \"payload-altered\"\ntag = \"T1\""]
        {
            assert_eq!(warnings(harmless, "2100-01-01"), [], "{harmless}");
        }
        let over = warnings("rule = \"payload-altered\"", "2001-01-01");
        assert!(over.len() == 1 && over[0].message.contains("expired"), "it holds nothing back: {over:?}");
    }
}
