# Kafka from Maven Central on a JDK: sourced by the scripts.
# shellcheck shell=bash

# The folder that everything downloaded is kept in.
twinlog_cache() {
    printf '%s\n' "${TWINLOG_CACHE:-$HOME/.cache/twinlog}"
}

# kafka_libs VERSION: prints the folder with that version's jars.
kafka_libs() {
    printf '%s/kafka/%s/libs\n' "$(twinlog_cache)" "$1"
}

# kafka_fetched VERSION: whether the download of that version was completed.
kafka_fetched() {
    [ -e "$(kafka_libs "$1")/.complete" ]
}

# kafka_pom VERSION: a Maven project whose dependencies are what we run.
# Kafka 3 brings its own logging binding, Kafka 4 none.
kafka_pom() {
    local version=$1 artifact
    printf '<project><modelVersion>4.0.0</modelVersion>'
    printf '<groupId>twinlog</groupId><artifactId>kafka-libs</artifactId><version>1</version><packaging>pom</packaging>'
    printf '<dependencies>'
    for artifact in kafka_2.13 kafka-tools connect-mirror connect-runtime; do
        printf '<dependency><groupId>org.apache.kafka</groupId><artifactId>%s</artifactId><version>%s</version></dependency>' \
            "$artifact" "$version"
    done
    if [ "${version%%.*}" -ge 4 ]; then
        printf '<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>'
    fi
    printf '</dependencies></project>\n'
}

# kafka_fetch VERSION: downloads the jars unless they are there. Two at once are harmless: the
# second waits for the first. A broken download leaves nothing that looks complete.
kafka_fetch() {
    local version=$1 home fresh
    home="$(twinlog_cache)/kafka/$version"
    kafka_fetched "$version" && return 0
    mkdir -p "$home"
    (
        flock 9
        kafka_fetched "$version" && exit 0
        fresh="$(mktemp -d "$home/new.XXXXXX")"
        trap 'rm -rf "$fresh"' EXIT
        kafka_pom "$version" >"$fresh/pom.xml"
        echo "Downloading Kafka $version from Maven Central (about 55 MB) ..." >&2
        mvn -q -B -f "$fresh/pom.xml" dependency:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$fresh/libs" </dev/null >&2
        if ! [ -e "$fresh/libs/kafka_2.13-$version.jar" ]; then
            echo "Maven ended well but kafka_2.13-$version.jar is missing." >&2
            exit 1
        fi
        touch "$fresh/libs/.complete"
        if [ -d "$home/libs" ]; then
            # Brokers may be running from the unstamped folder: complete it instead of replacing it.
            cp -n "$fresh/libs/"*.jar "$home/libs/"
            touch "$home/libs/.complete"
        else
            mv "$fresh/libs" "$home/libs"
        fi
    ) 9>"$home/.lock"
}
