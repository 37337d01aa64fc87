"""Where windows come from."""

from optix_core.pipelines.batch import BatchPipeline
from optix_core.pipelines.dataset import DatasetPipeline
from optix_core.pipelines.feed import Reconnect
from optix_core.pipelines.intrinsic import RNDPipeline
from optix_core.pipelines.live import LivePipeline
from optix_core.pipelines.sources import AsyncSource, IterableSource, WebSocketSource
from optix_core.pipelines.vector import VectorBatchPipeline

__all__ = [
    "AsyncSource",
    "BatchPipeline",
    "DatasetPipeline",
    "IterableSource",
    "LivePipeline",
    "RNDPipeline",
    "Reconnect",
    "VectorBatchPipeline",
    "WebSocketSource",
]
