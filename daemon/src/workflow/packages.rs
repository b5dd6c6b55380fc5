//! Did a package bring this file?
//!
//! Yes where the package manager itself wrote it, or where it is, to the byte, what dpkg's own records say that the
//! package has. Called for a change only: it reads all of dpkg's lists.
#![forbid(unsafe_code)]

use crate::model::Process;
use md5::{Digest, Md5};
use std::fs;
use std::path::Path;

/// Programs that install packages, by their whole paths.
const MANAGERS: &[&str] = &[
    "/usr/bin/dpkg",
    "/usr/bin/apt",
    "/usr/bin/apt-get",
    "/usr/bin/aptitude",
    "/usr/bin/unattended-upgrade",
    "/usr/bin/ucf",
    "/usr/bin/rpm",
    "/usr/bin/dnf",
    "/usr/bin/dnf5",
    "/usr/bin/yum",
    "/usr/bin/zypper",
    "/usr/bin/pacman",
    "/usr/lib/snapd/snapd",
];

/// Which package, in words.
pub(super) fn brought(root: &Path, path: &Path, by: Option<&Process>) -> Option<String> {
    if let Some(package) = recorded(root, path) {
        return Some(package);
    }
    let by = by?;
    let above = by.parents.iter().filter_map(|p| p.exe.as_deref());
    let manager = by.exe.as_deref().into_iter().chain(above).find(|exe| MANAGERS.contains(exe))?;
    Some(format!("a package ({})", manager.rsplit('/').next().unwrap_or(manager)))
}

/// The package whose records have this very content for this file.
fn recorded(root: &Path, path: &Path) -> Option<String> {
    let content = fs::metadata(path).ok().filter(|m| m.is_file() && m.len() <= super::LONGEST);
    let content = content.and_then(|_| fs::read(path).ok())?;
    let md5: String = Md5::digest(&content).iter().map(|b| format!("{b:02x}")).collect();
    let inside = Path::new("/").join(path.strip_prefix(root).ok()?);
    let name = inside.to_str()?;
    // Packages from before the merge of /usr name files by their old places.
    let old = name.strip_prefix("/usr").filter(|rest| rest.starts_with("/lib") || rest.starts_with("/bin"));
    let names = [Some(name), old];
    let is = |n: &str| names.iter().flatten().any(|name| *name == n);
    let dpkg = root.join("var/lib/dpkg");
    let status = fs::read_to_string(dpkg.join("status")).unwrap_or_default();
    let mut package = "";
    for line in status.lines() {
        if let Some(name) = line.strip_prefix("Package: ") {
            package = name;
        }
        // A configuration file, as the package brings it.
        if let Some((file, rest)) = line.strip_prefix(' ').and_then(|l| l.split_once(' '))
            && is(file)
            && rest.split(' ').next() == Some(&md5)
        {
            return Some(format!("package {package}"));
        }
    }
    let ucf = fs::read_to_string(root.join("var/lib/ucf/hashfile")).unwrap_or_default();
    if ucf.lines().filter_map(|l| l.split_once("  ")).any(|(sum, file)| sum == md5 && is(file)) {
        return Some("a package (ucf)".into());
    }
    for list in fs::read_dir(dpkg.join("info")).ok()?.flatten() {
        let file = list.path();
        if file.extension().is_none_or(|e| e != "md5sums") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap_or_default();
        let mut lines = text.lines().filter_map(|l| l.split_once("  "));
        if lines.any(|(sum, file)| sum == md5 && is(&format!("/{file}"))) {
            let name = file.file_stem()?.to_string_lossy().into_owned();
            return Some(format!("package {}", name.split(':').next().unwrap_or(&name)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProcessName;

    #[test]
    fn what_dpkg_has_is_a_packages() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let (conf, lib) = (put("etc/x.conf", "hello\n"), put("usr/lib/ossl-modules/legacy.so", "hello\n"));
        const MD5: &str = "b1946ac92492d2347c6235b4d2611184";
        put("var/lib/dpkg/status", &format!("Package: x\nConffiles:\n /etc/x.conf {MD5}\n"));
        put("var/lib/dpkg/info/libssl3:amd64.md5sums", &format!("{MD5}  lib/ossl-modules/legacy.so\n"));
        assert_eq!(brought(root.path(), &conf, None).as_deref(), Some("package x"));
        assert_eq!(brought(root.path(), &lib, None).as_deref(), Some("package libssl3"));
        fs::write(&conf, "hacked\n").unwrap();
        assert_eq!(brought(root.path(), &conf, None), None);
        let dpkg = ProcessName { pid: 1, exe: Some("/usr/bin/dpkg".into()) };
        let by = Process { exe: Some("/bin/sh".into()), parents: vec![dpkg], ..Process::default() };
        assert_eq!(brought(root.path(), &conf, Some(&by)).as_deref(), Some("a package (dpkg)"));
        let by = Process { exe: Some("/tmp/dpkg".into()), ..Process::default() };
        assert_eq!(brought(root.path(), &conf, Some(&by)), None, "by its path, never by its name");
    }
}
