/*
 * A session that serves one job after the other: a thread of a job enters it by one call of Py4J, and what a job has left in
 * it is looked up, so that only one that is as it was made serves the next. Compiled in the driver's JVM by the compiler
 * that Spark brings; hence no lambdas and no generics.
 */
package jobserver;

import java.lang.reflect.Method;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.spark.SparkContext;
import org.apache.spark.sql.catalyst.catalog.SessionCatalog;
import org.apache.spark.sql.internal.SessionState;

public final class PooledSession {
    private final Object session;
    private final SessionState state;
    private final SparkContext context;
    private final Method activate;
    private final Map settings;
    private final String database;
    private final String catalog;
    private final int listeners;

    /** Of a new session: remembers how it is. */
    public PooledSession(Object session, Object state, Object context) {
        this.session = session;
        this.state = (SessionState) state;
        this.context = (SparkContext) context;
        this.activate = setActiveSession(session);
        this.settings = new HashMap(this.state.conf().settings());
        this.database = this.state.catalog().getCurrentDatabase();
        this.catalog = this.state.catalogManager().currentCatalog().name();
        this.listeners = this.state.listenerManager().listListeners().length;
    }

    /** The calling thread works in this session now, in a group and a pool, with nothing of an earlier job's properties. */
    public void enter(String group, String description, String pool) throws Exception {
        this.context.setLocalProperties(new Properties());
        this.context.setJobGroup(group, description, true);
        this.context.setLocalProperty("spark.scheduler.pool", pool);
        this.activate.invoke(null, new Object[] {this.session});
    }

    /** By name, as the class of sessions lies elsewhere in Spark 3. */
    private static Method setActiveSession(Object session) {
        Method[] all = session.getClass().getMethods();
        for (int i = 0; i < all.length; i++) {
            Class[] takes = all[i].getParameterTypes();
            if (all[i].getName().equals("setActiveSession") && takes.length == 1 && takes[0].isInstance(session)) {
                return all[i];
            }
        }
        throw new IllegalStateException("this Spark has no setActiveSession");
    }

    /** Drops the views of these names, and says what else is not as it was; empty where all is. */
    public String left(List views) {
        SessionCatalog names = this.state.catalog();
        for (int i = 0; i < views.size(); i++) {
            names.dropTempView((String) views.get(i));
        }
        if (!names.listLocalTempViews("*").isEmpty()) {
            return "temporary views";
        }
        if (!this.settings.equals(this.state.conf().settings())) {
            return "settings";
        }
        if (!names.listTemporaryFunctions().isEmpty()) {
            return "temporary functions";
        }
        if (!this.database.equals(names.getCurrentDatabase())
                || !this.catalog.equals(this.state.catalogManager().currentCatalog().name())) {
            return "another database";
        }
        if (this.hasVariables()) {
            return "variables";
        }
        if (this.state.listenerManager().listListeners().length != this.listeners) {
            return "listeners";
        }
        if (!this.state.experimentalMethods().extraStrategies().isEmpty()
                || !this.state.experimentalMethods().extraOptimizations().isEmpty()) {
            return "rules of its own";
        }
        return "";
    }

    /** Asked by name, as sessions of Spark 3 have no variables. */
    private boolean hasVariables() {
        Object manager = this.state.catalogManager();
        try {
            Method variables = manager.getClass().getMethod("tempVariableManager", new Class[0]);
            Object all = variables.invoke(manager, new Object[0]);
            Method empty = all.getClass().getMethod("isEmpty", new Class[0]);
            return !((Boolean) empty.invoke(all, new Object[0])).booleanValue();
        } catch (NoSuchMethodException older) {
            return false;
        } catch (Exception error) {
            return true; // unknown is not empty: the session serves no other job
        }
    }
}
