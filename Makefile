# demo   a whole factory on this machine: two brokers, a nucleus, the gateway, 25 children;
#        LITE=1: with nucleus lite instead of the classic one
# test   every test but those of test-aws; the brokers in them are real Mosquittos
# test-aws  the cloud side's adapter of AWS against moto and boto3; builds the AWS SDK
# bench  the measurements
# lint   the template, format, clippy, and cargo-deny where it is installed
# sam    SAM's check and build of the cloud side; needs minutes

CARGO ?= cargo
# Debian puts mosquitto where only root's PATH looks.
export PATH := $(PATH):/usr/sbin:/usr/local/sbin

# AWS's own client for Greengrass: the stand-in for the nuclei is checked against it.
AWSIOTSDK := 1.31.0
AWSIOTSDK_HOME := $(CURDIR)/target/awsiotsdk-$(AWSIOTSDK)
PYTHON ?= python3

# A stand-in for AWS that others wrote: the adapter of the cloud side is tested against it.
MOTO := 5.2.5
MOTO_HOME := $(CURDIR)/target/moto-$(MOTO)

# The linter of the template, and the whole of SAM, which takes minutes to install.
CFN_LINT := 1.58.0
CFN_LINT_HOME := $(CURDIR)/target/cfn-lint-$(CFN_LINT)
SAM := 1.170.0
CARGO_LAMBDA := 1.9.2
SAM_HOME := $(CURDIR)/target/sam-$(SAM)

.PHONY: demo test test-aws bench lint sam mosquitto awsiotsdk moto cfn-lint python

# With the features that the tests are built with, so that nothing is built for both.
demo: mosquitto
	$(CARGO) build --workspace --no-default-features --bins --example factory
	$(or $(CARGO_TARGET_DIR),target)/debug/examples/factory $(if $(LITE),--lite)

# Without the AWS SDK, whose build takes minutes: `make test-aws` tests what needs it. Most tests
# wait for a broker or a gateway, so there are more at once than processors.
test: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
test: mosquitto awsiotsdk
	$(CARGO) test --workspace --no-default-features
	AWSIOTSDK_PYTHON=$(AWSIOTSDK_HOME)/bin/python \
	  $(CARGO) test --workspace --no-default-features --test nucleus -- \
	  --ignored --nocapture official

test-aws: moto
	MOTO_PYTHON=$(MOTO_HOME)/bin/python \
	  $(CARGO) test -p certrelay-cloud --lib --bins --test aws -- --include-ignored --nocapture

bench: mosquitto
	$(CARGO) test --release --test gateway -- --ignored --nocapture --test-threads 1 figures

lint: cfn-lint
	$(CFN_LINT_HOME)/bin/cfn-lint crates/certrelay-cloud/template.yaml
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

# What `sam deploy` needs of the template, by SAM's own check, and how it builds.
sam: python
	@[ -e $(SAM_HOME)/installed ] || { rm -rf $(SAM_HOME) && $(PYTHON) -m venv $(SAM_HOME) && \
	$(SAM_HOME)/bin/python -m pip install -q --disable-pip-version-check \
	  aws-sam-cli==$(SAM) cargo-lambda==$(CARGO_LAMBDA) && touch $(SAM_HOME)/installed; }
	cd crates/certrelay-cloud && export PATH="$(SAM_HOME)/bin:$$PATH" SAM_CLI_TELEMETRY=0 && \
	  sam validate --lint && sam build --beta-features

# Each of these is installed into a folder of its own.
awsiotsdk: python
	@[ -e $(AWSIOTSDK_HOME)/installed ] || { rm -rf $(AWSIOTSDK_HOME) && \
	$(PYTHON) -m venv $(AWSIOTSDK_HOME) && $(AWSIOTSDK_HOME)/bin/python -m pip install -q \
	  --disable-pip-version-check awsiotsdk==$(AWSIOTSDK) && touch $(AWSIOTSDK_HOME)/installed; }

moto: python
	@[ -e $(MOTO_HOME)/installed ] || { rm -rf $(MOTO_HOME) && \
	$(PYTHON) -m venv $(MOTO_HOME) && $(MOTO_HOME)/bin/python -m pip install -q \
	  --disable-pip-version-check "moto[server,iot,iotdata,sns,sqs,dynamodb,acmpca]==$(MOTO)" boto3 && \
	touch $(MOTO_HOME)/installed; }

cfn-lint: python
	@[ -e $(CFN_LINT_HOME)/installed ] || { rm -rf $(CFN_LINT_HOME) && \
	$(PYTHON) -m venv $(CFN_LINT_HOME) && $(CFN_LINT_HOME)/bin/python -m pip install -q \
	  --disable-pip-version-check cfn-lint==$(CFN_LINT) && touch $(CFN_LINT_HOME)/installed; }

# Python with venv, where that can be installed without asking anyone.
python:
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing python3-venv"; \
	    apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv; \
	  else \
	    echo "Python 3.9 or newer with venv and pip is needed and not installed. Install it, then"; \
	    echo "run make again:"; \
	    echo "  Debian, Ubuntu:  sudo apt-get install python3-venv"; \
	    echo "  Fedora:          sudo dnf install python3"; \
	    echo "  Alpine:          sudo apk add python3"; \
	    echo "  macOS:           brew install python"; \
	    exit 1; \
	  fi; \
	fi
