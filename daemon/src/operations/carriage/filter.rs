//! MQTT's topic filters (3.1.1, section 4.7).
#![forbid(unsafe_code)]

/// True if `filter` covers `topic`.
pub fn covers(filter: &str, topic: &str) -> bool {
    // What begins with `$` is the broker's own, and no wildcard at the start reaches it.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            // `a/#` covers `a`, too.
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(f), Some(t)) if f == t => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn as_the_standard_says() {
        for (filter, topic) in [
            ("a/b", "a/b"),
            ("#", "a/b"),
            ("a/#", "a/b/c"),
            ("a/#", "a"),
            ("+", "a"),
            ("a/+/c", "a/b/c"),
            ("+/+", "/a"),
            ("/+", "/a"),
            ("a/+", "a/"),
            ("$SYS/#", "$SYS/x"),
        ] {
            assert!(covers(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("a/b", "a/c"),
            ("a/b", "a"),
            ("a", "a/b"),
            ("+", "/a"),
            ("+", "a/b"),
            ("a/+", "a"),
            ("a/+/c", "a/c"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
        ] {
            assert!(!covers(filter, topic), "{filter} {topic}");
        }
    }
}
