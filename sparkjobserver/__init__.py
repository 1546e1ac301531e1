"""What authors of jobs import; importing it loads no Spark."""

from sparkjobserver.api import (
    JobEnvironment,
    NamedObjects,
    ObjectDamaged,
    Progress,
    SparkJob,
    ValidationProblem,
    build_problems,
)

__all__ = [
    "JobEnvironment",
    "NamedObjects",
    "ObjectDamaged",
    "Progress",
    "SparkJob",
    "ValidationProblem",
    "build_problems",
]
