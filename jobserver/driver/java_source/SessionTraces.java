/*
 * What a job has left in its session, so that one that is as it was made can serve the next job. Compiled in the driver's
 * JVM by the compiler that Spark brings; hence no lambdas and no generics.
 */
package jobserver;

import java.lang.reflect.Method;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.spark.sql.catalyst.catalog.SessionCatalog;
import org.apache.spark.sql.internal.SessionState;

public final class SessionTraces {
    private final SessionState state;
    private final Map settings;
    private final String database;
    private final String catalog;
    private final int listeners;

    /** Of a new session: remembers how it is. */
    public SessionTraces(Object state) {
        this.state = (SessionState) state;
        this.settings = new HashMap(this.state.conf().settings());
        this.database = this.state.catalog().getCurrentDatabase();
        this.catalog = this.state.catalogManager().currentCatalog().name();
        this.listeners = this.state.listenerManager().listListeners().length;
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
