//! Names: which programs are services, which are tools, and who starts and uses them.
#![forbid(unsafe_code)]

use crate::model::{Process, ProcessName};

/// Programs that serve transfers.
const SERVICES: &[&str] = &[
    "sshd",
    "sshd-session",
    "sshd-auth",
    "sftp-server",
    "nginx",
    "apache2",
    "httpd",
    "haproxy",
    "stunnel",
    "stunnel4",
    "vsftpd",
];
/// Programs that people transfer with.
const TOOLS: &[&str] = &[
    "ssh",
    "scp",
    "sftp",
    "rsync",
    "curl",
    "wget",
    "openssl",
    "lftp",
    "git",
    "socat",
    "nc",
    "nc.openbsd",
    "nc.traditional",
    "ncat",
];
/// Servers that run commands for who logs in.
const LOGIN: &[&str] = &["sshd", "sshd-session", "sshd-auth", "dropbear", "tinysshd"];
/// They stand between a program and who wanted it started.
const TRANSPARENT: &[&str] = &[
    "sh",
    "bash",
    "dash",
    "zsh",
    "ksh",
    "ksh93",
    "mksh",
    "ash",
    "fish",
    "busybox",
    "sudo",
    "su",
    "doas",
    "env",
    "nice",
    "ionice",
    "timeout",
    "setpriv",
    "setsid",
    "nohup",
    "stdbuf",
    "taskset",
    "chrt",
    "counterfoil",
    // Restricted login shells.
    "rssh",
    "scponly",
    "lshell",
    "git-shell",
];

/// `nginx`, of `/usr/sbin/nginx`.
#[must_use]
pub fn name(exe: &str) -> &str {
    let last = exe.rsplit('/').next().unwrap_or(exe);
    last.strip_prefix("memfd:").unwrap_or(last)
}

fn of(process: &Process) -> &str {
    process.exe.as_deref().map_or("", name)
}

/// Does a program of this name serve transfers?
#[must_use]
pub fn serves(name: &str) -> bool {
    SERVICES.contains(&name)
}

/// Is this a name that transfers are known by?
#[must_use]
pub fn known(name: &str) -> bool {
    serves(name) || TOOLS.contains(&name)
}

