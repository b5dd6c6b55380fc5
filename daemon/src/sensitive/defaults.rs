//! What is sensitive, and whose work it is to read it, where nothing is configured.
#![forbid(unsafe_code)]

use crate::model::Severity;
use crate::model::Severity::{Critical, High};

/// A kind of sensitive file: its label, what an alarm about it is at most, and where it lies. `~` is every user's home.
pub(super) type Kind = (&'static str, Severity, &'static [&'static str]);

const HASHES: &str = "password hashes";
const SUDO: &str = "sudo rules";
const PAM: &str = "PAM configuration";
const HOST_KEY: &str = "SSH host key";
const USER_KEY: &str = "SSH private key";
const GNUPG: &str = "GnuPG private key";
const NETRC: &str = "netrc passwords";
const GIT: &str = "git passwords";
const PGPASS: &str = "PostgreSQL passwords";
const KEYTAB: &str = "Kerberos keytab";
const KUBE: &str = "Kubernetes credentials";
const DOCKER: &str = "container registry credentials";
const BROWSER: &str = "browser credentials";

pub(super) const KINDS: &[Kind] = &[
    (
        HASHES,
        Critical,
        &["/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/security/opasswd"],
    ),
    (SUDO, High, &["/etc/sudoers", "/etc/sudoers.d/*"]),
    (PAM, High, &["/etc/pam.d/*"]),
    (HOST_KEY, Critical, &["/etc/ssh/ssh_host_*_key"]),
    (USER_KEY, Critical, &["~/.ssh/id_*", "~/.ssh/identity", "~/.ssh/*.pem", "~/.ssh/*.key"]),
    (
        "AWS credentials",
        Critical,
        &["~/.aws/credentials", "~/.aws/sso/cache/*.json", "~/.aws/cli/cache/*.json"],
    ),
    (
        "Azure credentials",
        Critical,
        &[
            "~/.azure/accessTokens.json",
            "~/.azure/msal_token_cache.*",
            "~/.azure/service_principal_entries.*",
        ],
    ),
    (
        "Google Cloud credentials",
        Critical,
        &[
            "~/.config/gcloud/credentials.db",
            "~/.config/gcloud/access_tokens.db",
            "~/.config/gcloud/application_default_credentials.json",
            "~/.config/gcloud/legacy_credentials/*/*",
        ],
    ),
    (
        KUBE,
        Critical,
        &[
            "~/.kube/config",
            "/run/secrets/kubernetes.io/serviceaccount/token",
            "/run/secrets/kubernetes.io/serviceaccount/*/token",
            "/var/run/secrets/kubernetes.io/serviceaccount/token",
            "/etc/kubernetes/*.conf",
            "/etc/kubernetes/pki/*.key",
            "/etc/kubernetes/pki/*/*.key",
        ],
    ),
    (DOCKER, Critical, &["~/.docker/config.json", "~/.config/containers/auth.json"]),
    (GNUPG, Critical, &["~/.gnupg/private-keys-v1.d/*", "~/.gnupg/secring.gpg"]),
    (NETRC, Critical, &["~/.netrc"]),
    (GIT, Critical, &["~/.git-credentials"]),
    (PGPASS, Critical, &["~/.pgpass"]),
    (KEYTAB, Critical, &["/etc/*.keytab", "/etc/security/keytabs/*"]),
    (
        BROWSER,
        Critical,
        &[
            "~/.mozilla/firefox/*/logins.json",
            "~/.mozilla/firefox/*/key4.db",
            "~/.mozilla/firefox/*/cookies.sqlite",
            "~/.config/google-chrome/*/Login Data",
            "~/.config/google-chrome/*/Cookies",
            "~/.config/google-chrome/*/Network/Cookies",
            "~/.config/chromium/*/Login Data",
            "~/.config/chromium/*/Cookies",
            "~/.config/chromium/*/Network/Cookies",
        ],
    ),
];

/// The halves of key pairs that are made to be given away.
pub(super) const PUBLIC: &str = ".pub";

/// Programs whose work it is, and what they read for it; no label: anything.
pub(super) type Readers = (&'static [&'static str], &'static [&'static str]);

