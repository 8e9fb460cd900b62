"""A long job says how far it is: a bar in a terminal, a plain line now and then elsewhere."""

import io
import sys

from gazepose.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_plain_line_says_how_much_is_done_and_what_is_left(capsys):
    with Progress("cutting", 10, "crops", done=2, seconds=0) as progress:
        progress.add(3, "1 of 2 clips")
        progress.add(5)                                    # the end is not announced
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith("cutting: 1 of 2 clips, 50% of 10 crops, about ") and line.endswith(" left")


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("cutting", 10, "crops", seconds=0) as progress:
        progress.add(5)
        progress.bar.refresh()
    assert "cutting:  50%" in terminal.getvalue() and "crops" in terminal.getvalue() and not capsys.readouterr().out


def test_only_the_first_process_shows_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("cutting", 10, "crops", rank=1) as progress:
        progress.add(5)
    assert terminal.getvalue() == ""
