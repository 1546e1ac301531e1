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

    /** Computes all of it, in the calling thread's scheduler pool. */
    public void fill() throws Exception {
        ((CachedData) this.of(this.aside).apply(0)).cachedRepresentation().cacheBuilder().cachedColumnBuffers().count();
    }

    /** Makes it known to the queries of `manager` that are planned from now on. Spark's own changes hold the same monitor. */
    public void share(CacheManager manager) throws Exception {
        synchronized (manager) {
            VectorBuilder all = new VectorBuilder();
            this.add(all, this.of(this.aside));
            this.add(all, this.of(manager));
            this.entries.set(manager, all.result());
        }
    }

    /** Frees what was computed and is not shared. */
    public void drop() {
        this.aside.clearCache();
    }

    private Seq of(CacheManager manager) throws Exception {
        return (Seq) this.entries.get(manager);
    }

    private void add(VectorBuilder all, Seq some) {
        for (int i = 0; i < some.length(); i++) {
            all.$plus$eq(some.apply(i));
        }
    }
}
