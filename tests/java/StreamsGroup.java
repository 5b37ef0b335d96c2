import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.util.List;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.OffsetCommitRequestData;
import org.apache.kafka.common.message.StreamsGroupHeartbeatRequestData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.requests.AbstractRequest;
import org.apache.kafka.common.requests.AbstractResponse;
import org.apache.kafka.common.requests.OffsetCommitRequest;
import org.apache.kafka.common.requests.RequestHeader;
import org.apache.kafka.common.requests.StreamsGroupHeartbeatRequest;
import org.apache.kafka.common.requests.StreamsGroupHeartbeatResponse;

/**
 * A member of a group of Kafka Streams' own protocol (KIP-1071), by requests alone: the library itself isn't needed.
 *
 * <pre>
 * StreamsGroup commit BOOTSTRAP GROUP TOPIC OFFSET
 *     joins, commits the position on partition 0, and leaves
 * </pre>
 */
public final class StreamsGroup implements AutoCloseable {
    /** How long anything may take. */
    private static final int STALL_MS = 60_000;
    private static final int PAUSE_MS = 100;
    /** Leaves the group. */
    private static final int LEAVE = -1;
    /** The last version that names topics. */
    private static final short COMMIT_VERSION = 9;

    private final Socket socket;
    private final DataInputStream in;
    private final DataOutputStream out;
    private final String group;
    private final String topic;
    private final String member = Uuid.randomUuid().toString();
    private int correlation;

    private StreamsGroup(String bootstrap, String group, String topic) throws Exception {
        int colon = bootstrap.lastIndexOf(':');
        this.socket = new Socket(bootstrap.substring(0, colon), Integer.parseInt(bootstrap.substring(colon + 1)));
        this.socket.setSoTimeout(STALL_MS);
        this.in = new DataInputStream(socket.getInputStream());
        this.out = new DataOutputStream(socket.getOutputStream());
        this.group = group;
        this.topic = topic;
    }

    public static void main(String[] arguments) throws Exception {
        try (StreamsGroup group = new StreamsGroup(arguments[1], arguments[2], arguments[3])) {
            int epoch = group.join();
            group.commit(epoch, Long.parseLong(arguments[4]));
            group.beat(LEAVE);
        }
    }

    /** The coordinator may not have loaded its groups yet, or make them anew. */
    private int join() throws Exception {
        long deadline = System.currentTimeMillis() + STALL_MS;
        while (true) {
            StreamsGroupHeartbeatResponse answer = beat(0);
            Errors error = Errors.forCode(answer.data().errorCode());
            if (error == Errors.NONE) {
                return answer.data().memberEpoch();
            }
            if (System.currentTimeMillis() > deadline) {
                throw error.exception(answer.data().errorMessage());
            }
            Thread.sleep(PAUSE_MS);
        }
    }

    private StreamsGroupHeartbeatResponse beat(int epoch) throws Exception {
        StreamsGroupHeartbeatRequestData data =
                new StreamsGroupHeartbeatRequestData()
                        .setGroupId(group)
                        .setMemberId(member)
                        .setMemberEpoch(epoch);
        if (epoch == 0) {
            data.setRebalanceTimeoutMs(STALL_MS)
                    .setProcessId(member)
                    .setActiveTasks(List.of())
                    .setStandbyTasks(List.of())
                    .setWarmupTasks(List.of())
                    .setClientTags(List.of())
                    .setTopology(
                            new StreamsGroupHeartbeatRequestData.Topology()
                                    .setEpoch(0)
                                    .setSubtopologies(
                                            List.of(
                                                    new StreamsGroupHeartbeatRequestData.Subtopology()
                                                            .setSubtopologyId("0")
                                                            .setSourceTopics(List.of(topic)))));
        }
        AbstractRequest request =
                new StreamsGroupHeartbeatRequest.Builder(data).build((short) 0);
        return (StreamsGroupHeartbeatResponse) call(ApiKeys.STREAMS_GROUP_HEARTBEAT, request, (short) 0);
    }

    private void commit(int epoch, long offset) throws Exception {
        OffsetCommitRequestData data =
                new OffsetCommitRequestData()
                        .setGroupId(group)
                        .setMemberId(member)
                        .setGenerationIdOrMemberEpoch(epoch)
                        .setTopics(
                                List.of(
                                        new OffsetCommitRequestData.OffsetCommitRequestTopic()
                                                .setName(topic)
                                                .setPartitions(
                                                        List.of(
                                                                new OffsetCommitRequestData
                                                                                .OffsetCommitRequestPartition()
                                                                        .setPartitionIndex(0)
                                                                        .setCommittedOffset(offset)))));
        AbstractRequest request =
                OffsetCommitRequest.Builder.forTopicNames(data).build(COMMIT_VERSION);
        AbstractResponse answer = call(ApiKeys.OFFSET_COMMIT, request, COMMIT_VERSION);
        answer.errorCounts().forEach(
                (error, count) -> {
                    if (error != Errors.NONE) {
                        throw error.exception();
                    }
                });
    }

    private AbstractResponse call(ApiKeys key, AbstractRequest request, short version) throws Exception {
        RequestHeader header = new RequestHeader(key, version, "streams-group", correlation++);
        ByteBuffer bytes = request.serializeWithHeader(header);
        out.writeInt(bytes.remaining());
        out.write(bytes.array(), bytes.arrayOffset() + bytes.position(), bytes.remaining());
        out.flush();
        byte[] answer = new byte[in.readInt()];
        in.readFully(answer);
        return AbstractResponse.parseResponse(ByteBuffer.wrap(answer), header);
    }

    @Override
    public void close() throws Exception {
        socket.close();
    }
}
