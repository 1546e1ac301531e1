/*
 * The jars of a job on Spark 3.5, whose sessions have no artifacts: executors keep the jars of each artifact state in a
 * class loader of its own, and we keep one here. Compiled as JobCalls.java is.
 */
package jobserver;

import java.net.URL;
import java.net.URLClassLoader;
import java.util.List;
import org.apache.spark.JobArtifactSet$;
import org.apache.spark.JobArtifactState;
import org.apache.spark.SparkContext;
import scala.Function0;
import scala.Option;
import scala.runtime.AbstractFunction0;

public final class JarScope {
    private final JobArtifactState state;
    private final ClassLoader loader;

    /** `name` stands for these jars and no others; `paths` are files whose names no other jars have. */
    public JarScope(final Object context, String name, final List paths) throws Exception {
        this.state = new JobArtifactState(name, Option.empty());
        URL[] urls = new URL[paths.size()];
        for (int i = 0; i < urls.length; i++) {
            urls[i] = new java.io.File((String) paths.get(i)).toURI().toURL();
        }
        this.loader = new URLClassLoader(urls, SparkContext.class.getClassLoader());
        this.within(
            new AbstractFunction0() {
                public Object apply() {
                    for (int i = 0; i < paths.size(); i++) {
                        ((SparkContext) context).addJar((String) paths.get(i));
                    }
                    return null;
                }
            });
    }

    /** Makes a session know the jars as well: here nothing is needed, the state holds for what a thread submits. */
    public void join(Object session) {}

    /** Which finds the classes of the jars. */
    public ClassLoader classloader() {
        return this.loader;
    }

    /** What `body` answers; Spark's tasks that it starts find the classes, too. */
    public Object within(Function0 body) {
        return JobArtifactSet$.MODULE$.withActiveJobArtifactState(this.state, body);
    }
}
