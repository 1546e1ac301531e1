/*
 * Some jars on Spark 4: artifacts of one session, which others join. Compiled as JobCalls.java is.
 */
package jobserver;

import java.lang.reflect.Field;
import org.apache.spark.sql.artifact.ArtifactManager;
import org.apache.spark.sql.classic.SparkSession;
import org.apache.spark.sql.internal.SessionState;
import scala.Function0;

public final class JarScope {
    private final ArtifactManager artifacts;

    /** `session` knows the jars. */
    public JarScope(Object session) {
        this.artifacts = ((SparkSession) session).artifactManager();
    }

    /**
     * Makes a session know the jars as well. Spark itself can only copy them into a clone: each clone then has a class
     * loader of its own on every executor, and its copies are among what all other tasks must fetch until they are gone.
     */
    public void join(Object session) throws Exception {
        SessionState state = ((SparkSession) session).sessionState();
        state.artifactManager(); // made, and so not made again when it is asked for
        Field field = SessionState.class.getDeclaredField("artifactManager");
        field.setAccessible(true);
        field.set(state, this.artifacts);
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
