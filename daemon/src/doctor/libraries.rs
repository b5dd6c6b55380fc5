//! The libraries that a program will have, without starting it.
//!
//! Comes in: a program. Goes out: its libraries and theirs, where they are found. Called by [`super::program`]. Looks
//! where the loader looks (ld.so(8)), but for its cache, which says the same as its configuration; nothing is executed,
//! since `ldd` and the loader are not meant for files that one doesn't trust.
#![forbid(unsafe_code)]

use super::image::{Elf, Image, look};
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

/// Libraries that are followed.
const MOST: usize = 256;
/// Files of configuration that are read, each of at most 64 KiB.
const CONFIGURATIONS: usize = 64;

/// A library.
#[derive(Debug)]
pub struct Library {
    /// As it was asked for.
    pub name: String,
    /// Who asked first.
    pub wanted_by: String,
    /// Where it is; None: it wasn't found.
    pub path: Option<PathBuf>,
    /// TLS functions that it has itself.
    pub tls_inside: bool,
}

/// All libraries of the program `elf` at `path`.
#[must_use]
pub fn of(path: &Path, elf: &Elf) -> Vec<Library> {
    let places = system_places();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let mut open: VecDeque<(String, String, Vec<PathBuf>)> = VecDeque::new();
    let mut want = |needed: &[String], by: &str, of: &Path, paths: &[String], open: &mut VecDeque<_>| {
        let own: Vec<PathBuf> = paths.iter().filter_map(|p| expand(p, of)).collect();
        for library in needed {
            if seen.len() < MOST && seen.insert(library.clone()) {
                open.push_back((library.clone(), by.to_owned(), own.clone()));
            }
        }
    };
    want(&elf.needed, &name, path, &elf.paths, &mut open);
    while let Some((name, wanted_by, own)) = open.pop_front() {
        let candidates: Vec<PathBuf> = if name.contains('/') {
            vec![name.clone().into()]
        } else {
            own.iter().chain(&places).map(|p| p.join(&name)).collect()
        };
        let hit =
            candidates.into_iter().find_map(|path| match look(std::fs::File::open(&path).ok()?).ok()? {
                // A library of another kind is passed over, as the loader does.
                Image::Elf(e) if e.bits == elf.bits && e.machine == elf.machine => Some((path, e)),
                _ => None,
            });
        let (path, tls_inside) = match hit {
            Some((path, library)) => {
                // $ORIGIN is where the file is, not where a link to it is.
                let real = path.canonicalize().unwrap_or_else(|_| path.clone());
                want(&library.needed, &name, &real, &library.paths, &mut open);
                (Some(path), library.defines.contains("SSL_write"))
            }
            None => (None, false),
        };
        found.push(Library { name, wanted_by, path, tls_inside });
    }
    found
}

fn expand(path: &str, of: &Path) -> Option<PathBuf> {
    let origin = of.parent()?.to_str()?;
    let path = path.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
    Some(PathBuf::from(path)).filter(|p| p.is_absolute())
}

/// Where the loader looks by itself: what its configuration names, then the default folders.
fn system_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    let mut files: VecDeque<PathBuf> = VecDeque::from(["/etc/ld.so.conf".into()]);
    let mut read = 0;
    while let Some(file) = files.pop_front() {
        read += 1;
        if read > CONFIGURATIONS {
            break;
        }
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for line in text.lines().map(|l| l.split('#').next().unwrap_or("").trim()) {
            match line.strip_prefix("include ") {
                Some(pattern) => {
                    let pattern = Path::new("/etc").join(pattern.trim());
                    files.extend(
                        glob::glob(&pattern.to_string_lossy())
                            .into_iter()
                            .flatten()
                            .flatten()
                            .take(CONFIGURATIONS),
                    );
                }
                None if line.starts_with('/') => places.push(line.into()),
                None => {}
            }
        }
    }
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    for folder in ["/lib", "/usr/lib"] {
        places.push(Path::new(folder).join(&triplet));
    }
    places.extend(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tests_libc_is_found() {
        let path = std::env::current_exe().unwrap();
        let Image::Elf(elf) = look(std::fs::File::open(&path).unwrap()).unwrap() else { panic!("no ELF") };
        let libraries = of(&path, &elf);
        let libc = libraries.iter().find(|l| l.name == "libc.so.6").expect("libc is asked for");
        assert!(libc.path.as_ref().is_some_and(|p| p.is_file()), "{libraries:?}");
        // The loader is asked for by libc itself.
        assert!(
            libraries.iter().any(|l| l.name.starts_with("ld-linux") && l.path.is_some()),
            "{libraries:?}"
        );
    }

    #[test]
    fn origin_is_the_programs_folder() {
        let of = Path::new("/opt/x/bin/prog");
        assert_eq!(expand("$ORIGIN/../lib", of), Some("/opt/x/bin/../lib".into()));
        assert_eq!(expand("${ORIGIN}", of), Some("/opt/x/bin".into()));
        assert_eq!(expand("lib", of), None);
    }
}
