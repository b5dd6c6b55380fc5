//! A transfer in one line.
#![forbid(unsafe_code)]

use crate::escape::{clip, text};
use crate::model::{Channel, Endpoint, Transfer};
use crate::report::{self, style::Style, words};

/// A path longer than this is cut in a line; JSON has it whole.
const PATH: usize = 512;

/// `2026-03-04 05:06:07Z  ALTERED  TLS  curl (pid 11) → nginx (pid 22)  65536  bytes 16384–32767`.
pub fn row(t: &Transfer, style: &Style) -> String {
    let bytes = match (t.bytes.origin, t.bytes.destination) {
        (Some(a), Some(b)) if a == b => a.to_string(),
        (a, b) => {
            let one = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
            format!("{}/{}", one(a), one(b))
        }
    };
    let mut more: Vec<String> = t.reasons.iter().map(|r| r.word().to_owned()).collect();
    if !t.altered.is_empty() {
        more.insert(0, words::ranges(&t.altered));
    }
    let remote = t.origin.as_ref().and_then(|e| e.remote.as_deref());
    let remote = remote.or_else(|| t.destination.as_ref().and_then(|e| e.local.as_deref())).unwrap_or("");
    if t.channel == Channel::File {
        return file(t, &with_class(&bytes, t), &more, style);
    }
    let line = format!(
        "{}  {:<10}  {:<5}  {} {} {}  {}  {}  {}",
        t.ended.strftime("%Y-%m-%d %H:%M:%SZ"),
        words::verdict(t.verdict),
        words::channel(t.channel),
        report::endpoint_name(t.origin.as_ref()),
        style.arrow(),
        report::endpoint_name(t.destination.as_ref()),
        clip(&text(remote), 64),
        with_class(&bytes, t),
        more.join(", "),
    );
    line.trim_end().to_owned() + "\n"
}

fn with_class(bytes: &str, t: &Transfer) -> String {
    t.class.map_or_else(|| bytes.to_owned(), |class| format!("{bytes} {}", class.word()))
}

/// `2026-03-04 05:06:07Z  intact      file   /a/x → /b/x  65536  scp (pid 11) … → sftp-server (pid 22) …  sha256 …`.
fn file(t: &Transfer, bytes: &str, more: &[String], style: &Style) -> String {
    let (origin, destination) = (t.origin.as_ref(), t.destination.as_ref());
    // One host is not worth mentioning.
    let hosts = matches!((origin, destination), (Some(o), Some(d)) if o.host != d.host);
    // Of an end that nobody saw, its address is known.
    let remote =
        origin.or(destination).and_then(|e| e.remote.as_deref()).map(|r| clip(&text(r), 64).into_owned());
    let place = |e: Option<&Endpoint>| match e {
        None => {
            remote.as_ref().map_or_else(|| "(not observed)".to_owned(), |r| format!("{r} (not observed)"))
        }
        Some(e) => {
            let host = if hosts { format!("{}:", clip(&text(&e.host), 64)) } else { String::new() };
            host + &clip(&text(e.path.as_deref().unwrap_or("?")), PATH)
        }
    };
    let who = |e: Option<&Endpoint>| {
        let user = e.and_then(|e| e.uid).map(|uid| format!(" as uid {uid}")).unwrap_or_default();
        report::endpoint_name(e) + &user
    };
    let arrow = style.arrow();
    let line = format!(
        "{}  {:<10}  {:<5}  {} {arrow} {}  {bytes}  {} {arrow} {}  {}  {}",
        t.ended.strftime("%Y-%m-%d %H:%M:%SZ"),
        words::verdict(t.verdict),
        words::channel(t.channel),
        place(origin),
        place(destination),
        who(origin),
        who(destination),
        digests(origin, destination, arrow),
        more.join(", "),
    );
    line.trim_end().to_owned() + "\n"
}

/// One digest where both ends have the same.
fn digests(origin: Option<&Endpoint>, destination: Option<&Endpoint>, arrow: &str) -> String {
    let of =
        |e: Option<&Endpoint>| e.and_then(|e| e.sha256.as_deref()).map(|s| clip(&text(s), 64).into_owned());
    match (of(origin), of(destination)) {
        (None, None) => "no sha256".into(),
        (Some(a), Some(b)) if a == b => format!("sha256 {a}"),
        (a, b) => format!("sha256 {} {arrow} {}", a.as_deref().unwrap_or("?"), b.as_deref().unwrap_or("?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Verdict;
    use crate::sample;

    #[test]
    fn rows() {
        assert_eq!(
            row(&sample::transfer(Verdict::Altered), &Style::plain()),
            "2026-03-04 05:06:07Z  ALTERED     TLS    curl (pid 11) → nginx (pid 22)  10.0.0.2:443  65536  \
             bytes 16384–32767\n"
        );
        let mut t = sample::transfer(Verdict::Truncated);
        t.origin.as_mut().unwrap().exe = Some("/bin/a\nb".into());
        let row = row(&t, &Style::plain());
        assert!(row.contains("65536/40000") && row.contains("a\\x0ab (pid 11)"), "{row}");
        assert_eq!(row.matches('\n').count(), 1);
    }

    #[test]
    fn a_files_row_says_which_file_went_where() {
        let mut t = sample::transfer(Verdict::Intact);
        t.channel = Channel::File;
        let sha = "ab".repeat(32);
        for (end, path) in [(&mut t.origin, "/home/p/r.csv"), (&mut t.destination, "/srv/in/r.csv")] {
            let end = end.as_mut().unwrap();
            (end.path, end.sha256) = (Some(path.into()), Some(sha.clone()));
        }
        assert_eq!(
            row(&t, &Style::plain()),
            format!(
                "2026-03-04 05:06:07Z  intact      file   /home/p/r.csv → /srv/in/r.csv  65536  \
                 curl (pid 11) as uid 1000 → nginx (pid 22) as uid 1000  sha256 {sha}\n"
            )
        );
        let other = "cd".repeat(32);
        let d = t.destination.as_mut().unwrap();
        (d.host, d.sha256, d.path) = ("beta".into(), Some(other.clone()), Some("/srv/\u{1b}[2J\n".into()));
        let line = row(&t, &Style::plain());
        assert!(line.contains("alpha:/home/p/r.csv → beta:/srv/\\x1b[2J\\x0a"), "{line}");
        assert!(line.contains(&format!("sha256 {sha} → {other}")), "{line}");
        t.origin = None;
        let line = row(&t, &Style::plain());
        assert!(
            line.contains("(not observed) → /srv/") && line.contains(&format!("sha256 ? → {other}")),
            "{line}"
        );
    }
}
