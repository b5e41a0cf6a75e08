"""What a job's processes hold of the cluster: the part of a request that Ray is asked for. Imports neither torch nor ray."""

from pydantic import Field

from services.job_settings import Strict


class ProcessRequest(Strict):
    """What each process of one kind holds."""

    cpus: float | None = Field(None, gt=0, le=1024, description="CPUs, also a fraction; 1 if absent, none beside a GPU.", examples=[1])
    gpus: float | None = Field(
        None, gt=0, le=1, description="A GPU or a part of one, which bounds the memory that it may take there; a whole one if absent."
    )

    def amounts(self, use_gpu: bool) -> tuple[float, float]:
        """CPUs and GPUs."""
        gpus = (self.gpus or 1.0) if use_gpu else 0.0
        return (0.0 if use_gpu else 1.0) if self.cpus is None else self.cpus, gpus


class ResourcesRequest(Strict):
    """What the cluster must have free for each process of the job, before it starts."""

    worker: ProcessRequest = Field(ProcessRequest(), description="Each training worker, and each trial of the finals.")
    evaluator: ProcessRequest = Field(ProcessRequest(), description="Each evaluator of the search.")

    def check(self, use_gpu: bool, workers: int) -> None:
        """Raises ValueError if it does not go together with how the job trains."""
        for name, process in (("worker", self.worker), ("evaluator", self.evaluator)):
            if process.gpus is not None and not use_gpu:
                raise ValueError(f"resources.{name}.gpus: the job uses no GPU; set training.use_gpu, or leave this out")
        if workers > 1 and use_gpu and self.worker.gpus not in (None, 1):
            raise ValueError(
                f"resources.worker.gpus: {workers} training workers cannot share GPUs among each other; ask for 1, or for one worker"
            )
