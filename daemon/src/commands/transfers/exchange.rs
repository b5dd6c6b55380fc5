//! Transfers out to a file, in from a file, and two hosts' sides compared.
#![forbid(unsafe_code)]

use super::{Args, Format};
use crate::commands::{NO, print, say};
use crate::escape::text;
use crate::ledger::{Importer, Reader};
use crate::model::{Channel, Tap};
use crate::portable::{self, Halves, Pair, Role, Writer, path_bytes};
use crate::report::style::{Colour, Style};
use crate::verify::checksums::{hex, line};
use crate::verify::folder::regular;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A larger file is not imported.
const LARGEST: u64 = 1 << 30;

/// Writes what the filter lets through to `file`.
pub fn export(reader: &Reader, args: &Args, file: &Path) -> anyhow::Result<u8> {
    let failed = || format!("can't write to {}", file.display());
    let mut out = Out::create(file).with_context(failed)?;
    let written = match args.format {
        Format::Transfers => transfers(reader, args, &mut out),
        Format::Sha256sum => sums(reader, args, &mut out),
    };
    let count = match written.and_then(|count| Ok(out.finish().map(|()| count)?)) {
        // Whoever reads our output has had enough.
        Err(e) if file == Path::new("-") && broken_pipe(&e) => return Ok(0),
        // What the ledger says names itself.
        other => other.map_err(|e| if e.is::<io::Error>() { e.context(failed()) } else { e })?,
    };
    if file != Path::new("-") {
        let what = if args.format == Format::Transfers { "transfers" } else { "files" };
        print(&format!("{count} {what} exported to {}\n", text(&file.to_string_lossy())))?;
    }
    Ok(0)
}

fn broken_pipe(e: &anyhow::Error) -> bool {
    e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn transfers(reader: &Reader, args: &Args, out: &mut Out) -> anyhow::Result<u64> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut writer = Writer::begin(out, &host)?;
    let mut written = Ok(());
    reader.transfers(args.filter(), |t| {
        if args.wants(&t) {
            written = writer.transfer(&t);
        }
        written.is_ok()
    })?;
    written?;
    Ok(writer.end()?)
}

/// A file that was transferred twice has the digest that it had last.
fn sums(reader: &Reader, args: &Args, out: &mut Out) -> anyhow::Result<u64> {
    let mut files: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    reader.transfers(args.filter(), |t| {
        for (role, end) in [(Role::Origin, &t.origin), (Role::Destination, &t.destination)] {
            let wanted = args.wants(&t) && args.end.is_none_or(|e| e.role() == role);
            let Some(e) = end.as_ref().filter(|_| wanted) else { continue };
            let of_file = t.channel == Channel::File || matches!(e.tap, Tap::FileRead | Tap::FileWrite);
            if let (Some(path), Some(sha), true) = (&e.path, &e.sha256, of_file) {
                files.insert(path_bytes(path), sha.clone());
            }
        }
        true
    })?;
    for (path, sha) in &files {
        out.write_all(&line(path, sha))?;
    }
    Ok(files.len() as u64)
}

/// A file that is there whole or not at all; standard output; or a device or pipe.
enum Out {
    File { to: BufWriter<File>, temporary: PathBuf, path: PathBuf },
    Stream(BufWriter<Box<dyn Write>>),
}

