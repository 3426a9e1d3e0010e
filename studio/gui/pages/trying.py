"""Trying: lets source and quantized model continue a prompt, in a process of their own that stays for the next one."""

from functools import partial

from PySide6.QtCore import QObject

from studio import core
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.conversation import Conversation, Sides
from studio.gui.jobs.evaluating import Evaluating
from studio.gui.jobs.job import GENERATE, Job
from studio.gui.jobs.runs import Runs
from studio.gui.jobs.turns import Ending
from studio.gui.layers.document import Document
from studio.gui.pages.try_it import TryIt, verdict
from studio.gui.shell.faults import message_of

STOPPED, STAYS = "Stopped.", "Both models stay loaded until the checkpoint is closed or other work begins."


class Trying(QObject):
    """Asks the sides, and shows what they say as it comes."""

    def __init__(
        self, document: Document, compute: Compute, runs: Runs, evaluating: Evaluating, view: TryIt, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._document, self._compute, self._runs, self._view = document, compute, runs, view
        self._evaluating = evaluating
        self._conversation = Conversation()
        view.reply_wanted.connect(self.reply)
        view.stop_wanted.connect(runs.stop)
        document.opened.connect(self._start_anew)
        runs.began.connect(lambda kind: self.let_go() if kind != GENERATE.key else None)

    def reply(self, prompt: core.Prompt) -> None:
        """Let both sides continue a prompt."""
        if self._runs.active:
            self._view.say("Not now: work is running.", "warning")
            return
        sides = self._sides()
        steps = partial(self._conversation.reply, self._runs.machine, sides, prompt)
        job = Job(GENERATE, "Trying a prompt", steps, over=self._over, hear=partial(self._hear, sides))
        if self._runs.run(job):
            self._view.begin("Source" if sides.compared else "", sides.title)

    def _sides(self) -> Sides:
        document, known = self._document, self._evaluating.evaluation
        assert document.model is not None
        if document.exported:
            return Sides(document.model, source=known.wanted.source if known else None)
        return Sides(document.model, document.plan)

    def _hear(self, sides: Sides, event: object) -> None:
        match event:
            case core.Loaded(_, _, chat):
                self._view.offer_chat(chat)
                self._view.say("Writing …")
            case core.Token():
                self._view.add(event)
            case core.ReplyDone(differs_at):
                self._view.say(verdict(differs_at, compared=sides.compared))

    def _over(self, ending: Ending, job: Job) -> None:
        if ending == "finished":
            self._view.end(self._view.said.text())
        elif ending == "stopped":
            self._view.end(f"{STOPPED} {STAYS}" if self._conversation.is_loaded else STOPPED)
        else:
            message = message_of(job.error, "", GENERATE.remedy)
            self._view.end(" ".join(filter(None, (message.text, message.hint))), "error")

    def _start_anew(self) -> None:
        self.let_go()
        self._view.clear()

    def let_go(self) -> None:
        """End the process that holds the models, if there is one."""
        self._compute.do(self._conversation.close)
