//! A thread that acts on the file system as another user.
//!
//! Comes in: a [`User`]. Goes out: a [`Acting`] for as long as this thread is it. Called by
//! `open`. Only the file system's ids change (setfsuid(2)): the thread's own user stays, so that the other user can
//! neither signal nor trace it, and a FUSE file system of that user, which could block us for ever, turns us away unless
//! it was mounted with `allow_other`.

use rustix::process::{Gid, Uid, getegid, geteuid};

/// Whose rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// File system uid.
    pub uid: u32,
    /// File system gid.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// NGROUPS_MAX.
const MOST_GROUPS: usize = 65_536;

impl User {
    /// Ourselves.
    #[must_use]
    pub fn me() -> Self {
        let groups = rustix::process::getgroups().unwrap_or_default();
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw(), groups }
    }

    /// The file system's ids of a process, by `/proc/PID/status`; None if it is gone.
    #[must_use]
    pub fn of_process(pid: u32) -> Option<Self> {
        Self::of_status(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    /// The same, from the text.
    #[must_use]
    pub fn of_status(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name));
        // Real, effective, saved, file system.
        let fourth = |name| field(name)?.split_whitespace().nth(3)?.parse().ok();
        let groups = field("Groups:")?.split_whitespace().filter_map(|g| g.parse().ok()).collect();
        Some(Self { uid: fourth("Uid:")?, gid: fourth("Gid:")?, groups })
    }
}

/// This thread acts as another user until this is dropped.
pub(super) struct Acting {
    back: Option<User>,
}

impl Acting {
    /// None: it can't be.
    pub(super) fn for_user(user: &User) -> Option<Self> {
        let me = geteuid();
        if !me.is_root() {
            return (user.uid == me.as_raw()).then_some(Self { back: None });
        }
        let acting = Self { back: Some(User::me()) };
        // Groups first, while we may; a failure in between is undone by the drop.
        become_user(user).then_some(acting)
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if let Some(back) = &self.back
            && !become_user(back)
        {
            // It would go on with somebody else's rights, for somebody else.
            tracing::error!("a thread can't return to its own user, and ends");
            panic!("setfsuid");
        }
    }
}

/// False: not, or not wholly.
fn become_user(user: &User) -> bool {
    if user.groups.len() > MOST_GROUPS || user.uid == u32::MAX || user.gid == u32::MAX {
        return false;
    }
    // Changes this thread alone (glibc's setgroups would change all).
    let groups: Vec<Gid> = user.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    if rustix::thread::set_thread_groups(&groups).is_err() {
        return false;
    }
    set(libc::SYS_setfsgid, user.gid) && set(libc::SYS_setfsuid, Uid::from_raw(user.uid).as_raw())
}

/// setfsuid(2) tells no error: the second call asks what it is now.
fn set(call: libc::c_long, id: u32) -> bool {
    // SAFETY: setfsuid and setfsgid take a number and touch no memory.
    let now = unsafe {
        libc::syscall(call, libc::c_ulong::from(id));
        libc::syscall(call, libc::c_ulong::from(u32::MAX))
    };
    now as u32 == id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_me() {
        let found = User::of_process(std::process::id()).unwrap();
        let me = User::me();
        assert_eq!((found.uid, found.gid), (me.uid, me.gid));
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        assert_eq!(User::of_status(status), Some(User { uid: 4, gid: 8, groups: vec![9, 10] }));
        assert_eq!(User::of_status("Uid:\t1\n"), None);
    }

    #[test]
    fn a_thread_goes_and_comes_back_alone() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can act as another user");
            return;
        }
        let other = User { uid: 65_534, gid: 65_534, groups: vec![100] };
        let status = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let before = User::of_status(&status()).unwrap();
        std::thread::spawn(move || {
            let mine = User::of_status(&status()).unwrap();
            let acting = Acting::for_user(&other).unwrap();
            assert_eq!(User::of_status(&status()).unwrap(), other);
            drop(acting);
            assert_eq!(User::of_status(&status()).unwrap(), mine);
            assert!(Acting::for_user(&User { uid: u32::MAX, ..other }).is_none());
            assert_eq!(User::of_status(&status()).unwrap(), mine, "a failure leaves nothing behind");
        })
        .join()
        .unwrap();
        assert_eq!(User::of_status(&status()).unwrap(), before);
    }
}
