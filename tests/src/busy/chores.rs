//! What is done on a busy host all day, as shell scripts for real programs.
//!
//! Comes in: nothing but the variables that `busy_host` sets: `$H` a home with keys and passwords, `$W` a folder of the host's
//! own, `$WEB` `$S3` `$URL` where the services are, `$CA` whom to believe. Goes out: the list of [`CHORES`].

/// One activity.
pub struct Chore {
    /// What people call it.
    pub name: &'static str,
    /// Every so many rounds.
    pub every: u32,
    /// Programs without which it is left out, which is said.
    pub needs: &'static [&'static str],
    /// For `sh -eu`, behind [`PRELUDE`].
    pub script: &'static str,
}

/// Stands before each of them: `far` is another host by ssh, `vault` the one that gets the approved backup.
pub const PRELUDE: &str = "cd $W; export HOME=$H RSYNC_RSH=\"ssh -F $H/.ssh/config\" GIT_SSH_COMMAND=\"ssh -F $H/.ssh/config\" \
    GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b\n\
    ssh() { command ssh -F $H/.ssh/config \"$@\"; }\nscp() { command scp -q -F $H/.ssh/config \"$@\"; }\n\
    sftp() { command sftp -q -F $H/.ssh/config \"$@\"; }\nget() { curl -sS --cacert $CA \"$@\"; }\n";

const fn chore(
    name: &'static str,
    every: u32,
    needs: &'static [&'static str],
    script: &'static str,
) -> Chore {
    Chore { name, every, needs, script }
}