impl Out {
    fn create(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stream(BufWriter::new(Box::new(io::stdout()))));
        }
        // Through a link, so that it stays one.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if std::fs::metadata(&path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
            return Ok(Self::Stream(BufWriter::new(Box::new(OpenOptions::new().write(true).open(path)?))));
        }
        let Some(name) = path.file_name().filter(|_| !path.is_dir()) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        // It tells who sent what: for its owner alone, as the ledger is.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        Ok(Self::File { to: BufWriter::new(file), temporary, path })
    }

    fn finish(mut self) -> io::Result<()> {
        match &mut self {
            Self::Stream(to) => to.flush(),
            Self::File { to, temporary, path } => {
                to.flush()?;
                to.get_ref().sync_all()?;
                std::fs::rename(&*temporary, &*path)
            }
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { to, .. } => to.write(bytes),
            Self::Stream(to) => to.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File { to, .. } => to.flush(),
            Self::Stream(to) => to.flush(),
        }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if let Self::File { temporary, .. } = self {
            // After `finish` it is gone already.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Takes in what `file` has: first all of it is looked at, then it is written.
pub fn import(state: &Path, file: &Path) -> anyhow::Result<u8> {
    let whole = || -> anyhow::Result<(String, u64)> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut opened = regular(OpenOptions::new().read(true).custom_flags(flags).open(file)?)?;
        let size = opened.metadata()?.len();
        if size > LARGEST {
            bail!(
                "it has {size} bytes, and at most {LARGEST} are imported: export a shorter time with --since"
            );
        }
        let mut count = 0;
        let header = portable::read(BufReader::new(&opened), |_| {
            count += 1;
            true
        })?;
        if header.host.is_empty() || header.host.len() > 255 {
            bail!("it doesn't say which host it is from");
        }
        opened.rewind()?;
        let mut importer = Importer::open(state, &header.host)?;
        let mut put = Ok(());
        portable::read(BufReader::new(&opened), |t| {
            put = importer.put(t);
            put.is_ok()
        })?;
        put?;
        importer.commit()?;
        Ok((header.host, count))
    };
    let (host, count) = whole().with_context(|| format!("can't import {}", file.display()))?;
    print(&format!(
        "{count} transfers of {} imported; see transfers --compare, transfers --imported\n",
        text(&host)
    ))?;
    Ok(0)
}

/// Lays our transfers beside those that were imported.
pub fn compare(reader: &Reader, args: &Args) -> anyhow::Result<u8> {
    let mut ours = Halves::default();
    reader.transfers(Default::default(), |t| {
        ours.take(&t, None);
        true
    })?;
    let mut theirs = Halves::default();
    reader.imported(|_, t| {
        theirs.take(&t, None);
        true
    })?;
    let (ours, theirs) = (ours.finish(), theirs.finish());
    let (pairs, shared) = portable::pair(&ours, &theirs);
    if !shared {
        say(
            "no connection is both in the ledger and in what was imported: nothing can be compared. Import what the \
             other host exported (counterfoil transfers --export), of the same time",
        );
        return Ok(NO);
    }
    let style = Style::stdout();
    let mut all_equal = true;
    let wanted = |p: &Pair<'_>| {
        let path = |h: Option<&portable::Half>| h.and_then(|h| h.path.clone());
        let fits = |p: String| args.path.as_ref().is_none_or(|paths| paths.fit(&p));
        args.path.is_none() || path(p.a).is_some_and(fits) || path(p.b).is_some_and(fits)
    };
    for pair in pairs.iter().filter(|p| wanted(p)) {
        all_equal &= pair.equal() == Some(true);
        if !print(&if args.json { pair_json(pair) } else { pair_row(pair, &style) })? {
            break;
        }
    }
    Ok(if all_equal { 0 } else { NO })
}

fn pair_row(pair: &Pair<'_>, style: &Style) -> String {
    let (word, colour) = match (pair.a, pair.b, pair.equal()) {
        (Some(_), Some(_), Some(true)) => ("same", Colour::Green),
        (Some(_), Some(_), Some(false)) => ("DIFFERENT", Colour::Red),
        (Some(_), Some(_), None) => ("unknown", Colour::Yellow),
        (Some(_), None, _) => ("only here", Colour::Yellow),
        _ => ("only there", Colour::Yellow),
    };
    let bytes = |h: Option<&portable::Half>| h.map_or_else(|| "?".to_owned(), |h| h.bytes.to_string());
    let sha = |h: Option<&portable::Half>| h.and_then(|h| h.sha256.as_ref()).map(hex);
    let mut more = match (sha(pair.a), sha(pair.b)) {
        (None, None) => String::new(),
        (Some(a), Some(b)) if a == b => format!("  sha256 {a}"),
        (a, b) => {
            let shown = |s: Option<String>| s.unwrap_or_else(|| "?".into());
            format!("  sha256 here {}, there {}", shown(a), shown(b))
        }
    };
    if word == "unknown" {
        more += "  (no SHA-256 at both ends; tags of two keys can't be compared)";
    }
    let bytes = match (bytes(pair.a), bytes(pair.b)) {
        (a, b) if a == b => a,
        (a, b) => format!("{a}/{b}"),
    };
    let gap = " ".repeat(10_usize.saturating_sub(word.len()));
    format!("{}{gap}  {}  {bytes}{more}\n", style.paint(colour, word), text(&pair.name()))
}

fn pair_json(pair: &Pair<'_>) -> String {
    let half = |h: Option<&portable::Half>| {
        h.map_or(Value::Null, |h| {
            let role = if h.role == Role::Origin { "origin" } else { "destination" };
            json!({ "transfer": h.id, "end": role, "host": h.host, "path": h.path, "bytes": h.bytes,
                    "sha256": h.sha256.as_ref().map(hex), "flows": h.flows })
        })
    };
    let value =
        json!({ "type": "counterpart", "equal": pair.equal(), "here": half(pair.a), "there": half(pair.b) });
    value.to_string() + "\n"
}

#[cfg(test)]
mod tests;
