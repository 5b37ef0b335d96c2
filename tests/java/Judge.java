import java.io.BufferedWriter;
import java.io.IOException;
import java.io.OutputStreamWriter;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own clients as a judge and as a writer.
 *
 * <pre>
 * Judge read BOOTSTRAP TOPIC read_committed|read_uncommitted
 *     prints one line per record, by partition and offset:
 *     partition offset timestamp timestamp-type key value headers
 *     (bytes in hexadecimal, - for null, = for empty, headers as key:value,key:value)
 * Judge produce BOOTSTRAP TOPIC [NAME=VALUE...]
 *     count=100 first=0 partition=-1 value_bytes=100 keys=100 (0: null keys)
 *     headers=true|false   transaction=N (records per transaction, 0: none)
 *     abort_every=N (every N-th transaction is aborted)   leave_open=true (the last one)
 *     any name with a dot is a producer property, such as compression.type=lz4
 * </pre>
 */
public final class Judge {
    private static final HexFormat HEX = HexFormat.of();
    /** How long the end may stay out of reach while nothing arrives. */
    private static final long STALL_MS = 30_000;

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "read" -> read(arguments[1], arguments[2], arguments[3]);
            case "produce" -> produce(arguments);
            default -> throw new IllegalArgumentException("unknown mode " + arguments[0]);
        }
    }

    /** What -Dclient.properties=FILE says a client needs to get in, if it says anything. */
    private static Properties client(String bootstrap) throws IOException {
        Properties properties = new Properties();
        String file = System.getProperty("client.properties");
        if (file != null) {
            try (var text = Files.newBufferedReader(Path.of(file))) {
                properties.load(text);
            }
        }
        properties.put("bootstrap.servers", bootstrap);
        return properties;
    }

    private static void read(String bootstrap, String topic, String isolation) throws IOException {
        Properties properties = client(bootstrap);
        properties.put("isolation.level", isolation);
        properties.put("enable.auto.commit", "false");
        properties.put("allow.auto.create.topics", "false");
        properties.put("auto.offset.reset", "earliest");
        properties.put("fetch.max.wait.ms", "50");
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        try (var consumer = new KafkaConsumer<>(
                properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (PartitionInfo info : consumer.partitionsFor(topic, Duration.ofSeconds(30))) {
                partitions.add(new TopicPartition(topic, info.partition()));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            long progressAt = System.currentTimeMillis();
            while (!ends.isEmpty()) {
                var polled = consumer.poll(Duration.ofMillis(100));
                for (var record : polled) {
                    records.add(record);
                }
                // The position also passes over markers and aborted records, which a count of
                // records would not.
                boolean moved = ends.entrySet().removeIf(
                    end -> consumer.position(end.getKey()) >= end.getValue());
                if (moved || !polled.isEmpty()) {
                    progressAt = System.currentTimeMillis();
                } else if (System.currentTimeMillis() - progressAt > STALL_MS) {
                    throw new IllegalStateException("not at the end: " + ends);
                }
            }
        }
        records.sort(Comparator
            .comparingInt((ConsumerRecord<byte[], byte[]> record) -> record.partition())
            .thenComparingLong(ConsumerRecord::offset));
        try (Writer out = new BufferedWriter(
                new OutputStreamWriter(System.out, StandardCharsets.US_ASCII))) {
            for (var record : records) {
                out.write(line(record));
                out.write('\n');
            }
        }
    }

    private static String line(ConsumerRecord<byte[], byte[]> record) {
        StringBuilder headers = new StringBuilder();
        for (Header header : record.headers()) {
            if (headers.length() > 0) {
                headers.append(',');
            }
            headers.append(hex(header.key().getBytes(StandardCharsets.UTF_8)))
                .append(':')
                .append(hex(header.value()));
        }
        return record.partition() + " " + record.offset() + " " + record.timestamp() + " "
            + record.timestampType().name() + " " + hex(record.key()) + " " + hex(record.value())
            + " " + (headers.length() == 0 ? "-" : headers);
    }

    private static String hex(byte[] bytes) {
        if (bytes == null) {
            return "-";
        }
        return bytes.length == 0 ? "=" : HEX.formatHex(bytes);
    }

    private static void produce(String[] arguments) throws Exception {
        String topic = arguments[2];
        Map<String, String> options = new HashMap<>();
        Properties properties = client(arguments[1]);
        properties.put("max.request.size", "20000000");
        for (int index = 3; index < arguments.length; index++) {
            String[] pair = arguments[index].split("=", 2);
            if (pair[0].contains(".")) {
                properties.put(pair[0], pair[1]);
            } else {
                options.put(pair[0], pair[1]);
            }
        }
        long count = Long.parseLong(options.getOrDefault("count", "100"));
        long first = Long.parseLong(options.getOrDefault("first", "0"));
        int transaction = Integer.parseInt(options.getOrDefault("transaction", "0"));
        int abortEvery = Integer.parseInt(options.getOrDefault("abort_every", "0"));
        boolean leaveOpen = Boolean.parseBoolean(options.getOrDefault("leave_open", "false"));
        if (transaction > 0) {
            properties.put("transactional.id", "judge-" + System.nanoTime());
        }
        var producer = new KafkaProducer<>(
            properties, new ByteArraySerializer(), new ByteArraySerializer());
        if (transaction > 0) {
            producer.initTransactions();
        }
        List<Future<?>> sent = new ArrayList<>();
        long transactions = 0;
        for (long index = 0; index < count; index++) {
            if (transaction > 0 && index % transaction == 0) {
                producer.beginTransaction();
                transactions++;
            }
            sent.add(producer.send(record(topic, first + index, options)));
            boolean last = index + 1 == count;
            if (transaction > 0 && ((index + 1) % transaction == 0 || last)) {
                producer.flush();
                if (last && leaveOpen) {
                    // The process ends with the transaction open; it times out by itself.
                    Runtime.getRuntime().halt(0);
                } else if (abortEvery > 0 && transactions % abortEvery == 0) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        producer.flush();
        for (Future<?> future : sent) {
            future.get();
        }
        producer.close();
    }

    private static ProducerRecord<byte[], byte[]> record(
            String topic, long number, Map<String, String> options) {
        int partition = Integer.parseInt(options.getOrDefault("partition", "-1"));
        int valueBytes = Integer.parseInt(options.getOrDefault("value_bytes", "100"));
        long keys = Long.parseLong(options.getOrDefault("keys", "100"));
        byte[] key = keys == 0 ? null : ("key-" + number % keys).getBytes(StandardCharsets.UTF_8);
        StringBuilder value = new StringBuilder(topic + "-" + number + " ");
        while (value.length() < valueBytes) {
            value.append(Long.toHexString(Long.reverse(number * 0x9E3779B97F4A7C15L + value.length())));
        }
        var record = new ProducerRecord<>(
            topic, partition < 0 ? null : partition, key,
            value.toString().getBytes(StandardCharsets.UTF_8));
        if (Boolean.parseBoolean(options.getOrDefault("headers", "false"))) {
            record.headers().add("same", new byte[] {1}).add("same", null)
                .add("empty", new byte[0]).add("größe", new byte[] {(byte) 255, 0});
        }
        return record;
    }
}
