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
