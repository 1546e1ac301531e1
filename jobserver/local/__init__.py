"""A cluster on one machine, made of what pip has installed: Java, ZooKeeper, servers. For people, demos and tests.

* `java`: where Java 17+ and Spark's jars are
* `ports`, `processes`: free ports; processes known by pid and start time, and how they are ended
* `zookeeper`: one node, or an ensemble
* `layout`: directory and settings of a local cluster
* `up`: starts all of it, watches it, leaves nothing behind
* `ivy`: fetches jars that further real parts need (HDFS, MariaDB)

Imports neither pyspark nor the database.
"""
