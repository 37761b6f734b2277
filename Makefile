# demo   a whole factory on this machine: two brokers, a nucleus, the gateway, 25 children;
#        LITE=1: with nucleus lite instead of the classic one
# test   every test; the brokers in them are real Mosquittos
# bench  the measurements
# lint   format, clippy, and cargo-deny where it is installed

CARGO ?= cargo
# Debian puts mosquitto where only root's PATH looks.
export PATH := $(PATH):/usr/sbin:/usr/local/sbin

# AWS's own client for Greengrass: the stand-in for the nuclei is checked against it.
AWSIOTSDK := 1.31.0
AWSIOTSDK_HOME := $(CURDIR)/target/awsiotsdk-$(AWSIOTSDK)
PYTHON ?= python3

.PHONY: demo test bench lint mosquitto awsiotsdk

demo: mosquitto
	$(CARGO) build --bins --example factory
	$(CARGO) run --example factory -- $(if $(LITE),--lite)

test: mosquitto awsiotsdk
	$(CARGO) test --workspace
	AWSIOTSDK_PYTHON=$(AWSIOTSDK_HOME)/bin/python \
	  $(CARGO) test -p fake-nucleus --test nucleus -- --ignored --nocapture official

bench: mosquitto
	$(CARGO) test --release --test gateway -- --ignored --nocapture --test-threads 1 figures

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check; \
	else echo "lint: SKIPPED cargo-deny: not installed (cargo install --locked cargo-deny)"; fi

# Installs Mosquitto where that is possible without asking anyone.
mosquitto:
	@command -v mosquitto >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing mosquitto"; \
	  apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends mosquitto; \
	else \
	  echo "mosquitto (2.0 or newer) is needed and not installed. Install it, then run make again:"; \
	  echo "  Debian, Ubuntu:  sudo apt-get install mosquitto"; \
	  echo "  Fedora:          sudo dnf install mosquitto"; \
	  echo "  Alpine:          sudo apk add mosquitto"; \
	  echo "  macOS:           brew install mosquitto"; \
	  exit 1; \
	fi

# Installs the SDK into a folder of its own; Python itself where that is possible without asking.
awsiotsdk:
	@[ -e $(AWSIOTSDK_HOME)/installed ] && exit 0; \
	if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing python3-venv"; \
	    apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv; \
	  else \
	    echo "Python 3.8 or newer with venv and pip is needed and not installed. Install it, then"; \
	    echo "run make again:"; \
	    echo "  Debian, Ubuntu:  sudo apt-get install python3-venv"; \
	    echo "  Fedora:          sudo dnf install python3"; \
	    echo "  Alpine:          sudo apk add python3"; \
	    echo "  macOS:           brew install python"; \
	    exit 1; \
	  fi; \
	fi && \
	rm -rf $(AWSIOTSDK_HOME) && \
	$(PYTHON) -m venv $(AWSIOTSDK_HOME) && \
	$(AWSIOTSDK_HOME)/bin/python -m pip install -q --disable-pip-version-check awsiotsdk==$(AWSIOTSDK) && \
	touch $(AWSIOTSDK_HOME)/installed
