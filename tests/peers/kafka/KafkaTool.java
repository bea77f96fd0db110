import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What the tests do with Kafka's own client: create topics, write, read everything, look at committed offsets. */
public class KafkaTool {
    public static void main(String[] arguments) throws Exception {
        String[] rest = Arrays.copyOfRange(arguments, 2, arguments.length);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[1]);
        switch (arguments[0]) {
            case "create" -> create(properties, rest);
            case "write" -> write(properties, rest[0], Path.of(rest[1]));
            case "read" -> read(properties, List.of(rest));
            case "committed" -> committed(properties, rest[0]);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    /** create TOPIC,... PARTITIONS [NAME=VALUE...] */
    static void create(Properties properties, String[] rest) throws Exception {
        properties.put("default.api.timeout.ms", "60000");
        Map<String, String> configs = new HashMap<>();
        for (String pair : Arrays.copyOfRange(rest, 2, rest.length)) {
            String[] parts = pair.split("=", 2);
            configs.put(parts[0], parts[1]);
        }
        try (Admin admin = Admin.create(properties)) {
            int partitions = Integer.parseInt(rest[1]);
            var topics = Arrays.stream(rest[0].split(","))
                .map(name -> new NewTopic(name, partitions, (short) 1).configs(configs)).toList();
            admin.createTopics(topics).all().get();
        }
    }

    /** write TOPIC FILE: each line of the file is the body of a message in hexadecimal; keys spread them over the partitions. */
    static void write(Properties properties, String topic, Path file) throws Exception {
        properties.put("acks", "all");
        var serializer = new ByteArraySerializer();
        try (var producer = new KafkaProducer<byte[], byte[]>(properties, serializer, serializer)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String line : Files.readAllLines(file)) {
                byte[] body = HexFormat.of().parseHex(line);
                byte[] key = Integer.toString(sent.size()).getBytes();
                sent.add(producer.send(new ProducerRecord<>(topic, key, body)));
            }
            for (Future<RecordMetadata> one : sent) one.get();
        }
    }

    /** read TOPIC...: a line per message, from the first to the last one that is there now. */
    static void read(Properties properties, List<String> topics) {
        var deserializer = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<byte[], byte[]>(properties, deserializer, deserializer)) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (String topic : topics) {
                consumer.partitionsFor(topic).forEach(it -> partitions.add(new TopicPartition(topic, it.partition())));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            var out = new StringBuilder();
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    out.append(record.topic()).append('\t').append(record.partition()).append('\t');
                    out.append(record.key() == null ? "-" : new String(record.key())).append('\t');
                    for (Header header : record.headers()) {
                        out.append(header.key()).append('=').append(new String(header.value())).append(';');
                    }
                    out.append('\t').append(HexFormat.of().formatHex(record.value())).append('\n');
                }
            }
            System.out.print(out);
        }
    }

    /** committed GROUP: topic, partition and committed offset, a line each. */
    static void committed(Properties properties, String group) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().forEach((partition, offset) ->
                System.out.println(partition.topic() + '\t' + partition.partition() + '\t' + offset.offset()));
        }
    }
}