/// All that is learnt and then done again and again.
pub const CHORES: &[Chore] = &[
    chore(
        "ssh login, identity file, host keys",
        1,
        &["ssh", "sshd"],
        "ssh far 'id; uptime; ls /etc | head -5' >/dev/null; ssh far 'cat >/dev/null' </etc/services",
    ),
    chore(
        "scp and sftp",
        2,
        &["scp", "sftp"],
        "head -c 300000 /dev/urandom >some; scp some far:$W/far/some; cmp some far/some; scp -O far:$W/far/some back; \
         printf 'put some sent\\nls\\nget sent got\\n' | sftp -b - far:$W/far >/dev/null; cmp some got",
    ),
    chore(
        "sudo",
        1,
        &["sudo"],
        "sudo -n true; sudo -n -u nobody id >/dev/null; sudo -n -l >/dev/null; sudo -n curl -sS --cacert $CA https://localhost:$WEB/page -o /dev/null",
    ),
    chore(
        "su",
        1,
        &["su"],
        "su -s /bin/sh -c \"curl -sS --cacert $CA https://localhost:$WEB/page\" root >/dev/null; su -s /bin/sh -c id nobody >/dev/null",
    ),
    chore(
        "passwd, accounts",
        2,
        &["useradd", "chpasswd", "userdel", "chage"],
        "passwd -S root >/dev/null; chage -l root >/dev/null; useradd -M -N -s /usr/sbin/nologin counterfoil-busy; \
         echo counterfoil-busy:$(head -c 12 /dev/urandom | base64) | chpasswd; passwd -l counterfoil-busy >/dev/null; userdel counterfoil-busy; \
         get https://localhost:$WEB/page >/dev/null",
    ),
    chore(
        "apt: update, list, simulate, download",
        2,
        &["apt-get", "dpkg-deb"],
        "apt-get $APT update >/dev/null; apt-get $APT -s install counterfoil-busy >/dev/null; rm -f *.deb; \
         apt-get $APT download counterfoil-busy >/dev/null; dpkg-deb -I counterfoil-busy*.deb >/dev/null; \
         apt list --installed >/dev/null 2>&1; dpkg -V curl || true",
    ),
    chore(
        "git over ssh",
        1,
        &["/usr/bin/git"],
        "PATH=/usr/bin:$PATH; rm -rf two; git clone -q far:$W/repository two; cd two; date >>file; head -c 20000 /dev/urandom | base64 >>blob; \
         git add .; git commit -qm more; git push -q origin HEAD:main; git fetch -q; git gc -q --auto",
    ),
    chore(
        "curl with .netrc, wget",
        1,
        &["curl", "wget"],
        "get -n https://localhost:$WEB/page >/dev/null; get -n -T small https://localhost:$WEB/up/small; \
         wget -q --ca-certificate=$CA -O /dev/null https://localhost:$WEB/page",
    ),
    chore(
        "an S3 client with its own credentials",
        1,
        &["/usr/bin/python3"],
        "/usr/bin/python3 $S3_CLIENT http://127.0.0.1:$S3 put small; /usr/bin/python3 $S3_CLIENT http://127.0.0.1:$S3 get small >/dev/null",
    ),
    chore(
        "the real aws, with its own credentials",
        3,
        &["aws"],
        "export AWS_EC2_METADATA_DISABLED=true; aws --endpoint-url http://127.0.0.1:$S3 s3 cp --quiet small s3://bucket/small; \
         aws --endpoint-url http://127.0.0.1:$S3 s3 cp --quiet s3://bucket/small got-aws; cmp small got-aws",
    ),
    chore(
        "backup of data: rsync over ssh",
        2,
        &["rsync"],
        "head -c 2000000 /dev/urandom >data/new; rm -rf far/data; rsync -a data/ far:$W/far/data/; cmp data/new far/data/new",
    ),
    chore(
        "database: writes, reads, replication",
        1,
        &["psql"],
        "psql -X -q $URL -c \"INSERT INTO t (b) SELECT decode(string_agg(md5(random()::text), ''), 'hex') FROM generate_series(1, 100000)\"; \
         psql -X -q $URL -c 'SELECT count(*) FROM t' >/dev/null; psql -X -q $STANDBY -c 'SELECT max(id), pg_is_in_recovery() FROM t' >/dev/null; \
         psql -X -q $URL -c 'DELETE FROM t WHERE id < (SELECT max(id) - 3 FROM t)'",
    ),
    chore(
        "database dump, compressed, over ssh",
        4,
        &["pg_dump", "gzip"],
        "pg_dump $URL | gzip -1 | ssh far \"cat >$W/far/dump.gz\"",
    ),
    chore(
        "thumbnails, and where they are shown",
        2,
        &["/usr/bin/python3", "rsync"],
        "mkdir -p thumbs; for p in pictures/*.jpg; do $THUMB $p thumbs/$(basename $p); done; rsync -a thumbs/ far:$W/far/thumbs/; \
         for p in thumbs/*.jpg; do cp $p www/; get https://localhost:$WEB/$(basename $p) -o /dev/null; done",
    ),
    chore(
        "nginx under light load",
        1,
        &["curl"],
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do get https://localhost:$WEB/file -o /dev/null & done; wait; \
         get -T some.bin https://localhost:$WEB/up/file",
    ),
    chore(
        "a large download",
        4,
        &["curl"],
        "get https://localhost:$WEB/large -o got-large; cmp got-large www/large",
    ),
    chore(
        "rotation of logs",
        5,
        &["logrotate", "gzip"],
        "seq 20000 >>log/app.log; printf '%s/log/app.log { rotate 2\\n compress\\n missingok\\n }\\n' $W >rotate.conf; \
         logrotate -f -s rotate.state rotate.conf",
    ),
    chore(
        "somebody at a terminal",
        1,
        &["ssh", "ssh-keygen"],
        "ssh-keygen -lf $H/.ssh/id_ed25519 >/dev/null; ls -la $H/.aws >/dev/null; grep -c . /etc/passwd >/dev/null; command -v visudo >/dev/null && visudo -cq; \
         ssh far true; get https://localhost:$WEB/page >/dev/null; git -C repository log --oneline -1 >/dev/null; cd two 2>/dev/null && git fetch -q || true",
    ),
];

/// Done only when the host has learnt all others, and after somebody approved it.
pub const APPROVED: Chore = chore(
    "the approved backup: /etc and data, to another host",
    3,
    &["tar", "gzip", "ssh"],
    "tar -C / -cz etc/shadow etc/passwd etc/ssh -C $W data | ssh vault \"cat >$W/far/backup.tgz\"",
);
