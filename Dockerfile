# The images of the pipeline's steps and of the service; `make images` prints the commands that build them.
# Targets: features (Java for Spark), spark (pods of a Spark cluster), train, train-gpu, serve, monitor; `all` has everything and runs any step.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG SPARK_IMAGE=apache/spark:4.3.0
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 \
    DO_NOT_TRACK=1 BENTOML_DO_NOT_TRACK=True DVC_NO_ANALYTICS=1 FEAST_USAGE=False MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /app
COPY requirements.lock ./
RUN python -m pip install -r requirements.lock && python -m compileall -q /usr/local/lib/python3.11/site-packages
COPY pyproject.toml README.md params.yaml ./
COPY profiles profiles
COPY uniscale uniscale
COPY features features
COPY models models
COPY serving serving
COPY monitoring monitoring
COPY simulation simulation
COPY components components
COPY pipelines pipelines
RUN python -m pip install --no-deps --no-build-isolation . && useradd --uid 10001 --create-home uniscale
USER 10001
ENTRYPOINT []

FROM base AS features
USER root
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps && rm -rf /var/lib/apt/lists/*
USER 10001

# Pods of a Spark cluster on Kubernetes: its master starts them through the entry point of Spark's own image.
FROM ${SPARK_IMAGE} AS spark-entrypoint

FROM features AS spark
USER root
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
COPY --from=spark-entrypoint /opt/entrypoint.sh /opt/entrypoint.sh
ENV SPARK_HOME=/usr/local/lib/python3.11/site-packages/pyspark
USER 10001
ENTRYPOINT ["/opt/entrypoint.sh"]

FROM base AS train

FROM ${CUDA_IMAGE} AS train-gpu
RUN apt-get update && apt-get install -y --no-install-recommends software-properties-common \
    && add-apt-repository -y ppa:deadsnakes/ppa && apt-get update \
    && apt-get install -y --no-install-recommends python3.11 python3.11-venv && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /app
COPY requirements.lock ./
RUN python3.11 -m venv /opt/venv && python -m pip install --no-cache-dir -r requirements.lock
COPY --from=base /app /app
RUN python -m pip install --no-deps --no-build-isolation . && useradd --uid 10001 --create-home uniscale
USER 10001

FROM base AS serve
EXPOSE 3000

FROM base AS monitor

FROM features AS all
