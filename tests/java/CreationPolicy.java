import java.util.Map;
import org.apache.kafka.common.errors.PolicyViolationException;
import org.apache.kafka.server.policy.CreateTopicPolicy;

/** As a managed cluster's: what it refuses of a topic is told by the topic's name. */
public class CreationPolicy implements CreateTopicPolicy {
    @Override
    public void configure(Map<String, ?> configs) {}

    @Override
    public void validate(RequestMetadata topic) {
        String name = topic.topic();
        if (name.endsWith(".named") && topic.configs().containsKey("segment.bytes")) {
            throw new PolicyViolationException("segment.bytes must not be set");
        }
        if (name.endsWith(".quiet") && topic.configs().containsKey("segment.ms")) {
            throw new PolicyViolationException("not with these settings");
        }
        if (name.endsWith(".never")) {
            throw new PolicyViolationException("ask the platform team");
        }
    }

    @Override
    public void close() {}
}
