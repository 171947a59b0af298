# make setup      what development and the lab need: Debian packages, and .venv
# make lint       ruff and mypy
# make demo       hosts in full mesh, and one more that joins under traffic; HOSTS=6, with that one
# make lab        a shell in a running mesh; HOSTS=3
# make chaos      random faults in the lab, and whether each invariant held; SEED=1 HOSTS=8 MINUTES=5
# make cold-start all of HOSTS=40 start at once: one association a pair, and what it took
# make test       everything: unit, VICI, lab, ruff, mypy; TESTS="tests/unit -x" narrows it
# make bench      one host of PEERS=5000 beside swanctl; BENCH="load add --json FILE" narrows it
# make bench-mesh a mesh of HOSTS=12 beside hand-written connections, in the lab's kernel
# make install    to PREFIX (/usr/local), SYSCONFDIR (/etc) and UNITDIR; DESTDIR goes before all of them
# make uninstall  removes it again, but no configuration, keys or peers

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= /lib/systemd/system
# The system's own: the service may not see one below /home or /root.
PYTHON ?= $(if $(wildcard /usr/bin/python3),/usr/bin/python3,python3)
VENV := .venv
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

CONFDIR = $(DESTDIR)$(SYSCONFDIR)/swanmesh
LIBDIR = $(PREFIX)/lib/swanmesh

.PHONY: help
help:
	@sed -n 's/^# \{0,1\}make/make/p' Makefile

# --- setup and lint ------------------------------------------------------------------------------------------

PACKAGES := charon-systemd strongswan-swanctl libstrongswan-standard-plugins python3 python3-venv \
	user-mode-linux kmod iproute2 iptables iputils-ping iperf3 tcpdump util-linux shellcheck

.PHONY: setup packages
setup: packages $(VENV)/.complete

# Asks dpkg only, so that a machine that has everything is not kept waiting.
packages:
	@missing=; for package in $(PACKAGES); do \
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

.PHONY: test
test: setup
	$(VENV)/bin/python -m pytest $(TESTS)

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

# --- install -------------------------------------------------------------------------------------------------

# A file of somebody's own is never overwritten: ours goes beside it as FILE.new.
keep = @if [[ -e $(2) ]] && ! cmp -s $(1) $(2); then \
	  install -m $(or $(3),0644) $(1) $(2).new; echo "kept $(2); the new one is $(2).new"; \
	else install -m $(or $(3),0644) $(1) $(2); fi

.PHONY: install uninstall
install:
	install -d $(DESTDIR)$(LIBDIR) $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(UNITDIR)
	$(PYTHON) -m venv --clear $(DESTDIR)$(LIBDIR)
	# A build/ left over from before would bring back modules that are gone.
	rm -rf build
	$(DESTDIR)$(LIBDIR)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile .
	rm -rf build
	# What runs is the wrapper below; these would name DESTDIR in their first line.
	find $(DESTDIR)$(LIBDIR)/bin -type f -delete
	$(DESTDIR)$(LIBDIR)/bin/python -m compileall -q $(if $(DESTDIR),-s $(DESTDIR) -p /) $(DESTDIR)$(LIBDIR)/lib
	printf '#!/bin/sh\nexec %s/bin/python -I -m swanmesh "$$@"\n' '$(LIBDIR)' > $(DESTDIR)$(PREFIX)/bin/swanmesh
	chmod 0755 $(DESTDIR)$(PREFIX)/bin/swanmesh
	install -d -m 0755 $(CONFDIR) $(CONFDIR)/peers.d $(CONFDIR)/hooks.d $(DESTDIR)$(SYSCONFDIR)/strongswan.d
	install -d -m 0700 $(CONFDIR)/pki
	$(call keep,conf/swanmesh.yaml,$(CONFDIR)/swanmesh.yaml)
	$(call keep,conf/strongswan.d/swanmesh.conf,$(DESTDIR)$(SYSCONFDIR)/strongswan.d/swanmesh.conf)
	$(call keep,conf/hooks.d/mail-when-down.disabled,$(CONFDIR)/hooks.d/mail-when-down.disabled,0755)
	$(call keep,conf/hooks.d/chat-webhook.disabled,$(CONFDIR)/hooks.d/chat-webhook.disabled,0755)
	sed 's|/usr/local/bin/|$(PREFIX)/bin/|; s|/etc/swanmesh|$(SYSCONFDIR)/swanmesh|' systemd/swanmesh.service \
	  > $(DESTDIR)$(UNITDIR)/swanmesh.service
	chmod 0644 $(DESTDIR)$(UNITDIR)/swanmesh.service
	@if [[ -z "$(DESTDIR)" && -d /run/systemd/system ]]; then systemctl daemon-reload; fi
	@echo "installed. Next: edit $(SYSCONFDIR)/swanmesh/swanmesh.yaml, and then run:"
	@echo "  systemctl restart strongswan && systemctl enable --now swanmesh"

uninstall:
	@if [[ -z "$(DESTDIR)" && -d /run/systemd/system ]]; then systemctl disable --now swanmesh || true; fi
	rm -rf $(DESTDIR)$(LIBDIR)
	rm -f $(DESTDIR)$(PREFIX)/bin/swanmesh $(DESTDIR)$(UNITDIR)/swanmesh.service
	@if [[ -z "$(DESTDIR)" && -d /run/systemd/system ]]; then systemctl daemon-reload; fi
	@echo "$(CONFDIR) and $(DESTDIR)$(SYSCONFDIR)/strongswan.d/swanmesh.conf are left in place"
