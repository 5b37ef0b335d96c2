import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TopicAuthorizationException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Applications that run for a long time and are moved from one cluster to another.
 *
 * <pre>
 * Apps BOOTSTRAP CLIENT...
 *     plain=NAME,PER_SECOND,TOPIC/PARTITIONS,...          an idempotent producer
 *     transactional=NAME,PER_SECOND,TOPIC/PARTITIONS,...  five records in a transaction
 *     group=NAME,TOPIC,...                                a group of one, read_committed
 *
 * It listens to:  switch BOOTSTRAP   quiet (nothing new is written)   stop
 *
 * It tells, a line each (ERA counts the switches of the client):
 *     ack PRODUCER TOPIC PARTITION OFFSET NUMBER
 *     refused PRODUCER                              the topic's ACLs say no: nothing was written
 *     doubt PRODUCER TOPIC PARTITION NUMBER         maybe written; it will be sent again
 *     read GROUP ERA TOPIC PARTITION OFFSET VALUE
 *     committed GROUP ERA TOPIC PARTITION OFFSET TIME_MS
 *     switched NAME     quiet NAME     stopped NAME
 * </pre>
 *
 * A value is "PRODUCER NUMBER", numbered by partition. What was not acknowledged is kept, and is
 * sent again in its order, before anything new. A producer that was refused writes nothing more
 * until it is moved.
 */
public final class Apps {
    /** Unacknowledged records of a producer. */
    private static final int OUTSTANDING_MAX = 200;
    /** A producer makes no more records, so that nothing grows for ever. */
    private static final long RECORDS_MAX = 100_000;
    private static final int IN_TRANSACTION = 5;
    /** Before what failed is tried again. */
    private static final long REST_MS = 300;
    private static final long COMMIT_EVERY_MS = 100;

