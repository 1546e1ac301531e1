"""The jobs of the REST contract's tests: one file, uploaded as it is. The fake service knows them by name."""

import time


class WordCount:
    """Counts words; refuses a configuration without `input.string`."""

    def validate(self, context, runtime, config):
        try:
            return config["input"]["string"].split()
        except (KeyError, AttributeError, TypeError):
            from sparkjobserver.api import build_problems

            return build_problems(["No input.string config param"])

    def run_job(self, context, runtime, data):
        counts = {}
        for word in data:
            counts[word] = counts.get(word, 0) + 1
        return counts


class Failing:
    """Raises when it runs."""

    def validate(self, context, runtime, config):
        return None

    def run_job(self, context, runtime, data):
        raise RuntimeError("this job fails")


class FailingValidate:
    """Raises when it is asked whether it can run."""

    def validate(self, context, runtime, config):
        raise RuntimeError("this validate fails")

    def run_job(self, context, runtime, data):
        return None


class Nothing:
    """Returns None."""

    def validate(self, context, runtime, config):
        return None

    def run_job(self, context, runtime, data):
        return None


class Sleeping:
    """Runs until it is killed, or for ten minutes."""

    def validate(self, context, runtime, config):
        return None

    def run_job(self, context, runtime, data):
        end = time.monotonic() + 600
        while time.monotonic() < end:
            time.sleep(0.05)
        return "done"
