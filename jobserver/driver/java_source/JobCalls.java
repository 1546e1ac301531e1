/*
 * Calls a JVM job for the driver: loads its class, runs `validate` and `runJob`, and writes what comes back as JSON.
 * Compiled in the driver's JVM when the first jar is run, by the compiler that Spark brings; hence no lambdas and
 * no generics. Every method answers a JSON object and throws nothing, so one call of the driver is one outcome.
 */
package jobserver;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.reflect.Array;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

public final class JobCalls {
    private static final int MAX_DEPTH = 200;

    private final Object session;
    private final JarScope jars;
    private final ClassLoader loader;
    private final Map config;
    private final int limit;
    private Object job;

    /** `session` is the job's own; `limit` is the largest result in characters of JSON. */
    public JobCalls(Object session, Object jars, String config, int limit) throws Exception {
        this.session = session;
        this.jars = (JarScope) jars;
        this.loader = this.jars.classloader();
        this.config = (Map) new ObjectMapper().readValue(config, LinkedHashMap.class);
        this.limit = limit;
    }

    /** {"found": true}, {"missing": "not found" | "no job"}, or {"error": …} of a class that cannot be made. */
    public String load(String name) {
        try {
            Class type;
            try {
                type = Class.forName(name, true, this.loader);
            } catch (ClassNotFoundException error) {
                return "{\"missing\":\"class\"}";
            }
            Method run = this.method(type, "runJob");
            if (run == null) {
                return "{\"missing\":\"runJob\"}";
            }
            if (!Modifier.isStatic(run.getModifiers())) {
                this.job = type.getDeclaredConstructor(new Class[0]).newInstance(new Object[0]);
            } else {
                this.job = type;
            }
            return "{\"found\":true}";
        } catch (Throwable error) {
            return this.failure(error);
        }
    }

    /** {"value": null | text | list of texts} of the job's `validate`, which may be absent, or {"error": …}. */
    public String validate() {
        return this.call("validate", true);
    }

    /** {"value": …} or {"error": …}. */
    public String run() {
        return this.call("runJob", false);
    }

    private String call(String name, boolean optional) {
        Thread thread = Thread.currentThread();
        ClassLoader before = thread.getContextClassLoader();
        thread.setContextClassLoader(this.loader);
        try {
            Class type = this.job instanceof Class ? (Class) this.job : this.job.getClass();
            Method method = this.method(type, name);
            if (method == null && optional) {
                return "{\"value\":null}";
            }
            return this.json(this.withItsClasses(method));
        } catch (Throwable error) {
            return this.failure(error);
        } finally {
            thread.setContextClassLoader(before);
            Thread.interrupted(); // what the job did to itself is not the next job's
        }
    }

    /** Calls the job so that tasks of Spark, also those of plain RDDs, find the session's own jars. */
    private Object withItsClasses(final Method method) {
        final Object[] given = new Object[] {this.session, this.config};
        final Object target = this.job;
        return this.jars.within(
            new scala.runtime.AbstractFunction0() {
                public Object apply() {
                    try {
                        return method.invoke(target, given);
                    } catch (InvocationTargetException error) {
                        throw new Thrown(error.getCause());
                    } catch (IllegalAccessException error) {
                        throw new Thrown(error);
                    }
                }
            });
    }

    /** Carries what a job threw past code that declares nothing. */
    private static final class Thrown extends RuntimeException {
        Thrown(Throwable cause) {
            super(cause);
        }
    }

    /** The public method that takes a session and a map; null if there is none. */
    private Method method(Class type, String name) {
        Method[] methods = type.getMethods();
        for (int i = 0; i < methods.length; i++) {
            Class[] takes = methods[i].getParameterTypes();
            boolean fits = takes.length == 2 && takes[0].isInstance(this.session) && takes[1].isInstance(this.config);
            if (fits && methods[i].getName().equals(name) && !methods[i].isBridge()) {
                methods[i].setAccessible(true);
                return methods[i];
            }
        }
        return null;
    }

    private String json(Object value) throws Exception {
        StringWriter text = new StringWriter();
        JsonGenerator out = new JsonFactory().createGenerator(text);
        out.writeStartObject();
        out.writeFieldName("value");
        this.write(value, out, text, 0);
        out.writeEndObject();
        out.close();
        return text.toString();
    }

