"""TensorBoard's files, read with tensorboardX's own protocol buffers."""

import struct

from tensorboardX.proto.event_pb2 import Event


def events(directory):
    """(step, value) of everything in the only file of a TensorBoard folder."""
    (path,) = directory.iterdir()
    content, found = path.read_bytes(), []
    while content:  # TFRecord: length, its checksum, the bytes, their checksum
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        found += [(event.step, value) for value in event.summary.value]
        content = content[16 + length :]
    return found


def scalars(directory):
    """(tag, epoch, value) of every number."""
    return [
        (value.tag, step, value.simple_value)
        for step, value in events(directory)
        if value.WhichOneof("value") == "simple_value"
    ]
