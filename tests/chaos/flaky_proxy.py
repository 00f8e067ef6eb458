"""A TCP proxy on loopback that resets connections in place of a share of the answers."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading

_AT_ONCE = 65536


class FlakyProxy:
    """Relays to a port of this machine; an answer is lost after the server has done the work.

    Parameters
    ----------
    target : int
        Port of the server.
    share : float
        Of the answers that are lost, each with its connection.

    Attributes
    ----------
    port : int
        Of the proxy.
    answers, lost : int
    """

    def __init__(self, target: int, share: float, seed: int = 0) -> None:
        self.target, self.share = target, share
        self.answers = self.lost = 0
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> FlakyProxy:
        self._thread.start()
        listening = asyncio.start_server(self._relay, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        both = (writer, back)
        await asyncio.gather(
            self._pump(reader, back, both, answers=False),
            self._pump(there, writer, both, answers=True),
        )

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        both: tuple[asyncio.StreamWriter, ...],
        *,
        answers: bool,
    ) -> None:
        try:
            while data := await source.read(_AT_ONCE):
                if answers:
                    self.answers += 1
                    if self._random.random() < self.share:
                        self.lost += 1
                        for writer in both:
                            _reset(writer)
                        return
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: what was sent and not yet delivered is gone."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
