"""Counts words, as a job class and as a function. Upload this file as it is, under the name `word_count`.

    curl --data-binary @examples/word_count.py -H 'Content-Type: text/x-python' localhost:8090/binaries/word_count
    curl -d '{"input": {"strings": ["a b", "a"]}}' \
        'localhost:8090/jobs?cp=word_count&mainClass=word_count.WordCount&sync=true&context=demo'
"""

from operator import add

from sparkjobserver.api import SparkJob, build_problems


def count_words(spark, lines):
    """How often each word occurs in the lines."""
    words = spark.sparkContext.parallelize(lines).flatMap(str.split)
    return dict(words.map(lambda word: (word, 1)).reduceByKey(add).collect())


class WordCount(SparkJob):
    """`input.strings`: lines of text. Refused with a sentence when it is missing."""

    def validate(self, context, runtime, config):
        lines = config.get("input.strings", None)
        return lines if lines else build_problems(["config input.strings not found"])

    def run_job(self, context, runtime, data):
        return count_words(context, data)


def word_count(spark, env, config):
    """The same as a function: mainClass=word_count:word_count."""
    return count_words(spark, config.get("input.strings"))
