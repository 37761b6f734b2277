# demo   a whole factory on this machine: two brokers, the gateway, 25 children
# test   every test; the brokers in them are real Mosquittos
# bench  the measurements
# lint   format, clippy, and cargo-deny where it is installed

CARGO ?= cargo
# Debian puts mosquitto where only root's PATH looks.
export PATH := $(PATH):/usr/sbin:/usr/local/sbin

.PHONY: demo test bench lint mosquitto

demo: mosquitto
	$(CARGO) build --bins --example factory
	$(CARGO) run --example factory

test: mosquitto
	$(CARGO) test --workspace

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
