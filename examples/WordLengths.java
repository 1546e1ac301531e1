/*
 * A JVM job: lengths of words, with a parameter and a check of it. No library of the server is needed to compile it.
 *
 *   javac --release 17 -cp "$SPARK_HOME/jars/*" -d out examples/WordLengths.java && jar cf word_lengths.jar -C out .
 *   curl --data-binary @word_lengths.jar -H 'Content-Type: application/java-archive' localhost:8090/binaries/lengths
 *   curl -d '{"input": {"words": ["to", "be"], "at-least": 2}}' \
 *       'localhost:8090/jobs?cp=lengths&mainClass=examples.WordLengths&sync=true&context=demo'
 */
package examples;

import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.spark.api.java.function.FilterFunction;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Encoders;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

public class WordLengths {
    /** Null when the configuration is good, else a text for each thing that is wrong with it. */
    public List validate(SparkSession spark, Map<String, Object> config) {
        List problems = new ArrayList();
        Map input = (Map) config.get("input");
        if (input == null || !(input.get("words") instanceof List)) {
            problems.add("config input.words must be a list of words");
        }
        if (input != null && input.get("at-least") != null && !(input.get("at-least") instanceof Number)) {
            problems.add("config input.at-least must be a number");
        }
        return problems.isEmpty() ? null : problems;
    }

    /** How many words there are of each length. */
    public Map<String, Object> runJob(SparkSession spark, Map<String, Object> config) {
        Map input = (Map) config.get("input");
        List words = (List) input.get("words");
        int least = input.get("at-least") == null ? 0 : ((Number) input.get("at-least")).intValue();
        Dataset longEnough = spark.createDataset(words, Encoders.STRING())
            .filter((FilterFunction) new LongEnough(least));
        longEnough.createOrReplaceTempView("words");
        List rows = spark.sql("select length(value) as n, count(*) from words group by n order by n").collectAsList();
        Map counts = new LinkedHashMap();
        for (int i = 0; i < rows.size(); i++) {
            Row row = (Row) rows.get(i);
            counts.put(String.valueOf(row.get(0)), row.get(1));
        }
        return counts;
    }

    /** Runs on executors: it is found there because the jar is part of the job's session. */
    public static class LongEnough implements FilterFunction {
        private final int least;

        public LongEnough(int least) {
            this.least = least;
        }

        public boolean call(Object word) {
            return String.valueOf(word).length() >= this.least;
        }
    }
}
