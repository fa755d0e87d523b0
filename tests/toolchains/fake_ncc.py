"""Small programs that take the command lines of ncc 0.1 and 0.2, and check every word.

The real ones were written by others and are tens of megabytes; these honour the same
contract: usage on --help, "Fatal: …" and a non-zero exit code, a kmodel on success.
"""

from __future__ import annotations

import sys

_COMMON = (
    f"#!{sys.executable} -I"
    + '''
import os, signal, sys, time
def fatal(text):
    print("Fatal: " + text); sys.exit(1)
def files(folder, suffixes):
    found = [os.path.join(b, n) for b, _, ns in os.walk(folder) for n in ns]
    return [f for f in found if suffixes is None or f.lower().endswith(suffixes)]
def behave(model):
    """The model's text tells what goes wrong."""
    text = open(model, "rb").read()
    if b"KILL" in text: os.kill(os.getpid(), signal.SIGSEGV)
    if b"SILENT" in text: sys.exit(0)
    if b"FATAL:" in text: fatal(text.split(b"FATAL:")[1].decode())
    if b"ZERO-FATAL" in text: print("Fatal: Invalid tflite model"); sys.exit(0)
    if b"SLEEP" in text:
        open(text.split(b"SLEEP:")[1].decode(), "w").write(str(os.getpid())); time.sleep(60)
    if b"WARN" in text:
        print("WARN: conv_7 Fallback to float conv2d due to weights divergence.")
    return b"MAGIC" in text
args = sys.argv[1:]
'''
)

NCC_02 = (
    _COMMON
    + '''
USAGE = """DESCRIPTION
NNCASE model compiler and inference tool.

SYNOPSIS
    ncc compile <input file> <output file> -i <input format>"""
if args[:1] != ["compile"]:
    print(USAGE); sys.exit(0 if args == ["--help"] else 1)
source, out, rest = args[1], args[2], args[3:]
options = dict(zip(rest[::2], rest[1::2]))
image = options.get("--dataset-format") == "image"
wanted = {"-i", "-t", "--dataset", "--dataset-format", "--input-type", "--calibrate-method",
          "--max-allocator-solve-secs"} | ({"--input-mean", "--input-std"} if image else set())
if set(options) != wanted or options["-i"] != "tflite" or options["-t"] != "k210":
    print(USAGE); sys.exit(1)
if options["--max-allocator-solve-secs"] != "0": fatal("the solver would run")
if options["--input-type"] != ("uint8" if image else "float"): fatal("wrong input type")
if not files(options["--dataset"], (".png", ".jpg", ".jpeg", ".bmp") if image else None):
    fatal("Invalid dataset, should contain one file at least")
wrong = behave(source)
note = " ".join(k + "=" + v for k, v in sorted(options.items()) if k != "--dataset")
open(out, "wb").write((b"XXXX" if wrong else b"LDMK") + (4).to_bytes(4, "little") + note.encode())
print("5. Generate code...")
'''
).encode()

NCC_01 = (
    _COMMON
    + '''
if os.environ.get("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT") != "1":
    print("Couldn't find a valid ICU package installed on the system."); os.abort()
USAGE = """ncc 1.0.0

  -i, --input-format      Required. Set Input format.
  -o, --output-format     Required. Set Output format."""
if "-i" not in args:
    print(USAGE); sys.exit(0 if args == ["--help"] else 1)
source, out = args[-2:]
rest = args[:-2]
options = dict(zip(rest[::2], rest[1::2]))
if set(options) - {"-i", "-o", "--dataset", "--dataset-format", "--postprocess"}:
    print(USAGE); sys.exit(1)
if options["-i"] != "tflite" or options["-o"] != "k210model": fatal("output-format")
if not os.path.dirname(out): fatal("Value cannot be null. Parameter name: path1")
if not out.endswith(".kmodel"): fatal("it would write " + os.path.splitext(out)[0] + ".kmodel")
raw = options.get("--dataset-format") == "raw"
if not files(options["--dataset"], None if raw else (".png", ".jpg", ".jpeg", ".bmp")):
    fatal("Invalid dataset.")
wrong = behave(source)
note = " ".join(k + "=" + v for k, v in sorted(options.items()) if k != "--dataset")
open(out, "wb").write((9 if wrong else 3).to_bytes(4, "little") + note.encode())
'''
).encode()
