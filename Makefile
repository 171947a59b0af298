# make setup      what development and the lab need: Debian packages, and .venv
# make lint       ruff and mypy
# make demo       hosts in full mesh, and one more that joins under traffic; HOSTS=6, with that one
# make lab        a shell in a running mesh; HOSTS=3
# make chaos      random faults in the lab, and whether each invariant held; SEED=1 HOSTS=8 MINUTES=5
# make cold-start all of HOSTS=40 start at once: one association a pair, and what it took
# make test       unit, VICI, lab, ruff, mypy; TESTS="tests/unit -x" narrows it
# make test-lab   the lab itself: run it when lab/ changed
# make bench      one host of PEERS=5000 beside swanctl; BENCH="load add --json FILE" narrows it
# make bench-mesh a mesh of HOSTS=12 beside hand-written connections, in the lab's kernel
# make bench-data what a byte costs in the kernel, beside WireGuard, tinc and Nebula; KERNELS="bookworm trixie"
# make test-data  whether the data path is right in KERNELS, in guests; COUNTED=1 on a busy machine; not in make test
# make install    to PREFIX (/usr/local), SYSCONFDIR (/etc) and UNITDIR; DESTDIR goes before all of them
# make uninstall  removes it again, but no configuration, keys or peers; PURGE=1 ends our associations, too
# make TARGET DEBIAN=13 the same with the Python, strongSwan and user-mode Linux of that release, whatever runs here
# make lock       requirements.lock anew: the newest of what pyproject.toml allows, with hashes

SHELL := /bin/bash
# Without the start files: over ssh, bash reads bash.bashrc for `-c` as well, and that one ends under `-u`.
.SHELLFLAGS := --noprofile --norc -euo pipefail -c
.DELETE_ON_ERROR:

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= /lib/systemd/system
# The system's own: the service may not see one below /home or /root.
PYTHON ?= $(if $(wildcard /usr/bin/python3),/usr/bin/python3,python3)
VENV := .venv
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help
help:
	@sed -n 's/^# \{0,1\}make/make/p' Makefile

PACKAGES := charon-systemd strongswan-swanctl libstrongswan-standard-plugins python3 python3-venv \
	user-mode-linux nftables kmod iproute2 iptables iputils-ping iperf3 tcpdump util-linux shellcheck \
	openssl strongswan-pki

# For guests of QEMU: bench-data and test-data alone.
PACKAGES_DATA := qemu-system-x86 cpio ethtool iperf3 kmod nebula openssl tcpdump tinc wireguard-tools

ifdef DEBIAN

# --- another release -----------------------------------------------------------------------------------------

# Any target, below that release's file tree, which has all that `setup` would install.
comma := ,
empty :=
.PHONY: $(MAKECMDGOALS)
$(MAKECMDGOALS):
	@exec env -u DEBIAN -u MAKEFLAGS -u MFLAGS lab/debian $(DEBIAN) \
	  $(subst $(empty) ,$(comma),$(strip $(PACKAGES) ca-certificates curl git make procps systemd)) \
	  make --no-print-directory $@ $(filter-out DEBIAN=%,$(MAKEOVERRIDES))

else

# --- setup and lint ------------------------------------------------------------------------------------------

.PHONY: setup packages packages-data
setup: packages $(VENV)/.complete

# Asks dpkg only, so that a machine that has everything is not kept waiting.
packages: WANTED = $(PACKAGES)
packages-data: WANTED = $(PACKAGES_DATA)
packages packages-data:
	@missing=; for package in $(WANTED); do \
	  status=$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null) || true; \
	  if [[ $$status != installed ]]; then missing="$$missing $$package"; fi; \
	done; \
	if [[ -n $$missing ]]; then \
	  command -v apt-get >/dev/null || { echo "please install what corresponds to:$$missing" >&2; exit 1; }; \
	  echo "installing:$$missing"; \
	  $(SUDO) apt-get update -qq; \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi

$(VENV)/.complete: pyproject.toml | packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11: say make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

.PHONY: lint
lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# --- test ----------------------------------------------------------------------------------------------------

.PHONY: test test-lab
test: setup
	$(VENV)/bin/python -m pytest $(TESTS)

test-lab: setup
	$(VENV)/bin/python -m pytest tests/lab/itself $(TESTS)

# --- lab -----------------------------------------------------------------------------------------------------

.PHONY: demo lab
demo: setup
	@exec lab/run $(VENV)/bin/python -m lab.demo $(or $(HOSTS),6)

lab: setup
	@exec lab/run $(VENV)/bin/python -m lab.shell $(or $(HOSTS),3)

# A fault of one host, and no other is touched; all at once, and no duplicate stays.
.PHONY: chaos cold-start
chaos: SEED ?= 1
chaos: HOSTS ?= 8
chaos: MINUTES ?= 5
chaos: setup
	@exec lab/run $(VENV)/bin/python -m lab.chaos $(SEED) $(HOSTS) $(MINUTES)

cold-start: HOSTS ?= 40
cold-start: setup
	@exec lab/run $(VENV)/bin/python -m lab.cold_start $(HOSTS)

