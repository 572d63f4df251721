"""TensorBoard files. They are written in the calling thread, so that errors of the disk are raised."""

import struct
import time
from pathlib import Path
from typing import Any

import numpy as np

from memgpt_jax.files.checksums import DamagedError
from memgpt_jax.files.paths import shown

FLUSH_SECONDS = 10


class EventLog:
    """Appends records to a new event file; TensorBoard then ignores the records after `step` in older files."""

    def __init__(self, folder: Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter

        # protobuf makes the classes of these modules at run time
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        folder.mkdir(exist_ok=True)
        self._event = Event
        self._writer = EventsWriter(str(folder / "events"))
        self._writer.write_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
        self._flush()

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed = time.monotonic()

    def write(self, record: dict[str, Any]) -> None:
        """Log one record: numbers, lists of one number per layer, and lists of one histogram over [0, 1] per layer."""
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.summary import scalar

        parts = []
        for name, value in record.items():
            if value is None:
                continue
            if np.ndim(value) == 0:
                parts.append(scalar(name, value))
            elif np.ndim(value) == 1:
                parts += [scalar(f"{name}/layer_{layer}", number) for layer, number in enumerate(value)]
            elif np.ndim(value) == 2:
                parts += [_histogram(f"{name}/layer_{layer}", np.asarray(row)) for layer, row in enumerate(value)]
        summary = Summary(value=[value for part in parts for value in part.value])
        self._writer.write_event(self._event(step=record["step"], summary=summary, wall_time=time.time()))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def close(self) -> None:
        """Write all buffered records and close the file."""
        self._writer.close()


def _histogram(name: str, counts: np.ndarray):
    from tensorboardX.summary import histogram_raw

    edges = np.linspace(0, 1, len(counts) + 1)
    centers = (edges[1:] + edges[:-1]) / 2
    return histogram_raw(
        name,
        min=0.0,
        max=1.0,
        num=float(counts.sum()),
        sum=float(counts @ centers),
        sum_squares=float(counts @ centers**2),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(),
    )


def check_events(path: Path) -> None:
    """Raise `DamagedError` if an event file is damaged: each record contains two checksums.

    An incomplete last record is not an error: the process was killed.
    """
    from tensorboardX.record_writer import masked_crc32c

    data, start = path.read_bytes(), 0
    while len(data) - start >= 12:
        header, (check,) = data[start : start + 8], struct.unpack("I", data[start + 8 : start + 12])
        if masked_crc32c(header) != check:
            raise DamagedError(f"{shown(path)}: the record at byte {start} is damaged")
        end = start + 12 + struct.unpack("Q", header)[0]
        if len(data) < end + 4:
            return
        if masked_crc32c(data[start + 12 : end]) != struct.unpack("I", data[end : end + 4])[0]:
            raise DamagedError(f"{shown(path)}: the record at byte {start} is damaged")
        start = end + 4
