import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

/** Sends transactions to Kafka, one JSON object a line of standard input: java Producer.java BOOTSTRAP TOPIC KEY_FIELD */
public class Producer {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("acks", "all");
        settings.put("enable.idempotence", "true");
        settings.put("key.serializer", StringSerializer.class.getName());
        settings.put("value.serializer", StringSerializer.class.getName());
        // A JSON library would do this better; this pattern is enough for a field that holds text without quotes.
        Pattern key = Pattern.compile("\"" + Pattern.quote(arguments[2]) + "\"\\s*:\\s*\"([^\"]*)\"");
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                Matcher found = key.matcher(line);
                if (!found.find()) {
                    throw new IllegalArgumentException("no " + arguments[2] + " in a line");
                }
                sent.add(producer.send(new ProducerRecord<>(arguments[1], found.group(1), line)));
            }
            for (Future<RecordMetadata> acknowledged : sent) {
                acknowledged.get(); // throws where a transaction was not taken: send it again
            }
        }
    }
}
