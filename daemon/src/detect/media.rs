//! AN0332: `media-script`, `media-egress`, `stego-tool`, `media-mismatch`: one alarm for a media file, with all that was done.
#![forbid(unsafe_code)]

use super::ends::{name, route};
use super::{finding, key};
use crate::judged::Notice;
use crate::media::ran::base;
use crate::media::told::{Link, MediaChain};
use crate::model::{Analytic, Finding};
use crate::sensitive::told::Step;
use serde_json::{Value, json};

/// Obfuscated Files or Information: Steganography.
const STEGANOGRAPHY: &str = "T1027.003";

pub(super) fn media(notice: &Notice, chain: &MediaChain) -> Finding {
    let path = chain.file.path.as_deref().unwrap_or("a media file");
    let mut f = finding(chain.rule, chain.severity, notice.seen);
    f.analytic = Analytic::An0332;
    f.technique = Some(STEGANOGRAPHY.into());
    let mismatch = chain.rule == "media-mismatch";
    f.confidence = match () {
        () if chain.proven || mismatch => Some("proven".into()),
        () if chain.rule == "stego-tool" => None,
        () => Some("correlated".into()),
    };
    f.title = title(chain, path);
    f.message = format!("{path}: {}.", said(&chain.links, path).join("; "));
    if let Some(what) = chain.steps.last() {
        f.message.push_str(&format!(" {}.", steps(&chain.steps, what, path)));
    }
    f.next = match chain.rule {
        "media-script" => {
            "Read the script, and what it took out of the picture; find out who put both there. If this is work that \
             somebody answers for, name the script in [[media.approved_workflows]]."
        }
        "media-egress" => {
            "Ask who runs the process whether this file was meant to go there. Compare it with its original: a picture \
             that was changed before it was sent may carry something."
        }
        "stego-tool" => "Find out who runs the tool and what for; look at what it wrote.",
        _ => "Look at what stands behind the end of the file, or what it really is, before anybody opens it.",
    }
    .into();
    let tunable = match chain.rule {
        "media-script" => "script_interpreter_match",
        "stego-tool" => "monitored_tools_list",
        "media-mismatch" => "mime_header_mismatch_tolerance",
        _ => "media.time_window",
    };
    f.why = json!({"tunable": tunable, "value": chain.links.len(), "threshold": Value::Null, "window": chain.window,
                   "baseline": Value::Null});
    f.evidence = json!({
        "links": chain.links.iter().map(link).collect::<Vec<_>>(),
        "chain": chain.steps.iter().map(step).collect::<Vec<_>>(),
    });
    // One alarm for one file and user, whichever of the rules sees more of it.
    let user = notice.process.as_ref().and_then(|p| p.user.clone());
    f.key = key("media", None, None, None, &[("file", path), ("user", user.as_deref().unwrap_or_default())]);
    f.process.clone_from(&notice.process);
    f.connection.clone_from(&notice.connection);
    f.transfer = notice.transfer;
    f.flow.clone_from(&notice.flow);
    f.file = Some(chain.file.clone());
    f
}

fn title(chain: &MediaChain, path: &str) -> String {
    let of = |f: fn(&Link) -> Option<String>| chain.links.iter().find_map(f).unwrap_or_default();
    match chain.rule {
        "media-script" => of(|link| match link {
            Link::Script(s) if s.how == "came out of it" => {
                Some(format!("{} ran what came out of a media file", s.interpreter))
            }
            Link::Script(s) => {
                Some(format!("A script ran with a media file: {} ({})", s.interpreter, base(&s.runs)))
            }
            _ => None,
        }),
        "media-egress" => format!("{} was read, and something was sent", base(path)),
        "stego-tool" => {
            let tool = of(|link| match link {
                Link::Tool { name, .. } => Some(name.clone()),
                _ => None,
            });
            format!("{tool} worked on {}", base(path))
        }
        _ => format!("{} is not what it seems to be", base(path)),
    }
}

/// A name as short as it can be beside that of the medium: a line in a log has room for a few.
fn near<'a>(path: &'a str, it: &str) -> &'a str {
    let folder = it.len() - base(it).len();
    path.strip_prefix(&it[..folder]).filter(|rest| folder > 0 && !rest.is_empty()).unwrap_or(path)
}

/// The links in words; of many files that were made of it the first ones, so that what was done with them is told, too.
fn said(links: &[Link], it: &str) -> Vec<String> {
    const SHOWN: usize = 3;
    let output = |link: &Link| matches!(link, Link::Output { path: Some(_) });
    let more = links.iter().filter(|link| output(link)).count().saturating_sub(SHOWN);
    let (mut outputs, mut all) = (0, Vec::new());
    for link in links {
        outputs += usize::from(output(link));
        match outputs {
            n if !output(link) || n <= SHOWN => all.push(words(link, it)),
            n if n == SHOWN + 1 => all.push(format!("{more} more files were made of it")),
            _ => {}
        }
    }
    all
}

