# Everything that a checkout is used for. `make` alone says what there is.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# What is built once and outlives a checkout.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rosey-monitor

CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ := $(CACHE)/cargo-fuzz-$(CARGO_FUZZ_VERSION)/bin/cargo-fuzz

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: tools ## Watch a bot break and recover on a real Prometheus stack (KEEP=1 leaves everything up)
	@cargo build --quiet --workspace --bins
	cargo run --quiet --package lab -- demo $(if $(KEEP),--keep)

.PHONY: test
test: tools chart-tools ## Run every test that needs no Docker
	cargo build --workspace --bins
	cargo test --workspace

# Linked with the C library, so that it runs in an empty image. Only with --target do the flags stay off the procedural macros,
# which the compiler has to load. Relocations in their short form are a tenth of a megabyte less; a linker that does not know it says so,
# and writes the long one.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
PROFILE := exporter
IMAGES = $${CARGO_TARGET_DIR:-target}/images
EXPORTER_FLAGS := -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs
EXPORTER = $${CARGO_TARGET_DIR:-target}/$(HOST)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/rosey-exporter

# Folders differ from machine to machine, and the compiler writes them into a binary; two builds of one commit have to be the same
# bytes. What crates call themselves there stays: a panic names its file. Every crate is fetched first, so that each folder is known.
# static BINARY,FEATURES,PROFILE,FLAGS OF THE LAST STEP
define static
	cargo fetch --locked --quiet --target $(HOST)
	flags="$${RUSTFLAGS:-} $(EXPORTER_FLAGS) --remap-path-prefix=$(CURDIR)=/rosey-monitor"
	for folder in "$${CARGO_HOME:-$$HOME/.cargo}"/registry/src/*/; do
	  flags+=" --remap-path-prefix=$${folder%/}=/crates"
	done
	mkdir -p $(IMAGES)
	RUSTFLAGS="$$flags" cargo rustc --locked --profile $(3) --target $(HOST) --no-default-features --features $(2) --bin $(1) \
	  --message-format json-render-diagnostics -- $(4) >$(IMAGES)/$(1).messages.json
	binary=$${CARGO_TARGET_DIR:-target}/$(HOST)/$(if $(filter dev,$(3)),debug,$(3))/$(1)
	headers=$$(LC_ALL=C readelf --wide --program-headers --dynamic "$$binary")
	if grep -E 'INTERP|\(NEEDED\)' <<<"$$headers"; then
	  echo "$$binary is not static: it asks for the above" >&2
	  exit 1
	fi
	"$$binary" --version
	echo "$$binary is static, $$(stat --format %s "$$binary") bytes"
endef

# What is run lies side by side; see tools/layout/record. Cargo does not look into the file: its sum has the binary linked anew.
LAYOUT := tools/layout/rosey-exporter.ld
LAYOUT_FLAGS = -C link-arg=-Wl,-T,$(LAYOUT) --cfg layout_$(firstword $(shell cksum $(LAYOUT)))

.PHONY: exporter
exporter: ## Build the exporter as a static binary
	@$(call static,rosey-exporter,"exporter no-trace",$(PROFILE),$(LAYOUT_FLAGS))

# What lies in an image carries the time of its commit, and the image says which one that was. Nothing is written into it that another
# build of the same commit would write differently: `make images-reproducible` holds that.
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# Not for cargo: crates with code in C would be built anew for each commit.
EPOCH = $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct))
REVISION = $(shell git describe --always --dirty --abbrev=40 --exclude '*')
# Flags of `images archive`, such as --label org.opencontainers.image.source=https://…
IMAGE_FLAGS :=

# sbom BINARY,FEATURE,FLAGS
sbom = $${CARGO_TARGET_DIR:-target}/release/images sbom --name $(1) --feature $(2) --target $(HOST) $(3) \
  <$(IMAGES)/$(1).messages.json >$(IMAGES)/$(1).cdx.json

.PHONY: images
images: ## Write the images of operator, exporter and fake bot, with their bills of materials (and load them into Docker, where it runs)
	@$(call static,rosey-operator,operator,release)
	$(call static,rosey-exporter,"exporter no-trace",exporter,$(LAYOUT_FLAGS))
	$(call static,fake-bot,fake-bot,release)
	cargo build --quiet --locked --release --package images
	export SOURCE_DATE_EPOCH=$(EPOCH)
	$(call sbom,rosey-operator,operator)
	$(call sbom,rosey-exporter,exporter,--certificates)
	$(call sbom,fake-bot,fake-bot)
	rm -rf $(IMAGES)/context
	mkdir $(IMAGES)/context
	built=$${CARGO_TARGET_DIR:-target}/$(HOST)
	cp "$$built"/release/{rosey-operator,fake-bot} "$$built/exporter/rosey-exporter" $(IMAGES)/context/
	$${CARGO_TARGET_DIR:-target}/release/images certificates >$(IMAGES)/context/ca-certificates.crt
	flags=(--label org.opencontainers.image.version=$(VERSION) --label org.opencontainers.image.revision=$(REVISION) $(IMAGE_FLAGS))
	failed=
	image() { docker/pack docker/$$1.Dockerfile $(IMAGES)/context rosey-monitor/$$1:$(VERSION) "$${flags[@]}" "$${@:2}" || failed=yes; }
	{
	  image fake-bot
	  image rosey-operator --at-most 25000000
	  image rosey-exporter --at-most 5000000
	} >$(IMAGES)/digests
	cat $(IMAGES)/digests
	[ -z "$$failed" ]

# In two clones, in folders of different depth, with nothing that was downloaded or built before; without Docker. Twenty minutes on two cores.
.PHONY: images-reproducible
images-reproducible: ## Build the images twice from nothing, in two places, and compare them byte by byte
	@docker/compare

# What belongs to a release, and its sums. The tag and the version must be the same word.
RELEASE = $${CARGO_TARGET_DIR:-target}/release-files

.PHONY: release
release: images ## Put images, bills of materials, chart and definitions of a release into one folder (TAG=v0.2.0)
	@[ "$(TAG)" = "v$(VERSION)" ] || { echo "the tag is $(TAG) and the version $(VERSION); write TAG=v$(VERSION), or change Cargo.toml" >&2; exit 1; }
	tools/packaging/build
	rm -rf $(RELEASE)
	mkdir -p $(RELEASE)
	for image in rosey-operator rosey-exporter fake-bot; do cp $(IMAGES)/$$image.{tar,cdx.json} $(RELEASE)/; done
	cp deploy/{install,crds}.yaml docs/exporter.schema.json $(RELEASE)/
	"$$(tools/packaging/build path)/helm" package charts/rosey-monitor --version $(VERSION) --app-version $(VERSION) --destination $(RELEASE)
	cd $(RELEASE) && sha256sum -- * >SHA256SUMS && cat SHA256SUMS

# The bytes that lie in the archives, not other ones of the same content: their digests are what was attested.
.PHONY: publish
publish: ## Push the images and the chart of `make release` to REGISTRY (host and owner); needs skopeo, logged in
	@[ -n "$(REGISTRY)" ] || { echo "write REGISTRY=host/owner" >&2; exit 1; }
	for image in rosey-operator rosey-exporter fake-bot; do
	  skopeo copy --preserve-digests oci-archive:$(RELEASE)/$$image.tar docker://$(REGISTRY)/$$image:$(VERSION)
	done
	"$$(tools/packaging/build path)/helm" push $(RELEASE)/rosey-monitor-$(VERSION).tgz oci://$(REGISTRY)/charts

# What the kind stage runs beside our own images, from the binaries that the lab uses.
.PHONY: kind-images
kind-images: tools ## Write images of prometheus-operator, its config reloader, Prometheus and Alertmanager, for the kind cluster
	@tools/kind/build
	cargo build --quiet --locked --release --package images
	export SOURCE_DATE_EPOCH=$(EPOCH)
	rm -rf $(IMAGES)/context
	mkdir -p $(IMAGES)/context
	cp -L "$$(tools/build path)"/{prometheus-operator,prometheus,alertmanager} "$$(tools/kind/build path)/prometheus-config-reloader" \
	  $(IMAGES)/context/
	pinned() { awk -v module="$$2" '$$1 == "require" && $$2 == module { print $$3 }' "tools/$$1/go.mod"; }
	operator=$$(pinned prometheus-operator github.com/prometheus-operator/prometheus-operator)
	# Its module is v0.313.5 where the release is called v3.13.5.
	prometheus=$$(pinned prometheus github.com/prometheus/prometheus | sed -E 's/^v0\.([0-9]+)([0-9]{2})\./v\1.\2./')
	image() { docker/pack docker/stack/$$1.Dockerfile $(IMAGES)/context rosey-monitor/$$1:$$2; }
	{
	  image prometheus-operator "$$operator"
	  image prometheus-config-reloader "$$operator"
	  image prometheus "$$prometheus"
	  image alertmanager "$$(pinned alertmanager github.com/prometheus/alertmanager)"
	} | tee $(IMAGES)/stack-digests

# The images first, one set after the other: they are put together in the same folder. KIND takes flags of `kind-test`, such as
# "--only story --keep"; FROM names the folder of a release to upgrade from, in place of the last one.
KIND_TEST = $${CARGO_TARGET_DIR:-target}/debug/kind-test

.PHONY: kind-cluster-parts
kind-cluster-parts: chart-tools
	@$(MAKE) --no-print-directory images
	$(MAKE) --no-print-directory kind-images
	# All of it, as everything else here does: parts would be compiled with other features, anew.
	cargo build --quiet --locked --workspace --bins

.PHONY: kind
kind: kind-cluster-parts ## Create a kind cluster with all of it, and a bot with its monitor, to play with (needs Docker)
	@$(KIND_TEST) --only install --keep $(KIND)

.PHONY: kind-test
kind-test: kind-cluster-parts ## Install all of it on a kind cluster, and play what only real kubelets show (needs Docker; ten minutes)
	@$(KIND_TEST) $(KIND)

.PHONY: kind-test-full
kind-test-full: kind-cluster-parts ## Play the second set: drain, latency, named namespaces, removal, upgrade (FROM=folder of a release)
	@from=$(FROM)
	if [ -z "$$from" ]; then
	  release=$$(awk 'END { print $$1 }' tools/releases/versions)
	  tools/releases/build "$$release"
	  from=$$(tools/releases/build path "$$release")
	fi
	$(KIND_TEST) --full --from "$$from" $(KIND)

# The second table costs prometheus-operator's share of two cores; BENCH takes flags of `lab bench`, and then it is one.
.PHONY: bench
bench: tools ## Measure a release build with a thousand monitors, without and with prometheus-operator (half an hour)
	cargo build --release --workspace --bins
	$${CARGO_TARGET_DIR:-target}/release/lab bench $(BENCH)
	$(if $(BENCH),,$${CARGO_TARGET_DIR:-target}/release/lab bench --with-stack)

# SOAK takes flags of `lab soak`, such as --minutes 1.
.PHONY: soak
soak: exporter ## Let the exporter live through a day in ten minutes, and fail if it grows or misses a line of the log
	cargo build --package rosey-monitor --no-default-features --features fake-bot --bin fake-bot
	cargo build --package lab
	$${CARGO_TARGET_DIR:-target}/debug/lab soak --exporter $(EXPORTER) $(SOAK)

# Beside a load generator that is optimised, so that it costs little. BENCH takes flags of `lab bench-exporter`.
.PHONY: bench-exporter
bench-exporter: exporter ## Measure the exporter beside json_exporter, over one connection and over 50 (ten minutes)
	@tools/peers
	cargo build --profile load --package lab --bin lab
	cargo build --profile load --package rosey-monitor --no-default-features --features fake-bot --bin fake-bot
	$${CARGO_TARGET_DIR:-target}/load/lab bench-exporter --exporter $(EXPORTER) $(BENCH)

.PHONY: lint
lint: lint-rust lint-tree lint-deny lint-workflows ## Check format, lints, licences, the dependency tree and the workflows

.PHONY: lint-rust
lint-rust:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --package rosey-monitor --lib --bins --no-default-features --features exporter -- -D warnings

# One TLS provider, one YAML crate, and an exporter without Kubernetes. A package that is not in Cargo.lock at all is an
# error to cargo tree; to us it is the best of news.
.PHONY: lint-tree
lint-tree:
	@absent() { # absent PACKAGE WHY CARGO_TREE_FLAGS...
	  local package=$$1 why=$$2 found errors; shift 2
	  errors=$$(mktemp)
	  if ! found=$$(cargo tree --locked --target all "$$@" --invert "$$package" 2>"$$errors"); then
	    grep -q 'did not match any packages' "$$errors" || { cat "$$errors" >&2; rm -f "$$errors"; exit 1; }
	    found=
	  fi
	  rm -f "$$errors"
	  [ -z "$$found" ] || { printf '%s is in the tree, and must not be: %s\n%s\n' "$$package" "$$why" "$$found" >&2; exit 1; }
	  echo "$$package is absent: $$why"
	}
	for package in aws-lc-rs aws-lc-sys openssl openssl-sys native-tls; do
	  absent $$package 'ring is the one TLS provider' --workspace --all-features
	done
	absent serde_yaml 'serde-saphyr is the one YAML crate' --workspace --all-features
	for package in kube kube-client k8s-openapi; do
	  absent $$package 'the exporter knows no Kubernetes' \
	    --package rosey-monitor --no-default-features --features exporter
	done

# Its own checks; shellcheck's and pyflakes' would depend on whether a machine has them.
.PHONY: lint-workflows
lint-workflows:
	@tools/actionlint/build
	"$$(tools/actionlint/build path)/actionlint" -shellcheck= -pyflakes=
	# A step that names a target that is gone would be found by a server, on the day of a release.
	for target in $$(sed -nE 's/^.*run: make ([a-z-]+).*$$/\1/p; s/^ +make ([a-z-]+)$$/\1/p; s/^ +target: \[(.*)\]$$/\1/p; s/^.*\{target: ([a-z-]+).*$$/\1/p' .github/workflows/*.yaml \
	  | sed 's/"\([a-z-]*\)[^"]*"/\1/g' | tr -s ', ' '\n' | sort -u); do
	  grep -q "^$$target:" Makefile || { echo "a workflow runs make $$target, which is no target of the Makefile" >&2; exit 1; }
	done
	echo "the workflows are valid, and so is every target that they make"

# Advisories need a database that is fetched from the net; the rest is checked from the tree alone.
.PHONY: lint-deny
lint-deny: $(CARGO_DENY)
	$(CARGO_DENY) --locked --workspace --all-features check licenses bans sources

$(CARGO_DENY):
	@echo "cargo-deny $(CARGO_DENY_VERSION) is built into $(CACHE), once; this takes some minutes."
	cargo install --quiet --locked cargo-deny --version $(CARGO_DENY_VERSION) --root $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION)

# Without a sanitizer it works on a stable toolchain, and code that forbids `unsafe` gives one little to find. What is found lies in
# fuzz/artifacts; after it is mended it goes into fuzz/seeds, which the plain tests read, too.
FUZZ_SECONDS := 600
FUZZ_TARGETS = $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

.PHONY: fuzz
fuzz: $(CARGO_FUZZ) ## Fuzz what reads the bot's answers (ten minutes each; FUZZ_SECONDS=, FUZZ_TARGETS=)
	@cargo metadata --quiet --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null || {
	  echo "fuzz/Cargo.lock does not follow Cargo.toml; run: cargo update --workspace --manifest-path fuzz/Cargo.toml" >&2
	  exit 1
	}
	for target in $(FUZZ_TARGETS); do
	  mkdir -p fuzz/corpus/$$target
	  log=$$(mktemp)
	  if ! $(CARGO_FUZZ) run --sanitizer none --target-dir "$${CARGO_TARGET_DIR:-target}/fuzz" "$$target" fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    -dict=fuzz/dictionaries/$$target.dict -max_total_time=$(FUZZ_SECONDS) -max_len=32768 -timeout=10 -rss_limit_mb=512 \
	    -print_final_stats=1 >"$$log" 2>&1; then
	    cat "$$log" >&2
	    rm -f "$$log"
	    exit 1
	  fi
	  awk -v target=$$target '/^Done / { runs = $$2 } /slowest_unit/ { slow = $$2 } /peak_rss/ { rss = $$2 } \
	    END { if (runs == "") exit 1; print target ": " runs " inputs, no finding; slowest " slow " s, peak " rss " MB" }' "$$log"
	  rm -f "$$log"
	done

$(CARGO_FUZZ):
	@echo "cargo-fuzz $(CARGO_FUZZ_VERSION) is built into $(CACHE), once; this takes some minutes."
	cargo install --quiet --locked cargo-fuzz --version $(CARGO_FUZZ_VERSION) --root $(CACHE)/cargo-fuzz-$(CARGO_FUZZ_VERSION)

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml

.PHONY: tools
tools: ## Build the real components that tests and demo run, where they are missing (about ten minutes, once)
	@tools/build
	@tools/pushgateway/build
	@tools/gitops/build

.PHONY: chart-tools
chart-tools: ## Build what checks the chart (Helm 4 and 3, helm-unittest, kubeconform), where it is missing (five minutes, once)
	@tools/packaging/build

.PHONY: crds
crds: ## Write the custom resource definition and the schema of the exporter's configuration anew from their types
	@mkdir -p crds
	cargo run --quiet --bin kubectl-rosey -- crd >crds/roseymonitors.rosey.dev.yaml.new
	mv crds/roseymonitors.rosey.dev.yaml.new crds/roseymonitors.rosey.dev.yaml
	cp crds/roseymonitors.rosey.dev.yaml charts/rosey-monitor/files/crds/
	cargo run --quiet --bin kubectl-rosey -- schema >docs/exporter.schema.json.new
	mv docs/exporter.schema.json.new docs/exporter.schema.json

# Without anything of the product: seconds, once the tools are built. `make test` does the same.
.PHONY: chart
chart: tools chart-tools ## Check the chart and what is written from it, without building the product
	cargo test --package chart

.PHONY: chart-readme
chart-readme: ## Write the table of values in the chart's README anew
	cargo run --quiet --package chart -- readme

.PHONY: manifests
manifests: chart-tools ## Write the plain manifests in deploy/ anew from the chart
	cargo run --quiet --package chart -- manifests

.PHONY: monitoring
monitoring: ## Write the types of prometheus-operator anew; needed when its version changes
	tools/monitoring

.PHONY: clean
clean: ## Remove what was built in this checkout; the tools in the cache stay
	cargo clean
