/*
 * The jars of a job on Spark 4: artifacts of its session. Compiled as JobCalls.java is.
 */
package jobserver;

import org.apache.spark.sql.artifact.ArtifactManager;
import org.apache.spark.sql.classic.SparkSession;
import scala.Function0;

public final class JarScope {
    private final ArtifactManager artifacts;

    /** `session` knows the jars, or is a clone of one that does. */
    public JarScope(Object session) {
        this.artifacts = ((SparkSession) session).artifactManager();
    }

    /** Which finds the classes of the jars. */
    public ClassLoader classloader() {
        return this.artifacts.classloader();
    }

    /** What `body` answers; Spark's tasks that it starts find the classes, too. */
    public Object within(Function0 body) {
        return this.artifacts.withResources(body);
    }
}