fn words(link: &Link, it: &str) -> String {
    match link {
        Link::Tool { name, payload: true } => format!("{name} wrote into its metadata what is no caption"),
        Link::Tool { name, .. } => format!("{name} worked on it"),
        Link::Libraries { names } => format!("its reader has {} loaded", names.join(", ")),
        Link::Changed { path, format, size: (width, height) } => {
            let what = format!("a {} of its size ({width}x{height}) with other content", format.word());
            match path {
                Some(file) if file == it => format!("it was written anew, as {what}"),
                Some(file) => format!("{} is {what}", near(file, it)),
                None => format!("{what} was sent"),
            }
        }
        Link::Output { path: Some(output) } => format!("{} was made of it", near(output, it)),
        Link::Output { path: None } => "its content went on through a pipe".into(),
        Link::Script(s) => format!("{} ran {}, which {}", s.interpreter, near(&s.runs, it), s.how),
        Link::Socket { connection, proven, .. } => {
            let what = if *proven { "its content was sent" } else { "something was sent afterwards" };
            format!("{what}{}", route(Some(connection)))
        }
        Link::Mismatch { path: file, behind, content } => {
            let file = if file == it { "it" } else { near(file, it) };
            let behind = behind.as_ref().map(|b| {
                let what = b.magic.map(|m| format!(" ({})", m.word())).unwrap_or_default();
                format!("{file} has {} bytes{what} behind its end at byte {}", b.bytes, b.at)
            });
            let content = content.as_ref().map(|c| format!("{file} is {c}, other than its name says"));
            behind.into_iter().chain(content).collect::<Vec<_>>().join(", ")
        }
    }
}

/// The steps in short, for a line in a log.
fn steps(all: &[Step], last: &Step, it: &str) -> String {
    const SHOWN: usize = 8;
    let mut said: Vec<String> = all
        .iter()
        .take(SHOWN)
        .map(|s| {
            let to =
                s.to.as_ref().map(|to| format!(" {}", name(to.exe.as_deref(), to.pid))).unwrap_or_default();
            let file = s.file.as_ref().map(|file| format!(" {}", near(file, it))).unwrap_or_default();
            format!("{} {}{to}{file}", name(s.process.exe.as_deref(), s.process.pid), s.did)
        })
        .collect();
    if all.len() > SHOWN {
        said.push(format!("… {} {}", name(last.process.exe.as_deref(), last.process.pid), last.did));
    }
    said.join(", ")
}

fn link(link: &Link) -> Value {
    match link {
        Link::Tool { name, payload } => json!({"link": "tool", "name": name, "payload": payload}),
        Link::Libraries { names } => json!({"link": "image-libraries", "names": names}),
        Link::Changed { path, format, size: (width, height) } => json!({
            "link": "changed", "path": path, "format": format.word(), "width": width, "height": height,
        }),
        Link::Output { path } => json!({"link": "output", "path": path}),
        Link::Script(s) => {
            json!({"link": "script", "interpreter": s.interpreter, "runs": s.runs, "how": s.how})
        }
        Link::Socket { connection, transfer, proven, .. } => {
            json!({"link": "socket", "remote": connection.remote, "server_name": connection.server_name,
                   "transfer": transfer, "proven": proven})
        }
        Link::Mismatch { path, behind, content } => json!({
            "link": "mismatch", "path": path, "content": content,
            "behind": behind.as_ref().map(|b| json!({"offset": b.at, "length": b.bytes, "magic": b.magic.map(|m| m.word())})),
        }),
    }
}

fn step(s: &Step) -> Value {
    json!({"at": s.at, "process": s.process, "did": s.did, "to": s.to, "over": s.over, "transfer": s.transfer, "file": s.file})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::told::Script;
    use crate::model::Connection;

    #[test]
    fn names_are_short_beside_the_medium() {
        assert_eq!(near("/a/b/got.sh", "/a/b/in.jpg"), "got.sh");
        assert_eq!(near("/a/b/c/got.sh", "/a/b/in.jpg"), "c/got.sh");
        assert_eq!(near("/a/bc/got.sh", "/a/b/in.jpg"), "/a/bc/got.sh");
        assert_eq!(near("got.sh", "in.jpg"), "got.sh");
        assert_eq!(near("/got.sh", "/in.jpg"), "got.sh");
    }

    /// What came of it and where that went stands in the first 384 characters, which are what syslog has room for.
    #[test]
    fn a_long_chain_in_a_short_line() {
        let folder = format!("/home/ann/{}", "pictures-of-a-holiday/".repeat(4));
        let output = |n: usize| Link::Output { path: Some(format!("{folder}part{n}.bin")) };
        let mut links = vec![Link::Tool { name: "steghide".into(), payload: false }];
        links.extend((0..8).map(output));
        links.push(Link::Script(Script {
            interpreter: "sh".into(),
            runs: format!("{folder}part0.bin"),
            how: "came out of it",
        }));
        let connection = Connection {
            local: Some("10.0.0.1:40000".into()),
            remote: Some("10.0.0.2:443".into()),
            ..Connection::default()
        };
        links.push(Link::Socket { connection, flow: None, transfer: None, proven: false });
        let file = crate::model::FileFact { path: Some(format!("{folder}in.jpg")), ..Default::default() };
        let chain = MediaChain {
            rule: "media-script",
            severity: crate::model::Severity::Critical,
            proven: false,
            file,
            process: None,
            links,
            steps: Vec::new(),
            window: 300,
            seen: jiff::Timestamp::now(),
        };
        let path = chain.file.path.clone().unwrap();
        let text = format!("{}: {path}: {}", title(&chain, &path), said(&chain.links, &path).join("; "));
        let line: String = text.chars().take(384).collect();
        for words in ["in.jpg", "steghide", "part0.bin", "5 more files", "sh ran part0.bin", "10.0.0.2:443"] {
            assert!(line.contains(words), "{words} is not in {line}");
        }
    }
}