/// What there is to say about who started a program.
#[derive(Debug, PartialEq, Eq)]
pub enum Start<'p> {
    /// Nothing.
    Ordinary,
    /// Nobody but these starts it.
    Impossible(&'p ProcessName, &'static [&'static str]),
    /// It depends on what is ordinary on this host.
    Depends(&'p ProcessName),
}

/// Who started a program, held against who does.
#[must_use]
pub fn start(process: &Process) -> Start<'_> {
    const SFTP: &[&str] =
        &["sshd", "sshd-session", "sshd-auth", "dropbear", "tinysshd", "sftp", "scp", "sshfs", "ssh"];
    const SESSION: &[&str] = &["sshd", "sshd-session"];
    let Some(parent) = process.parents.first() else { return Start::Ordinary };
    // pid 1 adopts whose parents are gone: who they were can't be known any more.
    let Some(exe) = parent.exe.as_deref().filter(|_| parent.pid != 1) else { return Start::Ordinary };
    match of(process) {
        "sftp-server" => {
            let named = process.parents.iter().filter(|p| p.pid != 1);
            let nearest = named
                .map(|p| (p, p.exe.as_deref().map(name)))
                .find(|(_, n)| n.is_none_or(|n| !TRANSPARENT.contains(&n)));
            match nearest {
                Some((by, Some(n))) if !SFTP.contains(&n) => Start::Impossible(by, SFTP),
                _ => Start::Ordinary,
            }
        }
        "sshd-session" | "sshd-auth" if !SESSION.contains(&name(exe)) => Start::Impossible(parent, SESSION),
        // A service starts itself again, or is started by what this host starts services with.
        n if serves(n) && name(exe) != n && !LOGIN.contains(&name(exe)) => Start::Depends(parent),
        // A web server that starts curl: a script of its own, or somebody who got in by it.
        n if TOOLS.contains(&n) && serves(name(exe)) && !LOGIN.contains(&name(exe)) => Start::Depends(parent),
        _ => Start::Ordinary,
    }
}

/// Services that only some programs connect to, their ports and those programs.
const CLIENTS: &[(&[&str], &[u16], &[&str])] = &[
    (
        &["sshd", "sshd-session", "dropbear"],
        &[22],
        &[
            "ssh",
            "scp",
            "sftp",
            "rsync",
            "git",
            "curl",
            "lftp",
            "sshfs",
            "ssh-keyscan",
            "ssh-copy-id",
            "autossh",
            "putty",
            "plink",
            "pscp",
            "psftp",
            "filezilla",
            "rclone",
            "restic",
            "mosh",
            "mosh-client",
            "gvfsd-sftp",
            "kio_sftp",
            "remmina",
            "sshd",
            "sshd-session",
            "dbclient",
        ],
    ),
    (&["vsftpd"], &[21, 990], &["ftp", "tnftp", "lftp", "curl", "wget", "filezilla", "rclone", "gvfsd-ftp"]),
    (&["rsync"], &[873], &["rsync"]),
];

/// The service that a process connects to and that such processes don't connect to: its program where
/// that is known, else its port.
#[must_use]
pub fn strange_to(client: &Process, service: Option<&str>, port: u16) -> Option<String> {
    let (servers, _, usual) = CLIENTS.iter().find(|(servers, ports, _)| match service {
        Some(exe) => servers.contains(&name(exe)),
        None => ports.contains(&port),
    })?;
    let strange = |n: &str| !n.is_empty() && !usual.contains(&n);
    // ssh's ProxyCommand, rsync's transport: what a usual client started is its own.
    let parents = client.parents.iter().take(2).filter_map(|p| p.exe.as_deref());
    let started_by_usual = parents.map(name).any(|n| usual.contains(&n) && !servers.contains(&n));
    let subject = || service.map_or_else(|| format!("port {port}"), str::to_owned);
    (strange(of(client)) && !started_by_usual).then(subject)
}

/// Whether only some programs connect to this one.
#[must_use]
pub fn picky(name: &str) -> bool {
    CLIENTS.iter().any(|(servers, _, _)| servers.contains(&name))
}

/// Whether only some programs connect to such a port.
#[must_use]
pub fn picky_port(port: u16) -> bool {
    CLIENTS.iter().any(|(_, ports, _)| ports.contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(exe: &str, parents: &[&str]) -> Process {
        let parents = parents.iter().enumerate();
        Process {
            pid: 100,
            exe: Some(exe.into()),
            parents: parents
                .map(|(i, p)| ProcessName { pid: 90 - i as u32, exe: Some((*p).into()) })
                .collect(),
            ..Process::default()
        }
    }

    #[test]
    fn who_starts_what() {
        const SFTP: &str = "/usr/lib/openssh/sftp-server";
        let says = |exe: &str, parents: &[&str]| match start(&process(exe, parents)) {
            Start::Ordinary => "ordinary".to_owned(),
            Start::Impossible(by, _) => format!("impossible {}", by.exe.as_deref().unwrap()),
            Start::Depends(by) => format!("depends {}", by.exe.as_deref().unwrap()),
        };
        assert_eq!(says(SFTP, &["/usr/sbin/sshd", "/usr/sbin/sshd"]), "ordinary");
        assert_eq!(says(SFTP, &["/usr/bin/bash", "/usr/sbin/sshd"]), "ordinary");
        assert_eq!(
            says(SFTP, &["/usr/bin/sudo", "/usr/bin/dash", "/usr/lib/openssh/sshd-session"]),
            "ordinary"
        );
        assert_eq!(says(SFTP, &["/usr/bin/python3.11", "/usr/sbin/sshd"]), "impossible /usr/bin/python3.11");
        assert_eq!(says(SFTP, &["/usr/bin/bash", "/usr/bin/perl"]), "impossible /usr/bin/perl");
        assert_eq!(says(SFTP, &["/usr/bin/bash"]), "ordinary", "it can't be known");
        assert_eq!(says("/usr/sbin/sshd", &["/usr/sbin/sshd"]), "ordinary");
        assert_eq!(says("/usr/sbin/sshd", &["/usr/bin/bash"]), "depends /usr/bin/bash");
        assert_eq!(says("/usr/lib/openssh/sshd-session", &["/usr/bin/bash"]), "impossible /usr/bin/bash");
        for parent in ["/usr/bin/bash", "/usr/bin/python3.11", "/usr/sbin/sshd", "/usr/bin/make"] {
            for tool in TOOLS {
                assert_eq!(says(&format!("/usr/bin/{tool}"), &[parent]), "ordinary");
            }
        }
        assert_eq!(says("/usr/bin/curl", &["/usr/sbin/nginx"]), "depends /usr/sbin/nginx");
        let mut adopted = process("/usr/sbin/sshd", &["/usr/lib/systemd/systemd"]);
        adopted.parents[0].pid = 1;
        assert_eq!(start(&adopted), Start::Ordinary);
    }

    #[test]
    fn who_connects_where() {
        let sshd = Some("/usr/sbin/sshd");
        let strange =
            |exe: &str, parents: &[&str], service, port| strange_to(&process(exe, parents), service, port);
        assert_eq!(strange("/usr/bin/ssh", &[], sshd, 2222), None);
        assert_eq!(strange("/usr/bin/python3", &[], sshd, 2222).as_deref(), sshd);
        assert_eq!(strange("/usr/bin/python3", &[], None, 22).as_deref(), Some("port 22"));
        assert_eq!(strange("/usr/bin/python3", &[], None, 443), None);
        assert_eq!(strange("/usr/bin/python3", &[], Some("/usr/sbin/nginx"), 22), None);
        assert_eq!(strange("/usr/bin/nc.openbsd", &["/usr/bin/bash", "/usr/bin/ssh"], sshd, 22), None);
        assert_eq!(
            strange("/usr/bin/nc.openbsd", &["/usr/bin/bash", "/usr/sbin/sshd"], sshd, 22).as_deref(),
            sshd
        );
        assert_eq!(
            strange("/usr/bin/curl", &[], Some("/usr/bin/rsync"), 873).as_deref(),
            Some("/usr/bin/rsync")
        );
    }
}
