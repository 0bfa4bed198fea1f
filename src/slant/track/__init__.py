"""Curves and results of a run, in Weights & Biases, MLflow and TensorBoard while it goes on.

A tracker never stops or slows a run. Training puts numbers into a bounded queue (``outbox``); a
thread takes them to a process of the tracker's own (``link``, ``worker``), which alone loads the
tracker's library and can be ended whatever it hangs in.
"""
