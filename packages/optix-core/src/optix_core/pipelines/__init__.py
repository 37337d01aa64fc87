"""Where windows come from."""

from optix_core.pipelines.batch import BatchPipeline
from optix_core.pipelines.dataset import DatasetPipeline
from optix_core.pipelines.vector import VectorBatchPipeline

__all__ = ["BatchPipeline", "DatasetPipeline", "VectorBatchPipeline"]