# --- bench ---------------------------------------------------------------------------------------------------

PEERS ?= 5000
BENCH ?=

.PHONY: bench bench-mesh
bench: setup
	$(SUDO) $(VENV)/bin/python -m bench --peers $(PEERS) $(BENCH)

bench-mesh: HOSTS ?= 12
bench-mesh: setup
	lab/run $(VENV)/bin/python -m bench.mesh --hosts $(HOSTS) $(BENCH)

KERNELS ?= bookworm
.PHONY: bench-data test-data
bench-data: setup packages-data
	$(VENV)/bin/python -m bench.data --kernels $(KERNELS) $(BENCH)

test-data: setup packages-data
	KERNELS="$(KERNELS)" $(VENV)/bin/python -m pytest $(or $(TESTS),tests/data)

# --- install -------------------------------------------------------------------------------------------------

CONFDIR = $(SYSCONFDIR)/swanmesh
LIBDIR = $(PREFIX)/lib/swanmesh
WRAPPER = $(PREFIX)/bin/swanmesh
UNIT = $(UNITDIR)/swanmesh.service
GUARD_UNIT = $(UNITDIR)/swanmesh-guard.service
MODULES = $(SYSCONFDIR)/modules-load.d/swanmesh.conf
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Each installation has a folder of its own, so that none changes beneath a service that runs from it.
BUILD := $(LIBDIR)/$(VERSION)-$(shell date -u -d "@$${SOURCE_DATE_EPOCH:-$$(date +%s)}" +%Y%m%dT%H%M%S)
BEFORE := $(wildcard $(DESTDIR)$(WRAPPER))
# Whether ESP that comes in is no sign of life to the strongSwan here: from 6.0.1 on.
PATIENT = $(shell swanctl --help 2>/dev/null | sed -n 's/^strongSwan \([0-9.]*\).*/\1/p' | \
	  while read -r version; do printf '%s\n' 6.0.1 "$$version" | sort -CV && echo yes; done)
# Whether this is the machine itself, and systemd runs it.
LIVE := $(if $(DESTDIR),,$(wildcard /run/systemd/system))

# A file of somebody's own is never overwritten: ours goes beside it as FILE.new.
keep = @if [[ -e $(DESTDIR)$(2) ]] && ! cmp -s $(1) $(DESTDIR)$(2); then \
	  install -m $(or $(3),0644) $(1) $(DESTDIR)$(2).new; echo "kept $(DESTDIR)$(2); the new one is $(2).new"; \
	else install -D -m $(or $(3),0644) $(1) $(DESTDIR)$(2); fi

.PHONY: install build-beside switch uninstall lock
install: switch
ifeq ($(BEFORE),)
	@echo "installed $(VERSION). On a host of the mesh, edit $(CONFDIR)/swanmesh.yaml next, then run"
	@echo "  swanmesh check"
	@echo "  systemctl restart strongswan       # once: it reads strongswan.d/swanmesh.conf when it starts"
	@echo "  systemctl enable --now swanmesh"
else
	@echo "installed $(VERSION). What runs is still what was installed before. Next:"
	@echo "  systemctl restart swanmesh         # ends no association, loses no packet; not so strongSwan's restart"
endif

# What is installed stays whole and in use, whatever fails here: a download, a wheel, the disk. Only what the
# lock file names gets in, and nothing is built but swanmesh itself, from a copy: a checkout stays its owner's.
build-beside:
	@install -d $(DESTDIR)$(LIBDIR)
	@exec 9>$(DESTDIR)$(LIBDIR)/.lock; flock -n 9 || { echo "another make install is under way" >&2; exit 1; }; \
	new=$(DESTDIR)$(BUILD); source=$$(mktemp -d); done=; \
	trap 'rm -rf "$$source"; [[ -n $$done ]] || { rm -rf "$$new"; \
	  echo "not installed; what was installed before is as it was" >&2; }' EXIT; \
	trap 'exit 130' INT TERM HUP; \
	mkdir "$$new"; \
	cp -r swanmesh pyproject.toml README.md LICENSE "$$source"; \
	$(PYTHON) -m venv "$$new"; \
	pip=("$$new/bin/python" -I -m pip --quiet --disable-pip-version-check --no-input); \
	"$${pip[@]}" install --require-hashes --only-binary :all: --no-compile -r requirements.lock; \
	"$${pip[@]}" install --no-deps --no-index --no-build-isolation --no-compile "$$source"; \
	"$${pip[@]}" uninstall --yes setuptools pip; \
	find "$$new/bin" -type f -delete; \
	sed -i '/^command = /d' "$$new/pyvenv.cfg"; \
	"$$new/bin/python" -I -m compileall -qf $(if $(DESTDIR),-s $(DESTDIR) -p /) "$$new/lib"; \
	"$$new/bin/python" -I -c 'import swanmesh.cli.main, swanmesh.service.daemon'; \
	done=1

