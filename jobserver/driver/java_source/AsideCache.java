/*
 * A DataFrame's cache that no query knows of before it is full. Compiled as JobCalls.java is; no types of one Spark only.
 */
package jobserver;

import java.lang.reflect.Field;
import org.apache.spark.sql.execution.CacheManager;
import org.apache.spark.sql.execution.CachedData;
import scala.collection.Seq;
import scala.collection.immutable.VectorBuilder;

public final class AsideCache {
    private final CacheManager aside;
    private final Field entries;

    /** `aside` was told to cache the DataFrame, and nothing else; it is no session's. */
    public AsideCache(CacheManager aside) throws Exception {
        this.aside = aside;
        this.entries = CacheManager.class.getDeclaredField("cachedData");
        this.entries.setAccessible(true);
    }

    /** The cached rows as a plan: a query on it computes those parts of the cache which are not there. */
    public Object relation() throws Exception {
        return this.own().cachedRepresentation();
    }

    /**
     * Makes it known to the queries of `manager` that are planned from now on, unless they have another by now: then this one is
     * freed. Spark's own changes hold the same monitor.
     */
    public void share(CacheManager manager) throws Exception {
        synchronized (manager) {
            CachedData own = this.own();
            VectorBuilder all = new VectorBuilder();
            all.$plus$eq(own);
            Seq others = (Seq) this.entries.get(manager);
            for (int i = 0; i < others.length(); i++) {
                CachedData other = (CachedData) others.apply(i);
                if (other.plan().sameResult(own.plan())) {
                    this.drop();
                    return;
                }
                all.$plus$eq(other);
            }
            this.entries.set(manager, all.result());
        }
    }

    /** Frees what was computed. */
    public void drop() {
        this.aside.clearCache();
    }

    private CachedData own() throws Exception {
        return (CachedData) ((Seq) this.entries.get(this.aside)).apply(0);
    }
}
