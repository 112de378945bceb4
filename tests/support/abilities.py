"""A program for any Python: what works in it, as one JSON object of ability -> "ok" or the error.

It is run by an original interpreter and by its replica, and the two answers are compared.
"""

import json
import os
import sys

CODE = {
    "ssl": "import ssl; assert ssl.create_default_context().get_ca_certs(); ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)",
    "sqlite3": "import sqlite3; assert sqlite3.connect(':memory:').execute('select 6 * 7').fetchone() == (42,)",
    "ctypes": "import ctypes; assert ctypes.CDLL(None).abs(-3) == 3; ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1)()",
    "lzma": "import lzma; assert lzma.decompress(lzma.compress(b'x')) == b'x'",
    "bz2": "import bz2; assert bz2.decompress(bz2.compress(b'x')) == b'x'",
    "zlib": "import zlib; assert zlib.decompress(zlib.compress(b'x')) == b'x'",
    "zoneinfo": "import zoneinfo; assert zoneinfo.ZoneInfo('Europe/Berlin')",
    "uuid": "import _uuid, uuid; assert uuid.uuid1() != uuid.uuid4()",
    "readline": "import readline; readline.parse_and_bind('tab: complete')",
    "curses": "import curses, curses.panel; assert curses.version",
    "hashlib": "import hashlib, _hashlib; assert hashlib.new('sha512', b'x').digest(); hashlib.scrypt",
    "decimal": "import decimal, _decimal; assert str(decimal.Decimal('0.1') * 3) == '0.3'",
    "encodings": "assert '日本'.encode('euc_jp').decode('euc_jp') == '日本'; 'x'.encode('idna'); 'é'.encode('cp1252')",
    "expat": "import xml.etree.ElementTree as e; assert e.fromstring('<a><b/></a>')[0].tag == 'b'",
    "dbm": "import dbm.ndbm",
    "gdbm": "import _gdbm",
    "unicodedata": "import unicodedata; assert unicodedata.name('ß')",
    "spawn": "import multiprocessing as m; p = m.get_context('spawn').Process(target=print); p.start(); p.join(30);"
    " assert p.exitcode == 0",
    "forkserver": "import multiprocessing as m; p = m.get_context('forkserver').Process(target=print); p.start();"
    " p.join(30); assert p.exitcode == 0",
    "ensurepip": "import ensurepip, venv; assert ensurepip.version()",
    "headers": "import os, sysconfig; assert os.path.isfile(os.path.join(sysconfig.get_path('include'), 'Python.h'))",
    "pyconfig": "import sysconfig; sysconfig.parse_config_h(open(sysconfig.get_config_h_filename()))",
    "distutils": "import distutils.sysconfig",
    "lib2to3": "import lib2to3.pgen2.driver, lib2to3.pygram",
    "pydoc": "import pydoc, pydoc_data.topics",
    "getpass": "import getpass, pwd, grp; assert pwd.getpwuid(0).pw_name == 'root'",
    "resolver": "import socket; assert socket.getaddrinfo('localhost', 80)",
}


def ability(code: str) -> str:
    """Run `code` in this process."""
    try:
        exec(code, {})
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


def loaded_files() -> list:
    """Every file mapped into this process after it loaded the standard library's extension modules."""
    import importlib
    import sysconfig

    for name in sorted(os.listdir(os.path.join(sysconfig.get_path("stdlib"), "lib-dynload"))):
        if name.startswith(("_tkinter.", "nis.", "_crypt.")):
            continue  # their libraries are the node's
        try:
            importlib.import_module(name.partition(".")[0])
        except ImportError:
            continue
    with open("/proc/self/maps") as maps:
        return sorted({line.split(maxsplit=5)[5].strip() for line in maps if "/" in line})


if __name__ == "__main__":
    if sys.argv[1] == "abilities":
        chosen = sys.argv[2:] or list(CODE)
        print(json.dumps({name: ability(CODE[name]) for name in chosen}))
    elif sys.argv[1] == "files":
        print(json.dumps(loaded_files()))
