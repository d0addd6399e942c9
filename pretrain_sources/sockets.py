"""Where multiprocessing puts its sockets: their paths must be short, and the folder that TMPDIR names may be long."""

import errno
import multiprocessing.util
import os
import tempfile
from pathlib import Path

LONGEST = 107 - len("/pymp-abcdefgh/listener-abcdefgh")  # bytes: an address of a socket takes 108, the last of them 0
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def shorten_socket_paths() -> None:
    """Lets multiprocessing use another folder than that of temporary files where its sockets would not fit there.

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
        multiprocessing.util.get_temp_dir()  # it is chosen once, and child processes take it over
    finally:
        tempfile.tempdir = before
