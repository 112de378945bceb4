"""What the environment's own interpreter runs to compile: self-contained, for any Python from 3.8 on.

Sent as ``python -c``; imports nothing of ours, since likewise need not be installed there. It says its cache tag and
magic number in a first line, then reads one JSON line per batch (see `compile_layers`) and answers each file with a
line of its own, so that a crash of the interpreter can be put down to the file it happened in.

The caller sets ``PYTHONHASHSEED=0``, since marshal writes sets in the order of their hashes before 3.11. With 3.11 and
3.12 the output then depends on source and name alone (measured over W160, in two orders); with 3.10 and 3.13.0 a few
files differ in what else the process has interned.
"""

from __future__ import annotations

SCRIPT = r"""
import sys
sys.path[:] = [p for p in sys.path if p]
import gc, hashlib, importlib.util, json, marshal, os, signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
gc.disable()
out = sys.stdout.buffer

def answer(value):
    out.write(json.dumps(value).encode() + b"\n")
    out.flush()

def make(source, name):
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    # PEP 552: a hash-based pyc that is not checked against its source, because the layer's digest has been.
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
    return head + marshal.dumps(code)

def one(path, sha256, name, target):
    with open(path, "rb") as file:
        source = file.read()
    if hashlib.sha256(source).hexdigest() != sha256:
        return "changed"
    try:
        data = make(source, name)
    except Exception:  # Python 2, templates, deliberately broken test data, too deeply nested
        return "skipped"
    try:
        file = open(target, "wb")
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        file = open(target, "wb")
    with file:
        file.write(data)
    return [hashlib.sha256(data).hexdigest(), len(data)]

answer([sys.implementation.cache_tag or "", importlib.util.MAGIC_NUMBER.hex()])
for line in sys.stdin.buffer:
    for task in json.loads(line):
        try:
            answer(one(*task))
        except OSError as error:
            answer("%s: %s" % (error.filename or task[3], error.strerror))
    gc.collect()
"""
