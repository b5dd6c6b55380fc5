//! `--path`: which paths are meant.
#![forbid(unsafe_code)]

use glob::{MatchOptions, Pattern};

/// A folder or file, or a pattern.
#[derive(Clone, Debug)]
pub enum Paths {
    /// This path, and all below it.
    Below(String),
    /// Whole paths that look like this.
    Like(Pattern),
    /// File names that look like this.
    Named(Pattern),
}

impl Paths {
    /// Understands what was asked for.
    ///
    /// # Errors
    /// It is no pattern; in words.
    pub fn new(argument: &str) -> Result<Self, String> {
        let wild = argument.contains(['*', '?', '[']);
        if argument.contains('/') && !argument.starts_with('/') && !argument.starts_with("**/") {
            return Err("paths in a ledger are absolute: begin with / (or with **/)".into());
        }
        if !wild && argument.starts_with('/') {
            return Ok(Self::Below(argument.trim_end_matches('/').to_owned()));
        }
        let pattern = Pattern::new(argument).map_err(|e| e.msg.to_owned())?;
        Ok(if argument.contains('/') { Self::Like(pattern) } else { Self::Named(pattern) })
    }

    /// Whether a path is meant.
    #[must_use]
    pub fn fit(&self, path: &str) -> bool {
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
        match self {
            Self::Below(folder) => path
                .strip_prefix(folder.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Like(pattern) => pattern.matches_with(path, options),
            Self::Named(pattern) => pattern.matches_with(path.rsplit('/').next().unwrap_or(path), options),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_patterns_and_names() {
        for (asked, path, fits) in [
            ("/srv/in", "/srv/in", true),
            ("/srv/in", "/srv/in/x/y", true),
            ("/srv/in/", "/srv/in/x", true),
            ("/srv/in", "/srv/inner", false),
            ("/", "/anything", true),
            ("/srv/*.csv", "/srv/a.csv", true),
            ("/srv/*.csv", "/srv/deep/a.csv", false),
            ("/srv/**/*.csv", "/srv/deep/er/a.csv", true),
            ("*.csv", "/srv/deep/a.csv", true),
            ("*.csv", "/srv/a.csv/b", false),
            ("a.csv", "/srv/a.csv", true),
            ("a.csv", "/srv/ba.csv", false),
        ] {
            assert_eq!(Paths::new(asked).unwrap().fit(path), fits, "{asked} {path}");
        }
        assert!(Paths::new("srv/in").is_err());
        assert!(Paths::new("/srv/[").is_err());
    }
}
