/*
 * Some jars on Spark 4: artifacts of one session, which others join. Compiled as JobCalls.java is.
 */
package jobserver;

import java.io.File;
import java.lang.reflect.Field;
import java.util.List;
import org.apache.spark.sql.artifact.ArtifactManager;
import org.apache.spark.sql.classic.SparkSession;
import org.apache.spark.sql.internal.SessionState;
import scala.Function0;

public final class JarScope {
    private final Jars jars;
    private final ArtifactManager first; // kept, as its end would take away what the session has

    /** `session` is new and keeps its artifacts apart from others; `paths` are files whose names no other jars have. */
    public JarScope(Object session, List paths) throws Exception {
        this.first = ((SparkSession) session).artifactManager();
        this.jars = new Jars((SparkSession) session);
        this.join(session);
        for (int i = 0; i < paths.size(); i++) {
            ((SparkSession) session).addArtifact(new File((String) paths.get(i)).toURI());
        }
        this.jars.complete = true;
    }

    /** Makes a session know the jars as well, which Spark itself cannot. */
    public void join(Object session) throws Exception {
        SessionState state = ((SparkSession) session).sessionState();
        state.artifactManager(); // made, and so not made again when it is asked for
        Field field = SessionState.class.getDeclaredField("artifactManager");
        field.setAccessible(true);
        field.set(state, this.jars);
    }

    /** Which finds the classes of the jars. */
    public ClassLoader classloader() {
        return this.jars.classloader();
    }

    /** What `body` answers; Spark's tasks that it starts find the classes, too. */
    public Object within(Function0 body) {
        return this.jars.withResources(body);
    }

    /**
     * Shared by all sessions that have joined and by their clones, which Spark makes for each cached DataFrame and each
     * streaming query. A copy for a clone would have a class loader of its own, and be among what every other task fetches.
     */
    private static final class Jars extends ArtifactManager {
        private boolean complete;

        Jars(SparkSession session) {
            super(session);
        }

        public ArtifactManager clone(SparkSession other) {
            return this;
        }

        public void addLocalArtifacts(scala.collection.immutable.Seq artifacts) {
            if (this.complete) {
                throw new UnsupportedOperationException(
                    "a JVM job cannot add artifacts: jobs of the same jars share them. Name further jars in `cp` of the job, or "
                        + "in `cp` or `dependent-jar-uris` of the context");
            }
            super.addLocalArtifacts(artifacts);
        }

        public void close() {}
    }
}
