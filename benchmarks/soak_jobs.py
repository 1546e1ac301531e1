"""The jobs of the soak: what each of many kinds of job leaves behind, if anything."""

import gc
import threading
import time


def answer(spark, env, config):
    """Asks nothing of Spark."""
    return config.get("n")


def query(spark, env, config):
    """A small query."""
    return spark.sql("select 1 as one").collect()[0]["one"]


def view(spark, env, config):
    """A temporary view and a setting of its own."""
    spark.range(10).createOrReplaceTempView("mine")
    spark.conf.set("spark.sql.shuffle.partitions", "2")
    return spark.sql("select sum(id) as s from mine").collect()[0]["s"]


def rows(spark, env, config):
    """A DataFrame as the result."""
    return spark.range(20)


def remember(spark, env, config):
    """A new version of a named value."""
    env.named_objects.update("soak", lambda: config.get("n"))
    return env.named_objects.get("soak")


def speak(spark, env, config):
    """Output, and progress."""
    for step in range(5):
        print("x" * 200)
        env.report(step / 5, f"step {step}")


def large(spark, env, config):
    """A result of 50 KB."""
    return "y" * 50_000


def fail(spark, env, config):
    """Ends in an error with a stack."""
    raise ValueError("as it should")


def wait(spark, env, config):
    """Until it is killed."""
    while True:
        time.sleep(0.05)


class Refusing:
    """Refused by its own `validate`."""

    def validate(self, context, runtime, config):
        from sparkjobserver.api import build_problems

        return build_problems(["never"])

    def run_job(self, context, runtime, data):
        return None


def census(spark, env, config):
    """What the driver holds once all garbage is gone: bytes of the JVM's heap, its threads, Python's objects and threads."""
    gc.collect()
    jvm = spark.sparkContext._jvm
    for _ in range(3):
        jvm.System.gc()
        time.sleep(0.1)
    runtime = jvm.Runtime.getRuntime()
    beans = jvm.java.lang.management.ManagementFactory
    return {
        "heap": runtime.totalMemory() - runtime.freeMemory(),
        "jvm_threads": beans.getThreadMXBean().getThreadCount(),
        "classes": beans.getClassLoadingMXBean().getLoadedClassCount(),
        "objects": len(gc.get_objects()),
        "threads": threading.active_count(),
    }
