//! Preloaded libraries that are known and meant: they lower a severity, never a verdict.
#![forbid(unsafe_code)]

/// File names begin with these.
const KNOWN: &[&str] = &[
    "libfakeroot",
    "libfakechroot",
    "libfaketime",
    "libasan.so",
    "libtsan.so",
    "libubsan.so",
    "liblsan.so",
    "libhwasan.so",
    "libclang_rt.",
    "libjemalloc",
    "libtcmalloc",
    "libmimalloc",
    "libeatmydata",
    "libsocket_wrapper",
    "libnss_wrapper",
    "libuid_wrapper",
    "libstdbuf.so",
    "libheaptrack_preload",
    "vgpreload_",
];

/// Where a package puts libraries. Only root writes there; a file of the same name in `/tmp` or a
/// home directory is not what it calls itself.
const PLACES: &[&str] = &["/usr/lib/", "/usr/lib64/", "/usr/libexec/", "/lib/", "/lib64/"];

/// True if `object` (an absolute path) is a known preload in a place that only root writes to.
pub(super) fn known(object: &str) -> bool {
    let name = object.rsplit('/').next().unwrap_or(object);
    PLACES.iter().any(|p| object.starts_with(p))
        && !object.split('/').any(|part| part == "..")
        && KNOWN.iter().any(|k| name.starts_with(k))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_not_enough() {
        assert!(super::known("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"));
        assert!(super::known("/lib/x86_64-linux-gnu/libjemalloc.so.2"));
        for no in [
            "/tmp/libfaketime.so.1",
            "/home/a/usr/lib/libjemalloc.so",
            "/usr/lib/../../tmp/libjemalloc.so",
            "/usr/lib/libtamper.so",
            "libjemalloc.so",
            "",
        ] {
            assert!(!super::known(no), "{no}");
        }
    }
}
