"""The command line: one file per verb.

main.py picks the verb and imports that one only; `run` is what people wait for, so main, run, options,
config and environment import nothing but os, sys and our own light modules.
"""
