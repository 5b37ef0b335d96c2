# Runs the tests with cargo-nextest, or without it where it can't be had: sourced by scripts/test.
# What runs when is said in .config/nextest.toml.
# shellcheck shell=bash

# tests_run SPEED [WORD...]: the tests of a speed (fast, default, all), or those of all with a word in
# their names.
tests_run() {
    local profile=$1
    shift
    [ $# -eq 0 ] || [ "$profile" = fast ] || profile=all
    # Simulated hunts play a few of their seeds from day to day, and all of them here.
    if [ "$profile" = all ]; then export TWINLOG_ALL_SEEDS=1; fi
    if ! cargo nextest --version >/dev/null 2>&1; then
        tests_run_plainly "$profile" "$@"
        return
    fi
    local status=0 times="target/nextest/$profile/times.xml"
    rm -f "$times"
    cargo nextest run --locked --workspace --profile "$profile" "$@" || status=$?
    tests_times "$times"
    # 100: tests failed. Any other failure, such as a build's, says nothing of tests.
    if [ "$status" = 100 ] && [ -n "${TWINLOG_TESTS_AGAIN:-}" ] && tests_again "$times"; then status=0; fi
    return "$status"
}

# How many tests may fail before it is no accident.
TESTS_AGAIN_MAX=5

# tests_again FILE: runs the tests that failed once more, with nothing beside them, if they are few. Those that pass now
# are unsteady, which is a defect of the test or of the program, and are named.
tests_again() {
    local failed filter
    failed="$(tests_failed "$1")"
    [ -n "$failed" ] && [ "$(wc -l <<<"$failed")" -le "$TESTS_AGAIN_MAX" ] || return 1
    echo "== once more, alone:" $failed
    filter="$(sed 's/.*/test(=&)/' <<<"$failed" | paste -sd '+')"
    cargo nextest run --locked --workspace --profile all --test-threads 1 -E "$filter" || return 1
    echo "== UNSTEADY: red beside others, green alone; what it said when it failed is above:"
    sed 's/^/   /' <<<"$failed"
}

# tests_failed FILE: the names of the tests that failed; nothing where there is no such file.
tests_failed() {
    [ -e "$1" ] || return 0
    awk '
        /<testcase / { name = $0; sub(/.*<testcase name="/, "", name); sub(/".*/, "", name) }
        /<(failure|error)[ >]/ && !told[name]++ { print name }' "$1"
}

# tests_run_secured SPEED: a list of them between clusters with TLS, SCRAM and an authorizer.
tests_run_secured() {
    local profile=secured
    [ "$1" = all ] && profile=secured-all
    TWINLOG_TEST_SECURITY=sasl_ssl tests_run "$profile"
}

# tests_times FILE: how long every test took, the slowest first, and how many passed. Those that took
# no time are counted only.
tests_times() {
    [ -e "$1" ] || return 0
    echo "== seconds of every test"
    sed -n 's/.*<testcase name="\([^"]*\)".* time="\([^"]*\)".*/\2 \1/p' "$1" | sort -rn | awk '
        { sum += $1 }
        $1 >= 0.1 { printf "%8.1f  %s\n", $1, $2 }
        $1 < 0.1 { quick++ }
        END { printf "%8.1f  in sum, with %d tests that took less than a tenth\n", sum, quick }'
    sed -n 's/^<testsuites .*tests="\([0-9]*\)" .*failures="\([0-9]*\)" errors="\([0-9]*\)".*/\1 \2 \3/p' "$1" |
        awk '{ printf "%d passed, %d failed\n", $1 - $2 - $3, $2 + $3 }'
}

# tests_only_in_all: the list in .config/nextest.toml: reasons, and a paragraph of tests for each.
tests_only_in_all() {
    sed -n "/^# Only in --all/,/^)/p" .config/nextest.toml |
        sed -n 's/^#   /  /p; s/^    test(=\(.*\)).*/      \1/p; s/^$//p; s/^not (//p'
}

# tests_filter PROFILE: its filter in .config/nextest.toml as a regular expression for what it
# takes, or for what it leaves out.
tests_filter() {
    sed -n "/^\[profile\.$1\]/,/^\[/p" .config/nextest.toml |
        sed -n 's/.*test(\/\(.*\)\/).*/\1/p; s/.*test(=\(.*\)).*/^\1$/p' | paste -sd '|'
}

# tests_run_plainly PROFILE [WORD...]: the same without cargo-nextest. Every test has a process of
# its own here, too; two run at a time.
tests_run_plainly() {
    local profile=${1%-all} binary filter
    shift
    cargo test --locked --workspace --lib --bins -- "$@"
    binary="$(cargo test --locked --no-run --test it 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')"
    filter="$(tests_filter "$profile")"
    "$binary" --list --format terse | sed -n 's/: test$//p' |
        case $profile in
        all) cat ;;
        secured*) grep -E "$filter" ;;
        *) grep -vE "$filter" ;;
        esac |
        if [ $# -gt 0 ]; then grep -F "$(printf '%s\n' "$@")"; else cat; fi >"$TMPDIR/names"
    : >"$TMPDIR/passed"
    CARGO_MANIFEST_DIR=$PWD TWINLOG_TEST_RUN=$$ \
        xargs -a "$TMPDIR/names" -P 2 -I '{}' scripts/lib/run-test "$binary" '{}' || true
    sort -rn "$TMPDIR/passed"
    local all passed
    all=$(wc -l <"$TMPDIR/names") passed=$(wc -l <"$TMPDIR/passed")
    echo "$passed passed, $((all - passed)) failed"
    [ "$passed" = "$all" ]
}
