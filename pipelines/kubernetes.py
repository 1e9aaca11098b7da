"""Kubernetes settings of a profile, put on the tasks of a pipeline while it is compiled (through kfp-kubernetes)."""

from kfp import dsl, kubernetes
from kfp.dsl.structures import ResourceSpec

from pipelines.tasks import step_of
from uniscale.profile import Pool, Profile

NOT_RETRIED = ("preflight", "finish")  # what is missing stays missing; an exit handler cannot be retried


def apply_profile(profile: Profile) -> None:
    """Settle every task of the pipeline that is being defined; call it at the end of the pipeline's function."""
    pipeline = dsl.pipeline_context.Pipeline.get_default_pipeline()
    steps = {name: step_of(name) for name in pipeline.tasks}
    images = {target: profile.image_of(target) for target in profile.targets()}  # each costs a walk over the source
    for name, task in pipeline.tasks.items():
        pool = profile.pool_of(steps[name])
        _contain(task, images[pool.target], pool)
        _settle(task, steps[name], profile)


def _settle(task: dsl.PipelineTask, step: str, profile: Profile) -> None:
    pool = profile.pool_of(step)
    kubernetes.set_image_pull_policy(task, profile.pull_policy)
    if profile.pull_secrets:
        kubernetes.set_image_pull_secrets(task, profile.pull_secrets)
    for claim, path in profile.volumes.items():
        kubernetes.mount_pvc(task, pvc_name=claim, mount_path=path)
    for secret, variables in profile.secrets.items():
        # Optional for Kubernetes, which would let the pod wait for ever; the preflight step says what is missing.
        kubernetes.use_secret_as_env(task, secret_name=secret, secret_key_to_env=variables, optional=True)
    if pool.shared_memory:
        size = pool.shared_memory
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=size)
    _placement(task, pool)
    kubernetes.set_timeout(task, pool.timeout_seconds)
    if pool.retries and step not in NOT_RETRIED:
        task.set_retry(pool.retries, backoff_duration=f"{pool.retry_seconds}s", backoff_factor=2.0)


def _contain(task: dsl.PipelineTask, image: str, pool: Pool) -> None:
    # The task's own setters each read the source of every caller up the stack, which took most of a compilation.
    container = task.container_spec
    assert container is not None, "every task of ours is a step"
    container.image, container.env = image, dict(pool.environment)
    container.resources = ResourceSpec(
        cpu_request=pool.cpu_request,
        cpu_limit=pool.cpu_limit,
        memory_request=pool.memory_request,
        memory_limit=pool.memory_limit,
        accelerator_type=pool.accelerator or None,
        accelerator_count=str(pool.accelerators) if pool.accelerator else None,
    )


def _placement(task: dsl.PipelineTask, pool: Pool) -> None:
    for label, value in pool.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for taint in pool.tolerations:
        kubernetes.add_toleration(
            task, key=taint.key, operator=taint.operator, value=taint.value or None, effect=taint.effect
        )
    for name, value in pool.annotations.items():
        kubernetes.add_pod_annotation(task, name, value)
