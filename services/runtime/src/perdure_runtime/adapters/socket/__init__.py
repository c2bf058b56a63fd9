"""The broker, and reads, of another process on this machine, over a unix-domain socket.

Frames are msgpack with a length before them; messages in them are the wire contract's bytes. Who may open the
socket file may use it: it has mode 0600, and there is no other authentication.
"""

from perdure_runtime.adapters.socket.client import SocketClient, connect
from perdure_runtime.adapters.socket.server import SocketServer, serve

__all__ = ["SocketClient", "SocketServer", "connect", "serve"]