    /** The value rules of the REST contract, section 5.8; rows of Spark are arrays of their fields. */
    private void write(Object value, JsonGenerator out, StringWriter text, int depth) throws Exception {
        if (depth > MAX_DEPTH) {
            throw new IllegalArgumentException("the result contains itself, or is nested deeper than 200 levels");
        }
        if (text.getBuffer().length() > this.limit) {
            throw new IllegalArgumentException("the result has more than " + this.limit
                + " bytes of JSON: write it to a file and return its name");
        }
        if (value == null) {
            out.writeNull();
        } else if (value instanceof String) {
            out.writeString((String) value);
        } else if (value instanceof Boolean) {
            out.writeBoolean(((Boolean) value).booleanValue());
        } else if (value instanceof Integer || value instanceof Long) {
            out.writeNumber(((Number) value).longValue());
        } else if (value instanceof Double || value instanceof Float) {
            this.writeReal((Number) value, out);
        } else if (value instanceof Map) {
            this.writeMap((Map) value, out, text, depth);
        } else if (value instanceof scala.collection.Map) {
            Object map = scala.collection.JavaConverters.mapAsJavaMap((scala.collection.Map) value);
            this.writeMap((Map) map, out, text, depth);
        } else if (value instanceof List) {
            this.writeAll(((List) value).iterator(), out, text, depth);
        } else if (value instanceof scala.collection.Seq) {
            scala.collection.Iterator all = ((scala.collection.Seq) value).iterator();
            this.writeAll(scala.collection.JavaConverters.asJavaIterator(all), out, text, depth);
        } else if (value instanceof org.apache.spark.sql.Row) {
            scala.collection.Iterator all = ((org.apache.spark.sql.Row) value).toSeq().iterator();
            this.writeAll(scala.collection.JavaConverters.asJavaIterator(all), out, text, depth);
        } else if (value instanceof org.apache.spark.sql.Dataset) {
            throw new IllegalArgumentException(
                "a job cannot return a Dataset: return its rows, for example with collectAsList()");
        } else if (value instanceof scala.Product) {
            scala.collection.Iterator all = ((scala.Product) value).productIterator();
            this.writeAll(scala.collection.JavaConverters.asJavaIterator(all), out, text, depth);
        } else if (value.getClass().isArray()) {
            out.writeStartArray();
            for (int i = 0; i < Array.getLength(value); i++) {
                this.write(Array.get(value, i), out, text, depth + 1);
            }
            out.writeEndArray();
        } else {
            out.writeString(String.valueOf(value));
        }
    }

    private void writeReal(Number value, JsonGenerator out) throws Exception {
        double real = value.doubleValue();
        if (Double.isNaN(real) || Double.isInfinite(real)) {
            out.writeNull();
        } else if (value instanceof Float) {
            out.writeNumber(value.floatValue());
        } else {
            out.writeNumber(real);
        }
    }

    private void writeMap(Map map, JsonGenerator out, StringWriter text, int depth) throws Exception {
        out.writeStartObject();
        Iterator entries = map.entrySet().iterator();
        while (entries.hasNext()) {
            Map.Entry entry = (Map.Entry) entries.next();
            out.writeFieldName(String.valueOf(entry.getKey()));
            this.write(entry.getValue(), out, text, depth + 1);
        }
        out.writeEndObject();
    }

    private void writeAll(Iterator all, JsonGenerator out, StringWriter text, int depth) throws Exception {
        out.writeStartArray();
        while (all.hasNext()) {
            this.write(all.next(), out, text, depth + 1);
        }
        out.writeEndArray();
    }

    private String failure(Throwable error) {
        Throwable cause = error;
        while ((cause instanceof InvocationTargetException || cause instanceof Thrown) && cause.getCause() != null) {
            cause = cause.getCause();
        }
        StringWriter stack = new StringWriter();
        cause.printStackTrace(new PrintWriter(stack, true));
        Map told = new LinkedHashMap();
        told.put("class", cause.getClass().getName());
        told.put("message", cause.getMessage() == null ? cause.getClass().getName() : cause.getMessage());
        told.put("stack", stack.toString());
        Map answer = new LinkedHashMap();
        answer.put("error", told);
        try {
            return new ObjectMapper().writeValueAsString(answer);
        } catch (Exception impossible) {
            return "{\"error\":{\"class\":\"?\",\"message\":\"an error that has no text\",\"stack\":\"\"}}";
        }
    }
}
