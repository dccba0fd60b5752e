"""Serves a model as llama.cpp does, on a free port of the loopback interface. Prints the address, ends with its input.

    python serve.py MODEL.gguf
"""

import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.model_alias = {"smollm2"}
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_ctx = 16384
params.n_parallel = 4
# those of ggml spin, and on a busy core that makes them many times slower
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.offline = True
params.ui = False
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
