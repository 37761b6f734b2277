#!/usr/bin/env bash
# Builds the Greengrass component for this machine's architecture into greengrass-build, where
# `gdk component publish` and a local deployment look for it. `gdk component build` runs this; so
# may you.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf 'build.sh: %s\n' "$*" >&2; }

fail() {
    say "$@"
    exit 1
}

# A top-level field of the recipe.
field() { sed -n "s/^$1: //p" recipe.yaml; }

# Rust's musl target, and the C compiler that ring needs for it.
can_link_statically() {
    [ -d "$(rustc --print target-libdir --target "$musl")" ] &&
        { command -v "$arch-linux-musl-gcc" || command -v musl-gcc; } >/dev/null
}

name=$(field ComponentName)
version=$(field ComponentVersion)
artifacts=greengrass-build/artifacts/$name/$version
recipes=greengrass-build/recipes

# The compiler's architecture: on a 64-bit kernel it may be another than uname's.
host=$(rustc -vV | sed -n 's/^host: //p')
arch=${host%%-*}
musl=$arch-unknown-linux-musl
if [[ $host != *-linux-* ]] || ! grep -qx "  - Name: linux-$arch" recipe.yaml; then
    fail "recipe.yaml has no manifest for $host"
fi

if can_link_statically; then
    target=$musl
else
    target=$host
    say "can't build for $musl, so this is built for $host: if that is glibc, the gateway's must be" \
        "no older than this machine's. For a program that runs on any Linux:" \
        "rustup target add $musl, and install musl-gcc (Debian, Ubuntu: musl-tools)"
fi
cargo build --release --locked --bin certrelay --target "$target"

rm -rf greengrass-build
mkdir -p "$artifacts" "$recipes"
# Local deployments keep the mode.
install -m 0755 "${CARGO_TARGET_DIR:-target}/$target/release/certrelay" "$artifacts/certrelay-$arch"

# A manifest without its program must not get out: publishing would only warn.
awk -v keep="linux-$arch" '/^  - Name: / { skip = ($3 != keep) } !skip' recipe.yaml >"$recipes/recipe.yaml"
# The name that lite's ggl-cli wants.
cp "$recipes/recipe.yaml" "$recipes/$name-$version.yaml"
say "built $artifacts/certrelay-$arch"
