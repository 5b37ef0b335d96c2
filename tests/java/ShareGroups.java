import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Kafka's own share consumer (KIP-932) and the admin calls about share groups.
 *
 * <pre>
 * ShareGroups earliest BOOTSTRAP GROUP
 *     a group that is new to a partition begins at its first record (by default: at its end)
 * ShareGroups read BOOTSTRAP GROUP TOPIC COUNT
 *     joins, accepts COUNT records, gives the others back, and leaves;
 *     prints a line for each that it accepted: partition offset value (as text)
 * ShareGroups hold BOOTSTRAP GROUP TOPIC
 *     joins, prints "joined", and stays a member until something is written to its input, for a
 *     minute at most; TOPIC is to be empty, since records that are given back too often are
 *     archived
 * ShareGroups offsets BOOTSTRAP GROUP
 *     prints a line for each start offset, sorted: topic partition offset
 * ShareGroups alter BOOTSTRAP GROUP TOPIC PARTITION OFFSET
 * </pre>
 */
public final class ShareGroups {
    /** How long anything may take. */
    private static final long STALL_MS = 60_000;

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[1];
        String group = arguments[2];
        switch (arguments[0]) {
            case "earliest" -> earliest(bootstrap, group);
            case "read" -> read(bootstrap, group, arguments[3], Integer.parseInt(arguments[4]));
            case "hold" -> hold(bootstrap, group, arguments[3]);
            case "offsets" -> offsets(bootstrap, group);
            case "alter" -> alter(bootstrap, group,
                new TopicPartition(arguments[3], Integer.parseInt(arguments[4])),
                Long.parseLong(arguments[5]));
            default -> throw new IllegalArgumentException("unknown mode " + arguments[0]);
        }
    }

    /** What -Dclient.properties=FILE says a client needs to get in, if it says anything. */
    private static Properties client(String bootstrap) {
        Properties properties = new Properties();
        String file = System.getProperty("client.properties");
        if (file != null) {
            try (var text = Files.newBufferedReader(Path.of(file))) {
                properties.load(text);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
        properties.put("bootstrap.servers", bootstrap);
        return properties;
    }

    private static Admin admin(String bootstrap) {
        return Admin.create(client(bootstrap));
    }

    private static void earliest(String bootstrap, String group) throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        var entry = new ConfigEntry("share.auto.offset.reset", "earliest");
        var change = new AlterConfigOp(entry, AlterConfigOp.OpType.SET);
        try (var admin = admin(bootstrap)) {
            admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all().get();
        }
    }

    private static KafkaShareConsumer<byte[], byte[]> consumer(String bootstrap, String group) {
        Properties properties = client(bootstrap);
        properties.put("group.id", group);
        properties.put("share.acknowledgement.mode", "explicit");
        return new KafkaShareConsumer<>(
            properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void read(String bootstrap, String group, String topic, int count) {
        try (var consumer = consumer(bootstrap, group)) {
            consumer.subscribe(List.of(topic));
            long deadline = System.currentTimeMillis() + STALL_MS;
            int accepted = 0;
            while (accepted < count) {
                if (System.currentTimeMillis() > deadline) {
                    throw new IllegalStateException("only " + accepted + " records of " + count);
                }
                for (var record : consumer.poll(Duration.ofMillis(200))) {
                    if (accepted == count) {
                        consumer.acknowledge(record, AcknowledgeType.RELEASE);
                        continue;
                    }
                    accepted++;
                    consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                    System.out.println(record.partition() + " " + record.offset() + " "
                        + new String(record.value(), StandardCharsets.UTF_8));
                }
                for (var result : consumer.commitSync(Duration.ofSeconds(20)).entrySet()) {
                    if (result.getValue().isPresent()) {
                        throw result.getValue().get();
                    }
                }
            }
        }
    }

    private static void hold(String bootstrap, String group, String topic) throws Exception {
        try (var consumer = consumer(bootstrap, group); var admin = admin(bootstrap)) {
            consumer.subscribe(List.of(topic));
            long deadline = System.currentTimeMillis() + STALL_MS;
            boolean joined = false;
            while (System.in.available() == 0 && System.currentTimeMillis() < deadline) {
                if (!consumer.poll(Duration.ofMillis(200)).isEmpty()) {
                    throw new IllegalStateException(topic + " has records");
                }
                if (!joined) {
                    var described = admin.describeShareGroups(List.of(group)).all().get();
                    joined = !described.get(group).members().isEmpty();
                    if (joined) {
                        System.out.println("joined");
                    }
                }
            }
        }
    }

    private static void offsets(String bootstrap, String group) throws Exception {
        try (var admin = admin(bootstrap)) {
            var all = Map.of(group, new ListShareGroupOffsetsSpec());
            var found = admin.listShareGroupOffsets(all).partitionsToOffsetInfo(group).get();
            var lines = new TreeMap<String, Long>();
            found.forEach((at, offset) -> {
                if (offset != null) {
                    lines.put(at.topic() + " " + at.partition(), offset.startOffset());
                }
            });
            lines.forEach((at, offset) -> System.out.println(at + " " + offset));
        }
    }

    private static void alter(String bootstrap, String group, TopicPartition at, long offset)
            throws Exception {
        try (var admin = admin(bootstrap)) {
            admin.alterShareGroupOffsets(group, Map.of(at, offset)).all().get();
        }
    }
}
