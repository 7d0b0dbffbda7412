"""Bombs are refused, with less than 64 MiB and a bounded number of calls, by every parser of untrusted bytes."""

import importlib.util
import sys
from pathlib import Path

import pytest

from sim.errors import FormatError

FOLDER = Path(__file__).parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


costs = load("bomb_costs")
table = load("bombs")


def refusing(data):
    raise FormatError("test", "", f"{len(data)} bytes")


@pytest.mark.parametrize("bomb", table.BOMBS, ids=lambda bomb: bomb.title)
def test_a_bomb_is_refused_and_costs_little(bomb):
    cost = costs.defuse(bomb)
    assert cost.refused, "the bomb was taken for a good file"
    assert cost.memory_bytes < costs.MEMORY_BYTES_MAX


def test_each_row_stands_once():
    titles = [bomb.title for bomb in table.BOMBS]
    assert len(set(titles)) == len(titles) > 150


def test_a_parser_that_takes_a_bomb_is_seen():
    bomb = costs.Bomb(parser="test", kind="taken", make=lambda: b"x", read=len)
    assert costs.defuse(bomb).refused == ""


def test_a_parser_that_keeps_a_bomb_is_seen():
    def keep(data):
        kept = [bytes(1 << 20) for _ in range(70)]
        refusing(data + kept[0])

    bomb = costs.Bomb(parser="test", kind="kept", make=lambda: b"x", read=keep)
    assert costs.defuse(bomb).memory_bytes > costs.MEMORY_BYTES_MAX


def test_a_parser_that_works_on_and_on_is_stopped(monkeypatch):
    monkeypatch.setattr(costs, "CALLS_MAX", 1000)

    def work(data):
        for _ in range(2000):
            len(data)
        refusing(data)

    with pytest.raises(TimeoutError, match="more than 1000 calls"):
        costs.defuse(costs.Bomb(parser="test", kind="endless", make=lambda: b"x", read=work))


def test_an_exception_that_is_no_refusal_is_raised():
    bomb = costs.Bomb(parser="test", kind="broken", make=lambda: b"x", read=lambda data: data.missing)
    with pytest.raises(AttributeError):
        costs.defuse(bomb)
