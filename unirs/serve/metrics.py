"""Metrics of the service in Prometheus's format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class ServiceMetrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("unirs_requests", "Chat completions by status", ["status"], registry=registry)
        text = "Seconds from a request to the end of its answer"
        self.seconds = Histogram("unirs_request_seconds", text, buckets=_SECONDS, registry=registry)
        self.batch_size = Histogram("unirs_batch_size", "Requests in a batch", buckets=_SIZES, registry=registry)
        self.active = Gauge("unirs_active_requests", "Requests that are read, wait or are answered", registry=registry)
        self.queue = Gauge("unirs_queued_requests", "Requests that wait for the model", registry=registry)
        self.tokens = Counter("unirs_tokens", "Tokens of answered requests", ["kind"], registry=registry)
        self.cached = Counter("unirs_cached_media", "Requests about media whose features are cached", registry=registry)

    def render(self) -> bytes:
        """The text that `/metrics` returns."""
        return generate_latest(self._registry)