# The wrapper names the folder that it runs; replacing it is the switch. The installation before this one stays,
# to go back to, and so does each that a process was started from.
switch: build-beside
	@install -d $(addprefix $(DESTDIR),$(PREFIX)/bin $(UNITDIR) $(CONFDIR)/peers.d $(CONFDIR)/blocks.d $(CONFDIR)/hooks.d $(CONFDIR)/renewal.d)
	@install -d -m 0700 $(DESTDIR)$(CONFDIR)/pki
	$(call keep,conf/swanmesh.yaml,$(CONFDIR)/swanmesh.yaml)
	$(call keep,conf/strongswan.d/swanmesh.conf,$(SYSCONFDIR)/strongswan.d/swanmesh.conf)
	$(if $(PATIENT),$(call keep,conf/strongswan.d/swanmesh.patient.conf,$(SYSCONFDIR)/strongswan.d/swanmesh.patient.conf))
	$(call keep,conf/modules-load.d/swanmesh.conf,$(MODULES))
	$(call keep,conf/bench.conf.disabled,$(CONFDIR)/bench.conf.disabled)
	$(call keep,conf/hooks.d/mail-when-down.disabled,$(CONFDIR)/hooks.d/mail-when-down.disabled,0755)
	$(call keep,conf/hooks.d/chat-webhook.disabled,$(CONFDIR)/hooks.d/chat-webhook.disabled,0755)
	$(call keep,conf/renewal.d/ssh,$(CONFDIR)/renewal.d/ssh,0755)
	$(call keep,conf/renewal.d/step-ca,$(CONFDIR)/renewal.d/step-ca,0755)
	@before=$$(sed -n 's|^exec \(.*\)/bin/python .*|\1|p' $(DESTDIR)$(WRAPPER) 2>/dev/null) || true; \
	printf '#!/bin/sh\nexec %s/bin/python -I -m swanmesh "$$@"\n' $(BUILD) > $(DESTDIR)$(WRAPPER).new; \
	chmod 0755 $(DESTDIR)$(WRAPPER).new; \
	install -m 0644 swanmesh/kernel/boot.py $(DESTDIR)$(LIBDIR)/.apply-guard.new; \
	mv -f $(DESTDIR)$(LIBDIR)/.apply-guard.new $(DESTDIR)$(LIBDIR)/apply-guard; \
	for unit in $(GUARD_UNIT) $(UNIT); do \
	  sed 's|/usr/local/|$(PREFIX)/|g; s|/etc/swanmesh|$(CONFDIR)|' systemd/$${unit##*/} > $(DESTDIR)$$unit.new; \
	  chmod 0644 $(DESTDIR)$$unit.new; \
	  mv -f $(DESTDIR)$$unit.new $(DESTDIR)$$unit; \
	done; \
	mv -f $(DESTDIR)$(WRAPPER).new $(DESTDIR)$(WRAPPER); \
	for old in $(DESTDIR)$(LIBDIR)/*/; do \
	  old=$${old%/}; \
	  case $${old#$(DESTDIR)} in $(BUILD) | "$$before") continue ;; esac; \
	  if [[ -n "$(DESTDIR)" ]] || ! grep -qsF "$$old/bin/python" /proc/[0-9]*/cmdline; then rm -rf "$$old"; fi; \
	done
	@if [[ -n "$(LIVE)" ]]; then systemctl daemon-reload; $(load-modules); \
	  if systemctl is-enabled --quiet swanmesh; then systemctl enable --quiet swanmesh-guard; fi; fi

# Missing or built in, a module is no fault. Blacklisted, it is meant to stay away (-b).
load-modules = grep -v '^\#' $(MODULES) | xargs -r modprobe -abq || true

uninstall:
	@if [[ -n "$(LIVE)" ]]; then systemctl disable --now --quiet swanmesh swanmesh-guard || true; fi
	@if [[ -n "$(PURGE)" ]]; then $(WRAPPER) --config $(CONFDIR)/swanmesh.yaml purge; \
	elif [[ -n "$(LIVE)" ]]; then $(WRAPPER) --config $(CONFDIR)/swanmesh.yaml guard clear --yes; fi
	@if [[ -z "$(PURGE)$(DESTDIR)" ]]; then echo "What charon was given stays in force until it is restarted: associations, and traps that drop packets"; \
	  echo "to peers that are down. To end ours alone: make install, then make uninstall PURGE=1"; fi
	@if cmp -s conf/modules-load.d/swanmesh.conf $(DESTDIR)$(MODULES); then rm -f $(DESTDIR)$(MODULES); fi
	rm -rf $(DESTDIR)$(LIBDIR)
	rm -f $(DESTDIR)$(WRAPPER) $(DESTDIR)$(UNIT) $(DESTDIR)$(GUARD_UNIT)
	@if [[ -n "$(LIVE)" ]]; then systemctl daemon-reload; fi
	@echo "$(CONFDIR) and $(SYSCONFDIR)/strongswan.d/swanmesh*.conf are left in place"

# For every Python and machine at once: the hashes are of all files of a release. uv, because pip-compile knows
# but the Python that it runs on. What builds swanmesh (build-system.requires) is locked with what it needs.
lock: setup
	$(VENV)/bin/pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' | \
	$(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --only-binary :all: --no-annotate --custom-compile-command 'make lock' \
	  --output-file requirements.lock pyproject.toml -

endif
