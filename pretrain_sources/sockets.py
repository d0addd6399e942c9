"""The folder of multiprocessing's sockets: their paths must be short, and TMPDIR may be long."""

import errno
import multiprocessing.util
import os
import tempfile
from pathlib import Path

LONGEST = 107 - len("/pymp-abcdefgh/listener-abcdefgh")  # bytes: a socket address holds 108, with a final 0
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def shorten_socket_paths() -> None:
    """Let multiprocessing use another folder if the path of the temporary folder is too long for sockets.

    Raises:
        OSError: there is none.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) <= LONGEST:
        return
    usable = [name for name in SHORT if Path(name).is_dir() and os.access(name, os.W_OK | os.X_OK)]
    if not usable:
        raise OSError(
            errno.ENAMETOOLONG, f"too long for sockets: set TMPDIR to a path of at most {LONGEST} bytes", folder
        )
    before, tempfile.tempdir = tempfile.tempdir, usable[0]
    try:
        multiprocessing.util.get_temp_dir()  # chosen once, and inherited by child processes
    finally:
        tempfile.tempdir = before
