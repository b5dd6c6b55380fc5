//! The group whose members may change alarms, and the names of users.
#![forbid(unsafe_code)]

/// Its name, as packages and `sysusers.d` make it.
pub(super) const NAME: &str = "counterfoil";

/// Its number, where there is one on this host.
pub(super) fn number() -> Option<u32> {
    in_file(&std::fs::read_to_string("/etc/group").ok()?, NAME)
}

fn in_file(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_etc_group() {
        let text = "root:x:0:\ncounterfoils:x:9:\ncounterfoil:x:998:pat,kim\n";
        assert_eq!(in_file(text, NAME), Some(998));
        assert_eq!(in_file("counterfoil:x::\n", NAME), None);
        assert_eq!(in_file("", NAME), None);
    }
}
