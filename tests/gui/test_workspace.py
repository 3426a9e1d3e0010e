"""The page of an open checkpoint: what its views show, and when."""

from collections.abc import Callable

from pytestqt.qtbot import QtBot

from studio.gui.shell.studio import Studio


def test_a_plot_that_comes_into_sight_shows_the_results(studio: Studio, wait: Callable[[], None], qtbot: QtBot) -> None:
    overview = studio.workspace.overview
    behind = [(group, number) for group in (overview.first, overview.second) for number in range(1, group.count())]
    for group, number in behind:
        group.setCurrentIndex(number)
        assert group.widget(number).empty.isVisibleTo(group)
    for group, _ in behind:
        group.setCurrentIndex(0)
    studio.commands.perform("quantize")
    wait()
    for group, number in behind:
        group.setCurrentIndex(number)
        empty = group.widget(number).empty
        qtbot.waitUntil(lambda empty=empty, group=group: not empty.isVisibleTo(group))
    for group, _ in behind:
        group.setCurrentIndex(0)