/// By their whole paths. Shells, interpreters, editors and copying tools don't stand here: they do what others tell
/// them.
pub(super) const READERS: &[Readers] = &[
    (
        &[
            "/usr/sbin/sshd",
            "/usr/lib/openssh/sshd-session",
            "/usr/lib/openssh/sshd-auth",
            "/usr/libexec/openssh/sshd-session",
            "/usr/libexec/openssh/sshd-auth",
        ],
        &[HASHES, PAM, HOST_KEY, KEYTAB],
    ),
    (
        &[
            "/usr/bin/sudo",
            "/usr/sbin/visudo",
            "/usr/bin/su",
            "/usr/sbin/runuser",
            "/usr/bin/login",
            "/usr/sbin/cron",
            "/usr/sbin/crond",
            "/usr/sbin/atd",
            "/usr/sbin/unix_chkpwd",
            "/usr/sbin/unix_update",
            "/usr/bin/passwd",
            "/usr/bin/chage",
            "/usr/bin/chsh",
            "/usr/bin/chfn",
            "/usr/bin/gpasswd",
            "/usr/bin/newgrp",
            "/usr/bin/expiry",
            "/usr/bin/faillog",
            "/usr/bin/pkexec",
            "/usr/bin/systemd-sysusers",
            "/usr/lib/systemd/systemd",
            "/usr/lib/systemd/systemd-logind",
            "/usr/lib/systemd/systemd-executor",
            "/usr/lib/polkit-1/polkit-agent-helper-1",
            "/usr/sbin/chpasswd",
            "/usr/sbin/chgpasswd",
            "/usr/sbin/useradd",
            "/usr/sbin/usermod",
            "/usr/sbin/userdel",
            "/usr/sbin/groupadd",
            "/usr/sbin/groupmod",
            "/usr/sbin/groupdel",
            "/usr/sbin/newusers",
            "/usr/sbin/pwck",
            "/usr/sbin/grpck",
            "/usr/sbin/pwconv",
            "/usr/sbin/grpconv",
            "/usr/sbin/nscd",
            "/usr/sbin/vsftpd",
            "/usr/sbin/proftpd",
            "/usr/lib/dovecot/auth",
            "/usr/sbin/gdm3",
            "/usr/libexec/gdm-session-worker",
            "/usr/sbin/lightdm",
            "/usr/bin/sddm",
        ],
        &[HASHES, SUDO, PAM],
    ),
    (
        &[
            "/usr/bin/dpkg",
            "/usr/bin/dpkg-deb",
            "/usr/bin/dpkg-query",
            "/usr/bin/apt",
            "/usr/bin/apt-get",
            "/usr/bin/aptitude",
            "/usr/bin/rpm",
            "/usr/bin/zypper",
            "/usr/bin/pacman",
        ],
        &[HASHES, SUDO, PAM, HOST_KEY],
    ),
    (
        &[
            "/usr/bin/ssh",
            "/usr/bin/ssh-add",
            "/usr/bin/ssh-agent",
            "/usr/bin/ssh-keygen",
            "/usr/lib/openssh/ssh-keysign",
        ],
        &[USER_KEY, HOST_KEY, KEYTAB],
    ),
    (
        &[
            "/usr/bin/gpg",
            "/usr/bin/gpg-agent",
            "/usr/bin/gpgsm",
            "/usr/bin/gpgconf",
            "/usr/lib/gnupg2/gpg-preset-passphrase",
        ],
        &[GNUPG],
    ),
    (
        &[
            "/usr/bin/curl",
            "/usr/bin/wget",
            "/usr/bin/git",
            "/usr/lib/git-core/git-remote-http",
            "/usr/lib/git-core/git-remote-https",
            "/usr/bin/ftp",
            "/usr/bin/tnftp",
            "/usr/bin/lftp",
        ],
        &[NETRC],
    ),
    (&["/usr/bin/git", "/usr/lib/git-core/git-credential-store"], &[GIT]),
    (
        &[
            "/usr/bin/psql",
            "/usr/lib/postgresql/*/bin/psql",
            "/usr/lib/postgresql/*/bin/pg_dump",
            "/usr/lib/postgresql/*/bin/pg_dumpall",
            "/usr/lib/postgresql/*/bin/pg_restore",
            "/usr/lib/postgresql/*/bin/pg_basebackup",
            "/usr/lib/postgresql/*/bin/pg_receivewal",
            "/usr/lib/postgresql/*/bin/postgres",
        ],
        &[PGPASS],
    ),
    (
        &[
            "/usr/bin/kinit",
            "/usr/sbin/rpc.gssd",
            "/usr/sbin/gssproxy",
            "/usr/sbin/krb5kdc",
            "/usr/sbin/kadmind",
            "/usr/libexec/sssd/*",
        ],
        &[KEYTAB],
    ),
    (
        &[
            "/usr/bin/kubectl",
            "/usr/bin/helm",
            "/usr/bin/kubelet",
            "/usr/bin/kubeadm",
            "/usr/local/bin/kube-*",
        ],
        &[KUBE],
    ),
    (
        &["/usr/bin/docker", "/usr/bin/dockerd", "/usr/bin/podman", "/usr/bin/skopeo", "/usr/bin/buildah"],
        &[DOCKER],
    ),
    (
        &[
            "/usr/lib/firefox/firefox",
            "/usr/lib/firefox-esr/firefox-esr",
            "/opt/google/chrome/chrome",
            "/usr/lib/chromium/chromium",
        ],
        &[BROWSER],
    ),
];

/// Text that stands in many files of a sensitive kind: that it was sent says nothing of any of them.
pub(super) const FORMS: &[&str] = &[
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\nQyNTUxOQAAACA",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAABlwAAAAdzc2gtcn\nNhAAAAAwEAAQAAAYE",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAABFwAAAAdzc2gtcn\nNhAAAAAwEAAQAAAQE",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS\n1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQ",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAAB",
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,\n-----END RSA PRIVATE KEY-----\n-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nMIIEowIBAAKCAQEA",
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PRIVATE KEY-----\nMIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQ\n-----END PRIVATE KEY-----\n",
    "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEI\n-----END EC PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n",
    "[default]\naws_access_key_id = \naws_secret_access_key = \naws_session_token = \nregion = us-east-1\n",
    "{\n\t\"auths\": {\n\t\t\"https://index.docker.io/v1/\": {\n\t\t\t\"auth\": \"",
    "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JS",
    "    server: https://\n  name: kubernetes\ncontexts:\n- context:\n    cluster: kubernetes\n    user: kubernetes-admin\n  name: kubernetes-admin@kubernetes\ncurrent-context: kubernetes-admin@kubernetes\nkind: Config\npreferences: {}\nusers:\n- name: kubernetes-admin\n  user:\n    client-certificate-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JS",
];
