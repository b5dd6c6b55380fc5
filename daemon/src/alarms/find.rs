//! One alarm by what a person types of its id.
#![forbid(unsafe_code)]

use uuid::Uuid;

/// Ids shown where several fit.
const SHOWN: usize = 5;
/// The end of an id is told by so many digits: less would meet by chance.
const END: usize = 4;

/// Why no single alarm is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// None fits.
    #[error("no alarm's id begins or ends with {0}")]
    None(String),
    /// Several fit.
    #[error("{count} alarms' ids begin or end with {word}; give more of it: {}", some.join(", "))]
    Several {
        /// What was typed.
        word: String,
        /// How many.
        count: usize,
        /// Some of them.
        some: Vec<String>,
    },
    /// It can't be one.
    #[error("{0:?} is no part of an alarm's id, which is hexadecimal")]
    NoId(String),
}

/// The one of `ids` that begins with `word`, or, where none does, ends with it. Alarms of one moment
/// begin alike: their ids are ordered by time.
///
/// # Errors
/// None is, or several are.
pub fn find(word: &str, ids: impl Iterator<Item = Uuid>) -> Result<Uuid, NotFound> {
    let digits = word.replace('-', "").to_lowercase();
    if digits.is_empty() || digits.len() > 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(NotFound::NoId(crate::escape::clip(word, 64).into_owned()));
    }
    let (mut first, mut last) = (Vec::new(), Vec::new());
    let (mut begins, mut ends) = (0, 0);
    let mut buffer = Uuid::encode_buffer();
    for id in ids {
        let text: &str = id.simple().encode_lower(&mut buffer);
        if text.starts_with(&digits) {
            begins += 1;
            first.extend((begins <= SHOWN).then_some(id));
        }
        if digits.len() >= END && text.ends_with(&digits) {
            ends += 1;
            last.extend((ends <= SHOWN).then_some(id));
        }
    }
    let (count, some) = if begins > 0 { (begins, first) } else { (ends, last) };
    match (count, &some[..]) {
        (0, _) => Err(NotFound::None(digits)),
        (1, [id]) => Ok(*id),
        _ => Err(NotFound::Several { word: digits, count, some: some.iter().map(Uuid::to_string).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_beginning_or_end() {
        let id = |text: &str| text.parse::<Uuid>().unwrap();
        let a = id("01970000-0000-7000-8000-00000000aaaa");
        let b = id("01970000-0000-7000-8000-00000000bbbb");
        let find = |word: &str| find(word, [a, b].into_iter());
        assert_eq!(find("01970000-0000-7000-8000-00000000AAAA"), Ok(a));
        assert_eq!(find("bbbb"), Ok(b));
        assert!(matches!(find("0197"), Err(NotFound::Several { count: 2, .. })));
        assert_eq!(find("bbb"), Err(NotFound::None("bbb".into())), "too little of an end");
        assert_eq!(find("0198"), Err(NotFound::None("0198".into())));
        for junk in ["", "-", "xyz", "'; DROP TABLE alarms", &"0".repeat(33)] {
            assert!(matches!(find(junk), Err(NotFound::NoId(_))), "{junk}");
        }
    }
}
