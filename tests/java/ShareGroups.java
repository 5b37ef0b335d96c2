import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Kafka's own share consumer (KIP-932).
 *
 * <pre>
 * ShareGroups read BOOTSTRAP GROUP TOPIC COUNT
 *     joins, accepts COUNT records, gives the others back, and leaves;
 *     prints a line for each that it accepted: partition offset value (as text)
 * ShareGroups hold BOOTSTRAP GROUP TOPIC
 *     joins, prints "joined", and stays a member until something is written to its input, for three
 *     minutes at most; TOPIC is to be empty, since records that are given back too often are
 *     archived
 * </pre>
 */
public final class ShareGroups {
    /** How long anything may take. */
    private static final long STALL_MS = 180_000;

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[1];
        String group = arguments[2];
        switch (arguments[0]) {
            case "read" -> read(bootstrap, group, arguments[3], Integer.parseInt(arguments[4]));
            case "hold" -> hold(bootstrap, group, arguments[3]);
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
}
