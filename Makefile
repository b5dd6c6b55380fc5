# Counterfoil: everything a person types, `make` alone explains it.

CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
# A sysconfdir of its own: configuration is no part of a prefix that a package manager owns.
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system

TARGET  := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release
PROGRAM := $(RELEASE)/counterfoil
LIBRARY := $(RELEASE)/libcounterfoil.so
# Tests drive the built program, as its users have it.
TESTED  := COUNTERFOIL_BIN=$(abspath $(PROGRAM))

# Cargo follows the sources; make only passes on.
.PHONY: help build demo test classes test-long test-flood test-busy test-order test-outage test-cpython loom miri bench install uninstall lint clean toolchain
.DEFAULT_GOAL := help

help:
	@echo 'Counterfoil lays both ends of every connection side by side.'
	@echo
	@echo '  make demo          a real TLS transfer, once clean, once with bytes changed on the way'
	@echo '  make test          every test, against real programs'
	@echo
	@echo '  make build         $(PROGRAM) and libcounterfoil.so'
	@echo '  make install       into PREFIX ($(PREFIX)), below DESTDIR where a package is built'
	@echo '  make uninstall     takes away what install put there, configuration and state stay'
	@echo '  make bench         speeds, observed against plain; make bench ONLY=tls-bulk for one of them'
	@echo '  make test-long     what takes longer: ignored tests, the lane under loom'
	@echo '  make test-flood    100,000 findings, and the daemon killed 200 times meanwhile'
	@echo '  make test-busy     a scripted busy host, MINUTES=60: what it raises, which is to be nothing'
	@echo '  make test-order    with a debug build that reads lanes in any order, and up to LATE=4 ms late'
	@echo '  make classes       how well classes of content are told apart (SAMPLES="a.deb b.tar.gz" adds to the corpus)'
	@echo '  make test-outage   ten minutes without the log server, under load: nothing is lost'
	@echo "  make test-cpython  CPython's own network tests, with and without the library"
	@echo '  make lint          formatting, clippy, licences'
	@echo '  make clean         away with everything built'
	@echo
	@echo 'Then: $(PROGRAM) run -- CMD …    shows what CMD transferred, and whether it arrived.'

toolchain:
	@command -v $(CARGO) >/dev/null || { \
	  echo 'No cargo here. Install Rust 1.88 or newer (Debian: rustup or cargo), then run make again.' >&2; exit 1; }
	@command -v cc >/dev/null || { \
	  echo 'No C compiler here (some functions that Counterfoil hooks are variadic). Debian: apt-get install gcc libc6-dev' >&2; exit 1; }

build: toolchain
	$(CARGO) build --release --locked -p counterfoil-daemon -p counterfoil-shim

demo: build
	@scripts/need curl openssl
	@$(PROGRAM) demo

test: build
	tests/install-peers.sh
	$(TESTED) $(CARGO) test --workspace --locked --no-fail-fast
	$(MAKE) loom

test-long: build
	tests/install-peers.sh
	$(TESTED) $(CARGO) test --workspace --locked --no-fail-fast -- --include-ignored
	$(MAKE) loom

test-flood: build
	$(TESTED) $(CARGO) test --locked -p counterfoil-tests --test alarm_flood -- --include-ignored --nocapture --test-threads 1

# What servers do all day, observed; MINUTES of it.
test-busy: build
	tests/install-peers.sh
	MINUTES=$(or $(MINUTES),60) $(TESTED) nice \
	  $(CARGO) test --locked -p counterfoil-tests --test busy_host -- --ignored --nocapture

# What takes minutes in a debug build proves nothing here.
test-order:
	tests/install-peers.sh
	COUNTERFOIL_TEST_ORDER=$(or $(LATE),4) $(CARGO) test --locked -p counterfoil-tests --no-fail-fast -- --skip four_gibibytes

# rsyslog away for ten minutes, under load, over every transport.
test-outage: build
	tests/install-peers.sh
	$(TESTED) $(CARGO) test --locked -p counterfoil-tests --test sinks -- --ignored --nocapture ten_minutes

# The lane under every interleaving of its two sides that the memory model allows.
loom: toolchain
	RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=$(TARGET)/loom \
	  $(CARGO) test --release --locked -p counterfoil-abi --test loom

# Undefined behaviour in the ABI crate, and the lane between two threads. Needs a nightly toolchain with miri.
miri: toolchain
	CARGO_TARGET_DIR=$(TARGET)/miri $(CARGO) +nightly miri test --locked -p counterfoil-abi --test lane

classes: toolchain
	@scripts/need openssl gzip bzip2 xz
	tests/install-peers.sh
	rm -rf $(TARGET)/classes
	tests/classes/corpus.sh $(TARGET)/classes $(SAMPLES)
	CLASSES_CORPUS=$(abspath $(TARGET)/classes) CLASSES_WRONG=1 \
	  $(CARGO) test --locked -p counterfoil-tests --test classes -- --include-ignored --nocapture --exact corpus

test-cpython: build
	tests/install-peers.sh
	$(TESTED) $(CARGO) test --locked -p counterfoil-tests --test cpython -- --include-ignored --nocapture

bench: build
	@scripts/need cc header:openssl/ssl.h
	@case ",$(ONLY)," in ,, | *,https,*) tests/install-peers.sh nginx wrk curl openssl python3 ;; esac
	@case ",$(ONLY)," in ,, | *,peers,*) tests/install-peers.sh bpftrace strace openssl ;; esac
	$(CARGO) run --release --locked -q -p counterfoil-bench -- --program $(PROGRAM) --out bench-results $(if $(ONLY),--only $(ONLY))

install: build
	install -D -m 0755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/counterfoil
	install -D -m 0755 $(LIBRARY) $(DESTDIR)$(PREFIX)/lib/libcounterfoil.so
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|@PREFIX@|$(PREFIX)|g' packaging/counterfoil.service > $(DESTDIR)$(UNITDIR)/counterfoil.service
	install -D -m 0644 packaging/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/counterfoil.conf
	install -D -m 0644 packaging/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/counterfoil.conf
	install -D -m 0644 packaging/logrotate $(DESTDIR)$(SYSCONFDIR)/logrotate.d/counterfoil
	for f in rsyslog.conf vector.toml; do \
	  install -D -m 0644 packaging/$$f $(DESTDIR)$(PREFIX)/share/doc/counterfoil/examples/$$f; done
	@# An administrator's configuration is never overwritten.
	test -e $(DESTDIR)$(SYSCONFDIR)/counterfoil/counterfoil.toml || \
	  install -D -m 0644 packaging/counterfoil.toml $(DESTDIR)$(SYSCONFDIR)/counterfoil/counterfoil.toml
	for f in README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE docs/*.md; do \
	  install -D -m 0644 $$f $(DESTDIR)$(PREFIX)/share/doc/counterfoil/$$(basename $$f); done

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/counterfoil $(DESTDIR)$(PREFIX)/lib/libcounterfoil.so \
	  $(DESTDIR)$(UNITDIR)/counterfoil.service $(DESTDIR)$(PREFIX)/lib/sysusers.d/counterfoil.conf \
	  $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/counterfoil.conf $(DESTDIR)$(SYSCONFDIR)/logrotate.d/counterfoil
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/counterfoil

lint: toolchain
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	  $(CARGO) deny --locked --offline check bans licenses sources; \
	else echo 'skipped: cargo-deny is not installed (cargo install cargo-deny)'; fi

clean:
	$(CARGO) clean
	rm -rf bench-results
