import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.connect.mirror.Heartbeat;
import org.apache.kafka.connect.mirror.MirrorClient;
import org.apache.kafka.connect.mirror.RemoteClusterUtils;

/**
 * What MirrorMaker 2's own client sees on a cluster.
 *
 * <pre>
 * MirrorTools BOOTSTRAP default|identity ALIAS GROUP...
 *     prints one line per finding, sorted, words with blanks between them:
 *     upstream ALIAS               hops ALIAS NUMBER
 *     heartbeats-topic TOPIC       checkpoints-topic TOPIC       remote TOPIC
 *     offset GROUP TOPIC PARTITION OFFSET METADATA (in hexadecimal, = for empty)
 *     heartbeat TOPIC SOURCE TARGET TIMESTAMP (the newest record)
 * </pre>
 */
public final class MirrorTools {
    private static final Duration TIMEOUT = Duration.ofSeconds(30);
    private static final String POLICIES = "org.apache.kafka.connect.mirror.";

    private static final TreeSet<String> FINDINGS = new TreeSet<>();

    public static void main(String[] arguments) throws Exception {
        String alias = arguments[2];
        Map<String, Object> properties = client(arguments[0]);
        if (arguments[1].equals("identity")) {
            properties.put("replication.policy.class", POLICIES + "IdentityReplicationPolicy");
            properties.put("source.cluster.alias", alias);
        }
        for (String upstream : RemoteClusterUtils.upstreamClusters(properties)) {
            found("upstream", upstream);
        }
        for (String cluster : List.of(alias, "nobody")) {
            found("hops", cluster, RemoteClusterUtils.replicationHops(properties, cluster));
        }
        for (String topic : RemoteClusterUtils.heartbeatTopics(properties)) {
            found("heartbeats-topic", topic);
            heartbeat(arguments[0], topic);
        }
        for (String topic : RemoteClusterUtils.checkpointTopics(properties)) {
            found("checkpoints-topic", topic);
        }
        remoteTopics(properties, alias);
        for (int at = 3; at < arguments.length; at++) {
            String group = arguments[at];
            var offsets = RemoteClusterUtils.translateOffsets(properties, alias, group, TIMEOUT);
            offsets.forEach((partition, offset) -> found("offset", group, partition.topic(),
                partition.partition(), offset.offset(), hex(offset.metadata())));
        }
        FINDINGS.forEach(System.out::println);
    }

    /** What -Dclient.properties=FILE says a client needs to get in, if it says anything. */
    private static Map<String, Object> client(String bootstrap) throws IOException {
        Properties read = new Properties();
        String file = System.getProperty("client.properties");
        if (file != null) {
            try (var text = Files.newBufferedReader(Path.of(file))) {
                read.load(text);
            }
        }
        Map<String, Object> properties = new HashMap<>();
        read.forEach((key, value) -> properties.put(key.toString(), value));
        properties.put("bootstrap.servers", bootstrap);
        return properties;
    }

    private static void remoteTopics(Map<String, Object> properties, String alias)
            throws InterruptedException {
        MirrorClient client = new MirrorClient(properties);
        try {
            client.remoteTopics(alias).forEach(topic -> found("remote", topic));
        } finally {
            client.close();
        }
    }

    /** Kafka has a reader for heartbeats, but nothing that calls it. */
    private static void heartbeat(String bootstrap, String topic) throws IOException {
        Map<String, Object> properties = client(bootstrap);
        List<TopicPartition> partitions = List.of(new TopicPartition(topic, 0));
        try (var consumer = new KafkaConsumer<>(
                properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long end = consumer.endOffsets(partitions).get(partitions.get(0));
            ConsumerRecord<byte[], byte[]> last = null;
            long deadline = System.currentTimeMillis() + TIMEOUT.toMillis();
            while (consumer.position(partitions.get(0)) < end
                    && System.currentTimeMillis() < deadline) {
                for (var record : consumer.poll(Duration.ofMillis(100))) {
                    last = record;
                }
            }
            if (last != null) {
                Heartbeat beat = Heartbeat.deserializeRecord(last);
                found("heartbeat", topic, beat.sourceClusterAlias(), beat.targetClusterAlias(),
                    beat.timestamp());
            }
        }
    }

    private static void found(Object... words) {
        List<String> texts = new ArrayList<>();
        for (Object word : words) {
            texts.add(word.toString());
        }
        FINDINGS.add(String.join(" ", texts));
    }

    private static String hex(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        return bytes.length == 0 ? "=" : HexFormat.of().formatHex(bytes);
    }
}