    public static void main(String[] arguments) throws Exception {
        List<Client> clients = new ArrayList<>();
        for (int at = 1; at < arguments.length; at++) {
            String[] kind = arguments[at].split("=", 2);
            String[] words = kind[1].split(",");
            clients.add(switch (kind[0]) {
                case "plain" -> new Plain(words, arguments[0]);
                case "transactional" -> new Transactional(words, arguments[0]);
                case "group" -> new Group(words, arguments[0]);
                default -> throw new IllegalArgumentException("unknown client " + kind[0]);
            });
        }
        clients.forEach(Thread::start);
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            for (Client client : clients) {
                client.command(words);
            }
            if (words[0].equals("stop")) {
                break;
            }
        }
        for (Client client : clients) {
            client.command(new String[] {"stop"});
            client.join(20_000);
        }
        System.exit(0);
    }

    private static void tell(String line) {
        System.out.println(line);
    }

    /** What -Dclient.properties=FILE says a client needs to get in, if it says anything. */
    private static Properties client(String bootstrap) {
        Properties properties = new Properties();
        String file = System.getProperty("client.properties");
        if (file != null) {
            try (var text = Files.newBufferedReader(Path.of(file))) {
                properties.load(text);
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
        }
        properties.put("bootstrap.servers", bootstrap);
        properties.put("reconnect.backoff.ms", "20");
        properties.put("reconnect.backoff.max.ms", "200");
        return properties;
    }

    /** A thread with a client that can be told where to go. */
    private abstract static class Client extends Thread {
        protected volatile String bootstrap;
        protected volatile boolean isQuiet;
        protected volatile boolean isStopped;
        protected int era;
        private String at;

        Client(String name, String bootstrap) {
            super(name);
            this.bootstrap = bootstrap;
            this.at = bootstrap;
            setDaemon(true);
        }

        void command(String[] words) {
            switch (words[0]) {
                case "switch" -> bootstrap = words[1];
                case "quiet" -> isQuiet = true;
                case "stop" -> isStopped = true;
                default -> throw new IllegalArgumentException("unknown command " + words[0]);
            }
        }

        /** Opens a client of the cluster where it belongs. */
        abstract void open(String bootstrap);

        abstract void close();

        /** A bit of work. */
        abstract void work() throws InterruptedException;

        @Override
        public void run() {
            try {
                open(at);
                while (!isStopped) {
                    String wanted = bootstrap;
                    if (!wanted.equals(at)) {
                        close();
                        at = wanted;
                        era++;
                        open(at);
                        tell("switched " + getName());
                    }
                    work();
                }
                close();
                tell("stopped " + getName());
            } catch (Throwable error) {
                error.printStackTrace();
                tell("failed " + getName() + " " + String.valueOf(error).replace('\n', ' '));
            }
        }
    }

    /** A record of an application. */
    private record Item(long order, String topic, int partition, long number) {
        String in(String producer) {
            return producer + " " + topic + " " + partition + " " + number;
        }

        ProducerRecord<String, String> of(String producer) {
            String value = producer + " " + number;
            return new ProducerRecord<>(topic, partition, value, value);
        }
    }

    /** Makes records in turn for every partition, at its pace. */
    private abstract static class Writer extends Client {
        protected final long pauseNanos;
        private final List<TopicPartition> places = new ArrayList<>();
        private final Map<TopicPartition, Long> numbers = new HashMap<>();
        private long made;
        private boolean toldQuiet;
        private long next = System.nanoTime();

        Writer(String[] words, String bootstrap) {
            super(words[0], bootstrap);
            pauseNanos = 1_000_000_000L / Long.parseLong(words[1]);
            for (int at = 2; at < words.length; at++) {
                String[] topic = words[at].split("/");
                for (int partition = 0; partition < Integer.parseInt(topic[1]); partition++) {
                    places.add(new TopicPartition(topic[0], partition));
                }
            }
        }

        Item make() {
            TopicPartition place = places.get((int) (made % places.size()));
            long number = numbers.merge(place, 1L, Long::sum) - 1;
            return new Item(made++, place.topic(), place.partition(), number);
        }

        boolean mayMake() {
            return !isQuiet && made < RECORDS_MAX;
        }

        void pace(int records) throws InterruptedException {
            next = Math.max(next + records * pauseNanos, System.nanoTime() - 100_000_000L);
            long nanos = next - System.nanoTime();
            if (nanos > 0) {
                Thread.sleep(nanos / 1_000_000, (int) (nanos % 1_000_000));
            }
        }

        /** Called when nothing is left to do. */
        void idle() throws InterruptedException {
            if (isQuiet && !toldQuiet) {
                toldQuiet = true;
                tell("quiet " + getName());
            }
            Thread.sleep(10);
        }

        Properties properties(String bootstrap) {
            Properties properties = client(bootstrap);
            properties.put("acks", "all");
            properties.put("linger.ms", "2");
            // A busy machine is no dead broker: an answer that is late leaves nothing in doubt.
            properties.put("request.timeout.ms", "10000");
            properties.put("delivery.timeout.ms", "60000");
            properties.put("max.block.ms", "10000");
            return properties;
        }

        KafkaProducer<String, String> producer(Properties properties) {
            return new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
        }
    }

    /** An idempotent producer with many records on their way. */
    private static final class Plain extends Writer {
        private KafkaProducer<String, String> producer;
        /** In their order. Guards itself and the fields below. */
        private final TreeMap<Long, Item> outstanding = new TreeMap<>();
        private int inFlight;
        private boolean isHolding;
        private boolean isRefused;
        private long restUntilNanos;

        Plain(String[] words, String bootstrap) {
            super(words, bootstrap);
        }

        @Override
        void open(String bootstrap) {
            Properties properties = properties(bootstrap);
            properties.put("enable.idempotence", "true");
            producer = producer(properties);
            synchronized (outstanding) {
                isHolding = true;
                isRefused = false;
                restUntilNanos = System.nanoTime();
            }
        }

        @Override
        void close() {
            // What can still be answered is; the rest ends with an error.
            producer.close(Duration.ofSeconds(2));
        }

        @Override
        void work() throws InterruptedException {
            List<Item> again = null;
            boolean isFull;
            boolean isEmpty;
            synchronized (outstanding) {
                if (isHolding && !isRefused && inFlight == 0 && System.nanoTime() >= restUntilNanos) {
                    again = new ArrayList<>(outstanding.values());
                    isHolding = false;
                }
                isFull = isHolding || outstanding.size() >= OUTSTANDING_MAX;
                isEmpty = outstanding.isEmpty();
            }
            if (again != null) {
                for (Item item : again) {
                    send(item);
                    synchronized (outstanding) {
                        // It was refused at once, or nobody answers: the rest waits with it.
                        if (isHolding) {
                            break;
                        }
                    }
                }
            } else if (!isFull && mayMake()) {
                Item item = make();
                synchronized (outstanding) {
                    outstanding.put(item.order(), item);
                }
                send(item);
                pace(1);
            } else if (isEmpty) {
                idle();
            } else {
                Thread.sleep(5);
            }
        }

        private void send(Item item) {
            synchronized (outstanding) {
                inFlight++;
            }
            producer.send(item.of(getName()), (metadata, error) -> {
                synchronized (outstanding) {
                    inFlight--;
                    if (error == null) {
                        outstanding.remove(item.order());
                        tell("ack " + getName() + " " + item.topic() + " " + item.partition()
                            + " " + metadata.offset() + " " + item.number());
                        return;
                    }
                    isHolding = true;
                    isRefused |= error instanceof TopicAuthorizationException;
                    restUntilNanos = System.nanoTime() + REST_MS * 1_000_000;
                }
                if (error instanceof TopicAuthorizationException) {
                    tell("refused " + getName());
                } else {
                    tell("doubt " + item.in(getName()));
                }
            });
        }
    }

    /** Transactions of a few records; what was not committed is written in the next one. */
    private static final class Transactional extends Writer {
        private KafkaProducer<String, String> producer;
        private List<Item> items = new ArrayList<>();
        private String address;
        private boolean isRefused;

        Transactional(String[] words, String bootstrap) {
            super(words, bootstrap);
        }

        @Override
        void open(String bootstrap) {
            address = bootstrap;
            producer = null;
            isRefused = false;
        }

        @Override
        void close() {
            if (producer != null) {
                producer.close(Duration.ZERO);
            }
            producer = null;
        }

        @Override
        void work() throws InterruptedException {
            if (isRefused) {
                Thread.sleep(10);
                return;
            }
            if (items.isEmpty()) {
                if (!mayMake()) {
                    idle();
                    return;
                }
                for (int count = 0; count < IN_TRANSACTION; count++) {
                    items.add(make());
                }
            }
            boolean isCommitting = false;
            try {
                if (producer == null) {
                    Properties properties = properties(address);
                    properties.put("transactional.id", getName());
                    properties.put("transaction.timeout.ms", "5000");
                    producer = producer(properties);
                    producer.initTransactions();
                }
                producer.beginTransaction();
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (Item item : items) {
                    sent.add(producer.send(item.of(getName())));
                }
                for (var one : sent) {
                    // Without its coordinator a producer doesn't let records expire by itself.
                    one.get(3, TimeUnit.SECONDS);
                }
                isCommitting = true;
                producer.commitTransaction();
                for (int at = 0; at < items.size(); at++) {
                    Item item = items.get(at);
                    tell("ack " + getName() + " " + item.topic() + " " + item.partition()
                        + " " + sent.get(at).get().offset() + " " + item.number());
                }
                items.clear();
                pace(IN_TRANSACTION);
            } catch (InterruptedException error) {
                throw error;
            } catch (Exception error) {
                if (isCommitting) {
                    // Nobody knows whether the coordinator has taken the commit.
                    items.forEach(item -> tell("doubt " + item.in(getName())));
                } else if (isRefusal(error)) {
                    isRefused = true;
                    tell("refused " + getName());
                }
                try {
                    if (producer != null) {
                        producer.abortTransaction();
                    }
                } catch (Exception fatal) {
                    close();
                }
                Thread.sleep(REST_MS);
            }
        }
    }

    private static boolean isRefusal(Throwable error) {
        return error != null
            && (error instanceof TopicAuthorizationException || isRefusal(error.getCause()));
    }

    /** A group of one member that commits what it has read, often. */
    private static final class Group extends Client {
        private final List<String> topics;
        private KafkaConsumer<String, String> consumer;
        private Map<TopicPartition, Long> committed;
        private long committedAtMs;

        Group(String[] words, String bootstrap) {
            super(words[0], bootstrap);
            topics = List.of(words).subList(1, words.length);
        }

        @Override
        void open(String bootstrap) {
            Properties properties = client(bootstrap);
            properties.put("group.id", getName());
            properties.put("enable.auto.commit", "false");
            properties.put("isolation.level", "read_committed");
            properties.put("auto.offset.reset", "earliest");
            properties.put("session.timeout.ms", "15000");
            properties.put("heartbeat.interval.ms", "1000");
            properties.put("request.timeout.ms", "3000");
            properties.put("default.api.timeout.ms", "3000");
            consumer = new KafkaConsumer<>(
                properties, new StringDeserializer(), new StringDeserializer());
            consumer.subscribe(topics);
            committed = new HashMap<>();
        }

        @Override
        void close() {
            commit();
            consumer.close(Duration.ofSeconds(2));
        }

        @Override
        void work() {
            try {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(50))) {
                    tell("read " + getName() + " " + era + " " + record.topic() + " "
                        + record.partition() + " " + record.offset() + " " + record.value());
                }
            } catch (RuntimeException error) {
                System.err.println(getName() + ": " + error);
            }
            if (System.currentTimeMillis() - committedAtMs >= COMMIT_EVERY_MS) {
                commit();
            }
        }

        private void commit() {
            try {
                Map<TopicPartition, OffsetAndMetadata> moved = new HashMap<>();
                for (TopicPartition at : consumer.assignment()) {
                    long position = consumer.position(at, Duration.ofSeconds(2));
                    if (!Long.valueOf(position).equals(committed.get(at))) {
                        moved.put(at, new OffsetAndMetadata(position));
                    }
                }
                if (!moved.isEmpty()) {
                    // What isn't committed when it leaves is read again.
                    consumer.commitSync(moved, Duration.ofSeconds(10));
                    long now = System.currentTimeMillis();
                    moved.forEach((at, position) -> {
                        committed.put(at, position.offset());
                        tell("committed " + getName() + " " + era + " " + at.topic() + " "
                            + at.partition() + " " + position.offset() + " " + now);
                    });
                }
            } catch (RuntimeException error) {
                System.err.println(getName() + " doesn't commit: " + error);
            }
            committedAtMs = System.currentTimeMillis();
        }
    }
}
