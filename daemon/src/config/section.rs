//! One table of the file: takes its keys out one by one, and at the end names those that are left.
//!
//! Comes in: a parsed TOML table. Goes out: values of the right type, and mistakes with their
//! place. Called by `read`.
#![forbid(unsafe_code)]

use super::Mistake;
use super::values::absolute;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use toml::de::{DeTable, DeValue};

/// Line and column, both from 1, of the byte at `at`.
pub(super) fn place(source: &str, at: usize) -> (usize, usize) {
    let at = (0..=at.min(source.len())).rev().find(|&i| source.is_char_boundary(i)).unwrap_or(0);
    let before = &source[..at];
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// What is wrong, gathered.
pub(super) struct Mistakes<'s> {
    source: &'s str,
    found: Vec<(usize, Mistake)>,
    warnings: Vec<(usize, Mistake)>,
}

impl<'s> Mistakes<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, found: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn at(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let (line, column) = place(self.source, span.start);
        self.found.push((span.start, Mistake { line, column, message: message.into() }));
    }

    pub(super) fn warn(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let (line, column) = place(self.source, span.start);
        self.warnings.push((span.start, Mistake { line, column, message: message.into() }));
    }

    /// Mistakes and warnings, each in the file's order.
    pub(super) fn finish(mut self) -> (Vec<Mistake>, Vec<Mistake>) {
        self.found.sort_by_key(|(at, _)| *at);
        self.found.dedup();
        self.warnings.sort_by_key(|(at, _)| *at);
        let only = |v: Vec<(usize, Mistake)>| v.into_iter().map(|(_, m)| m).collect();
        (only(self.found), only(self.warnings))
    }
}

/// A table on its way to be read.
pub(super) struct Section<'v, 'i> {
    /// `[watch]`, `[[sink]]`, or nothing for the file itself.
    name: &'static str,
    /// Where it stands.
    pub(super) span: Range<usize>,
    left: BTreeMap<String, (Range<usize>, &'v DeValue<'i>, Range<usize>)>,
    known: Vec<&'static str>,
}

impl<'v, 'i> Section<'v, 'i> {
    pub(super) fn new(name: &'static str, table: &'v DeTable<'i>, span: Range<usize>) -> Self {
        let left =
            table.iter().map(|(k, v)| (k.get_ref().to_string(), (k.span(), v.get_ref(), v.span()))).collect();
        Self { name, span, left, known: Vec::new() }
    }

    /// The value of `key`, its key's place and its own.
    pub(super) fn take(
        &mut self,
        key: &'static str,
    ) -> Option<(Range<usize>, &'v DeValue<'i>, Range<usize>)> {
        self.known.push(key);
        self.left.remove(key)
    }

    /// The string at `key`.
    pub(super) fn string(&mut self, key: &'static str, m: &mut Mistakes) -> Option<(&'v str, Range<usize>)> {
        let (_, value, span) = self.take(key)?;
        match value.as_str() {
            Some(text) => Some((text, span)),
            None => {
                m.at(&span, format!("{key} must be a string, not {}", article(value)));
                None
            }
        }
    }

    /// The elements of the array at `key`; the array's own place is the second.
    pub(super) fn array(
        &mut self,
        key: &'static str,
        of: &str,
        m: &mut Mistakes,
    ) -> Option<Vec<(&'v DeValue<'i>, Range<usize>)>> {
        let (_, value, span) = self.take(key)?;
        match value.as_array() {
            Some(array) => Some(array.iter().map(|v| (v.get_ref(), v.span())).collect()),
            None => {
                m.at(&span, format!("{key} must be an array of {of}, not {}", article(value)));
                None
            }
        }
    }

    /// The string at `key`, made a value by `read`, whose error becomes a mistake.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        m: &mut Mistakes,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, span) = self.string(key, m)?;
        match read(text) {
            Ok(value) => Some(value),
            Err(why) => {
                m.at(&span, format!("{key}: {why}"));
                None
            }
        }
    }

    /// The boolean at `key`.
    pub(super) fn boolean(&mut self, key: &'static str, m: &mut Mistakes) -> Option<bool> {
        let (_, value, span) = self.take(key)?;
        let found = value.as_bool();
        if found.is_none() {
            m.at(&span, format!("{key} must be true or false, not {}", article(value)));
        }
        found
    }

    /// The absolute paths in the array at `key`.
    pub(super) fn paths(&mut self, key: &'static str, m: &mut Mistakes) -> Option<Vec<PathBuf>> {
        let mut found = Vec::new();
        for (value, span) in self.array(key, "paths", m)? {
            match value.as_str().map(absolute) {
                Some(Ok(path)) => found.push(path),
                Some(Err(why)) => m.at(&span, format!("{key}: {why}")),
                None => m.at(&span, format!("a path must be a string, not {}", article(value))),
            }
        }
        Some(found)
    }

    /// Everything that is left is unknown.
    pub(super) fn finish(self, m: &mut Mistakes) {
        for (key, (span, _, _)) in &self.left {
            let place = if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
            m.at(
                span,
                format!("unknown key `{}`{place}{}", crate::escape::text(key), nearest(key, &self.known)),
            );
        }
    }
}

/// `; did you mean …?`, or the whole list where nothing is near.
pub(super) fn nearest(word: &str, known: &[&str]) -> String {
    let lower = word.to_lowercase().replace('-', "_");
    let best = known.iter().map(|k| (strsim::damerau_levenshtein(&lower, k), *k)).min();
    match best {
        Some((distance, k)) if distance <= 1 + k.len() / 3 => format!("; did you mean `{k}`?"),
        _ => format!("; known: {}", known.join(", ")),
    }
}

/// `an integer`, `a table` ….
pub(super) fn article(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let an = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{an} {name}")
}

/// The tables of an array `[[name]]`.
pub(super) fn tables<'v, 'i>(
    file: &mut Section<'v, 'i>,
    key: &'static str,
    name: &'static str,
    m: &mut Mistakes,
) -> Vec<Section<'v, 'i>> {
    let Some((key_span, value, _)) = file.take(key) else { return vec![] };
    let Some(array) = value.as_array() else {
        m.at(&key_span, format!("{key} is written {name}, with two brackets, as there may be several"));
        return vec![];
    };
    let mut found = Vec::new();
    for element in array.iter() {
        match element.get_ref().as_table() {
            Some(table) => found.push(Section::new(name, table, element.span())),
            None => {
                m.at(&element.span(), format!("{name} must be a table, not {}", article(element.get_ref())))
            }
        }
    }
    found
}
