"""Classes of `java_source`, compiled in the driver's JVM by the compiler that Spark brings along."""

from __future__ import annotations

from importlib import resources
from typing import Any


def compiled(context: Any, name: str, parent: Any = None) -> Any:
    """The class in the file of that name, which may use the classes of the class loader `parent`."""
    source = resources.files("jobserver.driver").joinpath("java_source", f"{name}.java")
    compiler = context._jvm.org.codehaus.janino.SimpleCompiler()
    if parent is not None:
        compiler.setParentClassLoader(parent)
    compiler.cook(source.read_text())
    return compiler.getClassLoader().loadClass(f"jobserver.{name.partition('Spark')[0]}")


def new(context: Any, java_class: Any, *given: Any) -> Any:
    """An object of a compiled class, which has one constructor."""
    gateway = context._gateway
    values = gateway.new_array(gateway.jvm.java.lang.Object, len(given))
    for at, value in enumerate(given):
        values[at] = value
    return java_class.getConstructors()[0].newInstance(values)
