"""What a loop has by asyncio's contract, and workflow code cannot have; and what always has the same answer."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from perdure._replay.history import user_line
from perdure.errors import NotInWorkflow


class _Refusal:
    """A method that teaches. The error counts even if user code swallows it."""

    def __init__(self) -> None:
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, loop: Any, owner: type) -> Any:
        return lambda *_args, **_options: self._refuse(loop)

    def _refuse(self, loop: Any) -> NoReturn:
        raise loop.noted(
            NotInWorkflow(
                f"{user_line()}: {self._name}() does I/O or leaves the workflow's thread, so it would come out "
                "differently in replay. Do it in a @task; for something quick and local, inline(fn)."
            )
        )


def _refused() -> Any:
    return _Refusal()


class Surface(asyncio.AbstractEventLoop):
    """asyncio's surface as far as it has nothing to do with the run."""

    run_in_executor = _refused()
    set_default_executor = _refused()
    shutdown_default_executor = _refused()
    call_soon_threadsafe = _refused()

    create_connection = _refused()
    create_server = _refused()
    create_datagram_endpoint = _refused()
    create_unix_connection = _refused()
    create_unix_server = _refused()
    connect_accepted_socket = _refused()
    start_tls = _refused()
    sendfile = _refused()
    getaddrinfo = _refused()
    getnameinfo = _refused()

    sock_recv = _refused()
    sock_recv_into = _refused()
    sock_recvfrom = _refused()
    sock_recvfrom_into = _refused()
    sock_sendall = _refused()
    sock_sendto = _refused()
    sock_connect = _refused()
    sock_accept = _refused()
    sock_sendfile = _refused()

    subprocess_exec = _refused()
    subprocess_shell = _refused()
    connect_read_pipe = _refused()
    connect_write_pipe = _refused()
    add_reader = _refused()
    remove_reader = _refused()
    add_writer = _refused()
    remove_writer = _refused()
    add_signal_handler = _refused()
    remove_signal_handler = _refused()

    run_forever = _refused()
    run_until_complete = _refused()
    stop = _refused()
    close = _refused()
    set_debug = _refused()
    set_task_factory = _refused()
    set_exception_handler = _refused()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    async def shutdown_asyncgens(self) -> None:
        return None
