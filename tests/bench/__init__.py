"""Measures sdisup beside what else keeps an FFmpeg running: `tests/bench/run`."""
