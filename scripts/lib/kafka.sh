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

# kafka_java VERSION FOLDER ARGUMENTS...: runs a class of that version in place of this shell.
# setpriv makes the kernel end it with the script that started it, however that ends, unless
# KAFKA_OUTLIVES=1.
kafka_java() {
    local version=$1 folder=$2 lib
    shift 2
    lib="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
    local wrapper=(setpriv --pdeathsig KILL --)
    [ "${KAFKA_OUTLIVES:-0}" = 1 ] && wrapper=(setsid)
    exec "${wrapper[@]}" java "-Xmx${KAFKA_HEAP:-384m}" -XX:+UseSerialGC -XX:-UsePerfData \
        -Djava.io.tmpdir="$folder" \
        -Dlog4j2.configurationFile="$lib/log4j2.properties" \
        -Dlog4j.configuration="file:$lib/log4j.properties" \
        -cp "$(kafka_libs "$version")/*" "$@"
}

# kafka_properties FOLDER PORT CONTROLLER_PORT: one node, KRaft, plaintext on 127.0.0.1, with the
# standard authorizer. Clients on a plaintext listener are anonymous. They may do everything as long as
# no ACL says otherwise, and are no super user: a failover's fence binds them. The node itself is
# somebody (SASL between itself and its controller), so that no ACL can lock it out.
kafka_properties() {
    local module=org.apache.kafka.common.security.plain.PlainLoginModule
    cat <<END
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3
advertised.listeners=PLAINTEXT://127.0.0.1:$2
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:SASL_PLAINTEXT
controller.listener.names=CONTROLLER
sasl.mechanism.controller.protocol=PLAIN
listener.name.controller.sasl.enabled.mechanisms=PLAIN
listener.name.controller.plain.sasl.jaas.config=$module required username="node" password="on-loopback" user_node="on-loopback";
controller.quorum.voters=1@127.0.0.1:$3
log.dirs=$1/data
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:node
allow.everyone.if.no.acl.found=true
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=2
group.initial.rebalance.delay.ms=0
log.cleaner.backoff.ms=1000
log.cleaner.dedupe.buffer.size=16777216
END
}

# kafka_start VERSION FOLDER PORT CONTROLLER_PORT: formats FOLDER and starts a node in the
# background; its process id is in KAFKA_PID, its log in FOLDER/broker.log.
kafka_start() {
    local version=$1 folder=$2 port=$3 controller_port=$4 cluster_id
    mkdir -p "$folder"
    kafka_properties "$folder" "$port" "$controller_port" >"$folder/server.properties"
    cluster_id="$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | tr -d '=')"
    (kafka_java "$version" "$folder" kafka.tools.StorageTool format -t "$cluster_id" \
        -c "$folder/server.properties") </dev/null >"$folder/broker.log" 2>&1 || {
        cat "$folder/broker.log" >&2
        return 1
    }
    (kafka_java "$version" "$folder" kafka.Kafka "$folder/server.properties") \
        </dev/null >>"$folder/broker.log" 2>&1 &
    # The exported variable is for the caller.
    # shellcheck disable=SC2034
    KAFKA_PID=$!
}

# port_is_free PORT: whether nobody listens there.
port_is_free() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}
